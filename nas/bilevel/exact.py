"""Exact one-step unrolled gradient (DARTS, Liu et al., 2019, eq. 6 and 7): autograd through the whole weight step."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind
from nas.training.sgd import global_norm


@dataclass(frozen=True)
class Exact(Hypergradient):
    """The gradient of ``L_val(w', alpha)`` with ``w' = sgd(w, grad L_train(w, alpha, h), h)``, clipped, with momentum.

    For what acts on the update alone (learning rates, weight decay, momentum) this is the closed form
    ``grad L_val(w') . dw'/dh`` and costs one training and one validation gradient. Alpha and what acts through the
    training loss take a double backward.
    """

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return not {"architecture", "loss"}.isdisjoint(kinds)

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        step = problem.step_ahead(training, second_order=bool(problem.act_through_loss(targets)))
        loss, logits = problem.validation_loss(step.after, validation)
        # w' is in the graph of the targets, so that autograd adds up both terms of eq. 7.
        gradients = torch.autograd.grad(loss, [*targets, *step.after.values()], materialize_grads=True)
        at_weights = dict(zip(step.after, gradients[len(targets) :], strict=True))
        return Report(
            gradients[: len(targets)],
            loss.detach(),
            logits.detach(),
            step.loss.detach(),
            validation_gradient_norm=float(global_norm(at_weights)),
            step_length=step.length,
            passes=(1, 1),
        )
