"""First-order architecture gradient: the weights are taken as they are (DARTS with xi = 0)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nas.bilevel.problem import BilevelProblem
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.data.dataset import Batch


@dataclass(frozen=True)
class FirstOrder:
    """``grad_alpha L_val(w, alpha)``; hyperparameters act only through the weights, so it cannot see them."""

    reaches_hyperparameters: ClassVar[bool] = False

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        loss, logits = problem.validation_loss(problem.weights(), validation)
        gradients = torch.autograd.grad(loss, targets, allow_unused=True)
        for target, gradient in zip(targets, gradients, strict=True):
            target.grad = torch.zeros_like(target) if gradient is None else gradient
        return UpperLevelReport(loss.detach(), logits.detach())
