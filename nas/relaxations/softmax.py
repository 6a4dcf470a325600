"""The softmax of DARTS (Liu et al., 2019, eq. 2), with a temperature."""

from torch import Tensor

from nas.relaxations.relaxation import TemperedRelaxation


class Softmax(TemperedRelaxation):
    """``softmax(alpha / temperature)`` over the last axis; no noise."""

    def __call__(self, alpha: Tensor) -> Tensor:
        return (alpha / self.temperature).softmax(-1)

    def probabilities(self, alpha: Tensor) -> Tensor:
        return self(alpha)
