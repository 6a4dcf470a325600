"""What every relaxation offers, and the temperature schedules that some share."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor

from nas.errors import require


class Relaxation(ABC):
    """Turns architecture parameters into the weights of a mixed operation's options; it has no learned state.

    Attributes:
        generator: The source of any noise; the run sets it before the first use.
    """

    generator: Generator | None = None

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
