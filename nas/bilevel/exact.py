"""Exact one-step unrolled gradient: automatic differentiation through the whole weight step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nas.bilevel.problem import BilevelProblem, as_number, global_norm
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.data.dataset import Batch


@dataclass(frozen=True)
class Exact:
    """The gradient of ``L_val(w - lr * u(w, alpha, h), alpha)`` with ``u`` clipped, decayed and with momentum.

    For what acts on the update alone (learning rate, weight decay) this is the closed form ``-grad L_val(w') . dw'/dh``
    and costs one training and one validation gradient. Alpha and what acts through the training loss take a double
    backward.
    """

    reaches_hyperparameters: ClassVar[bool] = True

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
        rate = values["learning_rate"]
        moved = {name: (weight.detach() - rate * update[name]).to(weight.dtype) for name, weight in weights.items()}
        if not double_backward:  # the graph of w' may hold nothing but numbers
            moved = {
                name: weight if weight.requires_grad else weight.requires_grad_() for name, weight in moved.items()
            }

        validation_loss, logits = problem.validation_loss(moved, validation)
        names = list(moved)
        found = torch.autograd.grad(validation_loss, [*targets, *(moved[name] for name in names)], allow_unused=True)
        for target, gradient in zip(targets, found, strict=False):
            target.grad = torch.zeros_like(target) if gradient is None else gradient
        at_moved = dict(zip(names, found[len(targets) :], strict=True))
        norm = global_norm({name: gradient for name, gradient in at_moved.items() if gradient is not None})
        length = as_number(rate) * float(global_norm(update).detach())
        return UpperLevelReport(
            validation_loss.detach(),
            logits.detach(),
            training_loss.detach(),
            validation_gradient_norm=float(norm),
            step_length=length,
            passes=(1, 1),
        )
