"""The gradient through the weight step that was just taken: the search differentiates its own step.

One that looks ahead takes a training pass for a step that is then thrown away, and the weight step repeats it. Here
the weights move first, with alpha and h as they are, and the graph of that step is kept; one validation batch at
the new weights then serves alpha and h both. This is DARTS's alternation shifted by half a step. For h it is the
hypergradient of Baydin et al. (2018, "Online Learning Rate Adaptation with Hypergradient Descent"), of everything that
acts on the step: the real-time one of Franceschi et al. (2017) with a horizon of one step.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind
from nas.training.sgd import global_norm


@dataclass(frozen=True)
class LastStep(Hypergradient):
    """``d L_val(w'(h), alpha) / dh`` and ``grad_alpha L_val(w', alpha)``, where ``w'`` are the weights after the step.

    The step is taken as a whole, clipping, weight decay and momentum included. Alpha gets its first-order gradient.
    """

    looks_back: ClassVar[bool] = True
    needs_graph: ClassVar[Literal["never", "asked", "always"]] = "asked"

    def most_passes(self, targets: int) -> int:
        return 1

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return "loss" in kinds

    def serves(self, other: Hypergradient) -> bool:
        return other == FirstOrder() or isinstance(other, LastStep)

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        step = problem.last_step
        if step is None:  # alpha alone is asked for
            return FirstOrder().gradients(problem, training, validation, targets)
        weights = problem.weights()
        alphas = [alpha for alpha in problem.supernet.architecture_parameters() if alpha in set(targets)]
        raw = [target for target in targets if target not in set(alphas)]
        loss, logits = problem.validation_loss(weights, validation)
        gradients = torch.autograd.grad(loss, [*alphas, *weights.values()], materialize_grads=True)
        at_weights = dict(zip(weights, gradients[len(alphas) :], strict=True))
        # The live weights are w' without its graph, so that the chain rule goes on in the graph that was kept.
        after = [step.after[name] for name in weights]
        of_raw = torch.autograd.grad(after, raw, list(at_weights.values()), materialize_grads=True)
        by_target = dict(zip([*alphas, *raw], [*gradients[: len(alphas)], *of_raw], strict=True))
        return Report(
            [by_target[target] for target in targets],
            loss.detach(),
            logits.detach(),
            step.loss.detach(),
            validation_gradient_norm=float(global_norm(at_weights)),
            step_length=step.length,
        )


class LastStepOrExact(LastStep):
    """:class:`LastStep` where alpha's hypergradient goes with it, :class:`nas.bilevel.exact.Exact` elsewhere."""

    def suited_to(self, architecture: Hypergradient | None) -> Hypergradient:
        return LastStep() if architecture is None or self.serves(architecture) else Exact()
