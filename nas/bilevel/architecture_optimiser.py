"""How alpha moves along its gradient."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nas.errors import require
from nas.relaxations.relaxation import Relaxation
from nas.relaxations.simplex import Simplex


def weighs_edges(alpha: str) -> bool:
    """Whether the alpha of this name holds the weights of a node's edges (``space.edge_normalisation``)."""
    return alpha.endswith("_edges")


class ArchitectureOptimiser(ABC):
    """What moves alpha along its gradient. A new one is one class with :meth:`over`."""

    @abstractmethod
    def over(self, alphas: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of ``alphas`` (by name, each (..., options)); its state is part of a checkpoint."""

    def check(self, relaxation: Relaxation) -> None:  # noqa: B027 - some go with every relaxation
        """Refuse a relaxation whose alphas it cannot move.

        Raises:
            InvalidValue: The key is ``relaxation``.
        """


@dataclass(frozen=True)
class Adam(ArchitectureOptimiser):
    """Adam for alpha, as in DARTS."""

    rate: float
    betas: tuple[float, float]
    weight_decay: float

    def __post_init__(self) -> None:
        require(self.rate > 0 and math.isfinite(self.rate), "rate", self.rate, "it must be a number above 0")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(good, "betas", list(self.betas), "it must be two numbers from 0 to below 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "it must be at least 0")

    def over(self, alphas: Mapping[str, nn.Parameter]) -> torch.optim.Adam:
        betas = (self.betas[0], self.betas[1])
        return torch.optim.Adam(list(alphas.values()), lr=self.rate, betas=betas, weight_decay=self.weight_decay)

    def check(self, relaxation: Relaxation) -> None:
        allowed = "Adam's steps leave the simplex, architecture_optimiser=exponentiated_gradient stays on it"
        require(not isinstance(relaxation, Simplex), "relaxation", type(relaxation).__name__, allowed)
