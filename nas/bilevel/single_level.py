"""Alpha learns from the training loss, as in SNAS (Xie et al., 2019, "SNAS: Stochastic Neural Architecture Search")."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch


@dataclass(frozen=True)
class SingleLevel(FirstOrder):
    """``grad_alpha L_train(w, alpha)`` on the batch of the weight step; the validation loss has no part in it."""

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        report = super().gradients(problem, validation, training, targets)
        return replace(report, passes=(1, 0))
