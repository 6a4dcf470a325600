"""The softmax of DARTS (Liu et al., 2019, eq. 2), with a temperature."""

from torch import Generator, Tensor

from nas.relaxations.relaxation import Temperature


class Softmax:
    """``softmax(alpha / temperature)`` over the last axis; no noise."""

    generator: Generator | None = None

    def __init__(self, temperature: Temperature) -> None:
        self.schedule = temperature
        self.temperature = temperature.at(0.0)

    def __call__(self, alpha: Tensor) -> Tensor:
        return (alpha / self.temperature).softmax(-1)

    def probabilities(self, alpha: Tensor) -> Tensor:
        return self(alpha)

    def advance(self, progress: float) -> None:
        self.temperature = self.schedule.at(progress)
