"""Differentiable neural architecture search: architecture and hyperparameters learned by one hypergradient."""
