"""Bilevel optimisation: hypergradients, learned hyperparameters and the gradient search."""
