"""The gradient through the weight step that was just taken: the search's own step is the one that is differentiated.

A strategy that looks ahead takes a training pass for a step that is then thrown away, and the weight step repeats it.
Here the weights move first, with alpha and h as they are, and the graph of that step is kept; one validation batch at
the new weights then serves alpha and h both. This is DARTS's alternation shifted by half a step. For h it is the
hypergradient of Baydin et al. (2018, "Online Learning Rate Adaptation with Hypergradient Descent"), of everything that
acts on the step: the real-time one of Franceschi et al. (2017) with a horizon of one step.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Described, UpperLevelReport
from nas.bilevel.problem import BilevelProblem, RecordedStep, global_norm
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class LastStep:
    """``d L_val(w'(h), alpha) / dh`` and ``grad_alpha L_val(w', alpha)``, where ``w'`` are the weights after the step.

    The step is taken as a whole, clipping, weight decay and momentum included. Alpha gets its first-order gradient.
    """

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture", "loss", "decay", "update"})

    def most_passes(self, targets: int) -> int:
        return 1

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return "loss" in kinds

    def serves(self, other: Described) -> bool:
        return isinstance(other, FirstOrder | LastStep)

    def look_back(
        self, problem: BilevelProblem, step: RecordedStep | None, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        if step is None:
            return FirstOrder()(problem, validation, validation, targets)
        weights = problem.weights()
        alphas = [alpha for alpha in problem.supernet.architecture_parameters() if alpha in set(targets)]
        learned = [target for target in targets if target not in set(alphas)]
        loss, logits = problem.validation_loss(weights, validation)
        found = torch.autograd.grad(loss, [*alphas, *weights.values()], materialize_grads=True)
        slopes = dict(zip(weights, found[len(alphas) :], strict=True))
        moved = [step.moved[name] for name in weights]
        through = torch.autograd.grad(moved, learned, list(slopes.values()), materialize_grads=True)
        for target, gradient in zip([*alphas, *learned], [*found[: len(alphas)], *through], strict=True):
            target.grad = gradient
        return UpperLevelReport(
            loss.detach(),
            logits.detach(),
            step.taken.loss,
            validation_gradient_norm=float(global_norm(slopes)),
            step_length=step.length,
        )
