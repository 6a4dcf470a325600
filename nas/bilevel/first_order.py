"""First-order architecture gradient: the weights are taken as they are (DARTS, Liu et al., 2019, eq. 6 with xi = 0)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class FirstOrder(Hypergradient):
    """``grad_alpha L_val(w, alpha)``; hyperparameters act only through the weights, so it cannot see them."""

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture"})

    def most_passes(self, targets: int) -> int:
        return 1

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return False

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        # The chain rule in two steps: the loss in the operation weights, which a CUDA graph may record, then the
        # operation weights in alpha, whose noise and temperature change from step to step.
        relaxed = problem.supernet.operation_weights()
        leaves = {name: weight.detach().requires_grad_() for name, weight in relaxed.items()}
        loss, logits, at_leaves = problem.operation_gradients(validation, leaves)
        gradients = torch.autograd.grad(list(relaxed.values()), targets, at_leaves, materialize_grads=True)
        return Report(gradients, loss.clone(), logits.clone())  # a replayed CUDA graph overwrites both
