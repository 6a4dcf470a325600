"""Exact one-step unrolled gradient: automatic differentiation through the whole weight step."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nas.bilevel.hypergradient import UpperLevelReport
from nas.bilevel.problem import BilevelProblem, global_norm
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class Exact:
    """The gradient of ``L_val(w - lr * u(w, alpha, h), alpha)`` with ``u`` clipped, decayed and with momentum.

    For what acts on the update alone (learning rates, weight decay, momentum) this is the closed form
    ``grad L_val(w') . dw'/dh`` and costs one training and one validation gradient. Alpha and what acts through the
    training loss take a double backward.
    """

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture", "loss", "decay", "update"})

    def most_passes(self, targets: int) -> int:
        return 2

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return not {"architecture", "loss"}.isdisjoint(kinds)

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        values = problem.values()
        weights = problem.weights()
        through_loss = {*problem.supernet.architecture_parameters(), *problem.hyperparameters.acting_through_loss()}
        double_backward = any(target in through_loss for target in targets)

        training_loss = problem.training_loss(weights, training, values)
        gradients = torch.autograd.grad(training_loss, list(weights.values()), create_graph=double_backward)
        update = problem.update_direction(weights, dict(zip(weights, gradients, strict=True)), values)
        moved = problem.moved(weights, update, values)

        validation_loss, logits = problem.validation_loss(moved, validation)
        found = torch.autograd.grad(validation_loss, [*targets, *moved.values()], materialize_grads=True)
        for target, gradient in zip(targets, found[: len(targets)], strict=True):
            target.grad = gradient
        at_moved = dict(zip(moved, found[len(targets) :], strict=True))
        return UpperLevelReport(
            validation_loss.detach(),
            logits.detach(),
            training_loss.detach(),
            validation_gradient_norm=float(global_norm(at_moved)),
            step_length=problem.step_length(update),
            passes=(1, 1),
        )
