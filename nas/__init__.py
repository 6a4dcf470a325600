"""Differentiable neural architecture search: architecture and hyperparameters learned by one hypergradient."""

__version__ = "0.1.0"
