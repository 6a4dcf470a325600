"""Exponentiated gradient on the simplex (Li et al., 2021, "Geometry-Aware Gradient Algorithms for NAS", section 4)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.bilevel.architecture_optimiser import ArchitectureOptimiser, weighs_edges
from nas.errors import require
from nas.relaxations.relaxation import Relaxation
from nas.relaxations.simplex import Simplex

Order = Literal["before", "after"]


def exponentiated(theta: Tensor, gradient: Tensor, rate: float, floor: float = 0.0, order: Order = "before") -> Tensor:
    """``theta * exp(-rate * gradient)``, divided by the sum over the last axis.

    Args:
        theta: Weights (..., options) whose rows add up to 1.
        floor: What no weight may fall below.
        order: Whether the floor comes ``before`` the division, or ``after`` it: rows may then add up to more than 1.
    """
    moved = theta * torch.exp(-rate * gradient)
    if order == "after":
        return (moved / moved.sum(-1, keepdim=True)).clamp_min(floor)
    moved = moved.clamp_min(floor)
    return moved / moved.sum(-1, keepdim=True)


@dataclass(frozen=True)
class ExponentiatedGradient(ArchitectureOptimiser):
    """The mirror descent of GAEA: alpha holds the weights themselves (``relaxation=simplex``), and no state is kept.

    Args:
        rate: That of the operations' weights.
        edge_rate: That of the edges' weights (``space.edge_normalisation``), which have no floor.
        floor, order: As of :func:`exponentiated`; ``before`` is GAEA's DARTS, ``after`` its GDAS.
        weight_decay: 0.
    """

    rate: float = 0.1
    edge_rate: float = 0.1
    floor: float = 1e-5
    order: Order = "before"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for key, rate in (("rate", self.rate), ("edge_rate", self.edge_rate)):
            require(0 < rate < math.inf, key, rate, "it must be a number above 0")
        require(0 <= self.floor < 1, "floor", self.floor, "it must be a number from 0 to below 1")
        allowed = "it must be 0: a decay towards 0 leaves the simplex, take regulariser=entropy"
        require(self.weight_decay == 0, "weight_decay", self.weight_decay, allowed)

    def over(self, alphas: Mapping[str, nn.Parameter]) -> "SimplexDescent":
        edges = [alpha for name, alpha in alphas.items() if weighs_edges(name)]
        operations = [alpha for name, alpha in alphas.items() if not weighs_edges(name)]
        groups = [
            {"params": operations, "rate": self.rate, "floor": self.floor},
            {"params": edges, "rate": self.edge_rate, "floor": 0.0},
        ]
        return SimplexDescent([group for group in groups if group["params"]], self.order)

    def check(self, relaxation: Relaxation) -> None:
        allowed = "exponentiated_gradient moves the weights themselves, take simplex"
        require(isinstance(relaxation, Simplex), "relaxation", type(relaxation).__name__, allowed)


class SimplexDescent(torch.optim.Optimizer):
    """:func:`exponentiated` for every parameter of ``groups``, which have a ``rate`` and a ``floor``."""

    def __init__(self, groups: list[dict[str, Any]], order: Order) -> None:
        super().__init__(groups, {})
        self.order = order

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for theta in group["params"]:
                if theta.grad is not None:
                    theta.copy_(exponentiated(theta, theta.grad, group["rate"], group["floor"], self.order))
