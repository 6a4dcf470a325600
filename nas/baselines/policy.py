"""What REINFORCE moves: a distribution over candidates.

An action holds one index per choice and then one number ``z`` per continuous hyperparameter, whose place from 0 to 1 is
the standard normal's distribution function at ``z``. A policy draws ``z`` from a Gaussian, and the standard one is
uniform over places.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

LARGEST_LOG_DEVIATION = 3.0


class Policy(nn.Module, ABC):
    """A distribution over actions, (about) uniform over the space when made. All numbers are float64.

    Args:
        sizes: How many options each choice has.
        places: How many continuous hyperparameters there are.
    """

    def __init__(self, sizes: Sequence[int], places: int) -> None:
        super().__init__()
        self.sizes, self.places = tuple(sizes), places

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions: (count, choices + places)."""

    @abstractmethod
    def evaluate(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy in nats of the decisions of each action, (count,) both and differentiable.

        A hyperparameter's part of the entropy is that of its place: 0 where it is uniform and else below.
        """

    def marginals(self) -> list[list[float]]:
        """Per choice the probability of each option; empty where a choice depends on the ones before it."""
        return []


class PolicySettings(Protocol):
    """What a configuration builds while the space is not known yet."""

    def policy(self, sizes: Sequence[int], places: int, generator: torch.Generator) -> Policy:
        """A policy whose initial weights, where they are random, come from ``generator``."""
        ...


def drawn_gaussian(mean: Tensor, log_deviation: Tensor, generator: torch.Generator) -> Tensor:
    """One number for each entry of ``mean``."""
    return mean + log_deviation.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


def bounded_log_deviation(raw: Tensor) -> Tensor:
    """``raw`` near 0, and smoothly kept within what can still be differentiated safely."""
    return LARGEST_LOG_DEVIATION * (raw / LARGEST_LOG_DEVIATION).tanh()


def categorical_entropy(log_probabilities: Tensor) -> Tensor:
    """Of each row, (..., options) to (...)."""
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def gaussian_log_density(z: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    return -0.5 * ((z - mean) / log_deviation.exp()) ** 2 - log_deviation - 0.5 * math.log(2 * math.pi)


def place_entropy(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """The differential entropy of the place: minus the divergence of ``z`` from the standard normal."""
    return log_deviation - 0.5 * ((2 * log_deviation).exp() + mean**2 - 1)


def place_of(z: float) -> float:
    """The standard normal's distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
