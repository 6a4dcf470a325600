"""The seam: what every hypergradient strategy offers."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import nn

from nas.bilevel.problem import BilevelProblem
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.data.dataset import Batch


class Hypergradient(Protocol):
    """Fills ``.grad`` of ``targets`` (alphas, raw hyperparameters) with the gradient of the validation loss.

    Weights, buffers (batch-norm statistics included) and optimiser state stay bit for bit as they were. Strategies are
    frozen dataclasses: two equal ones share their passes.
    """

    reaches_hyperparameters: ClassVar[bool]

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport: ...
