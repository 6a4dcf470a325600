"""The seam: what every relaxation offers, and the temperature schedules they share."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nas.errors import require


class Relaxation(Protocol):
    """Architecture parameters to the weights of a mixed operation's options.

    ``generator`` is the source of any noise; the run sets it before the first use. A relaxation has no learned state.
    """

    generator: torch.Generator | None

    def __call__(self, alpha: Tensor) -> Tensor:
        """Weights of the same shape as ``alpha`` (..., options); differentiable with respect to ``alpha``."""
        ...

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The weights without noise: what is logged and what is discretised."""
        ...

    def advance(self, progress: float) -> None:
        """Tell how much of the search is done (0 to 1); a temperature schedule follows it."""
        ...


@dataclass(frozen=True)
class Temperature:
    """A temperature that goes from ``initial`` to ``final`` over the search."""

    initial: float = 1.0
    final: float = 1.0
    schedule: Literal["linear", "exponential"] = "exponential"

    def __post_init__(self) -> None:
        for key, value in {"initial": self.initial, "final": self.final}.items():
            require(0 < value < math.inf, key, value, "a temperature must be a finite number above 0")

    def at(self, progress: float) -> float:
        if self.schedule == "linear":
            return self.initial + (self.final - self.initial) * progress
        return math.exp(math.log(self.initial) * (1 - progress) + math.log(self.final) * progress)
