"""What every relaxation offers, and the temperature schedules that some share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from nas.errors import require


class Relaxation(ABC):
    """Turns architecture parameters into the weights of a mixed operation's options; it has no learned state.

    Attributes:
        generator: The source of any noise; the run sets it before the first use.
        on_simplex: Whether the weights of a row add up to 1.
        sampled: Whether every row of weights is one-hot, and a network computes that one option alone.
    """

    generator: Generator | None = None
    on_simplex: ClassVar[bool] = True
    sampled: bool = False

    def initial(self, shape: Sequence[int]) -> Tensor:
        """Where an alpha of this ``shape`` begins; what is random in it comes from PyTorch's global generator."""
        return 1e-3 * torch.randn(*shape)

    @abstractmethod
    def __call__(self, alpha: Tensor) -> Tensor:
        """Weights of the same shape as ``alpha`` (..., options); differentiable with respect to ``alpha``."""

    @abstractmethod
    def probabilities(self, alpha: Tensor) -> Tensor:
        """The weights without noise: what is logged and what is discretised."""

    def advance(self, progress: float) -> None:  # noqa: B027 - not every relaxation has a schedule
        """Follow the search, of which the share ``progress`` (0 to 1) is done."""


@dataclass(frozen=True)
class Temperature:
    """A temperature that goes from ``initial`` to ``final`` over the search.

    Raises:
        InvalidValue: A temperature is not a finite number above 0.
    """

    initial: float = 1.0
    final: float = 1.0
    schedule: Literal["linear", "exponential"] = "exponential"

    def __post_init__(self) -> None:
        for key, value in {"initial": self.initial, "final": self.final}.items():
            require(0 < value < math.inf, key, value, "a temperature must be a finite number above 0")

    def at(self, progress: float) -> float:
        """The temperature when the share ``progress`` (0 to 1) of the search is done."""
        if self.schedule == "linear":
            return self.initial + (self.final - self.initial) * progress
        return math.exp(math.log(self.initial) * (1 - progress) + math.log(self.final) * progress)


class TemperedRelaxation(Relaxation):
    """A relaxation with a temperature that follows its schedule."""

    def __init__(self, temperature: Temperature) -> None:
        self.schedule = temperature
        self.temperature = temperature.at(0.0)

    def advance(self, progress: float) -> None:
        self.temperature = self.schedule.at(progress)
