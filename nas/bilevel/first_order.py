"""First-order architecture gradient: the weights are taken as they are (DARTS with xi = 0)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from nas.bilevel.hypergradient import UpperLevelReport
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class FirstOrder:
    """``grad_alpha L_val(w, alpha)``; hyperparameters act only through the weights, so it cannot see them."""

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture"})

    def most_passes(self, targets: int) -> int:
        return 1

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return False

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        gradients, loss, logits = problem.first_order(validation, targets)
        for target, gradient in zip(targets, gradients, strict=True):
            target.grad = gradient
        return UpperLevelReport(loss, logits)
