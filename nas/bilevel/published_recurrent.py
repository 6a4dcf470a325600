"""The unrolled gradient of DARTS' recurrent search as its code has it (``rnn/architect.py``), with its three errors.

It is here for the record, as ``finite_difference`` is for the convolutional one. Use ``exact`` otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.hypergradient import Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.hyperparameters.kinds import Kind
from nas.operations.memory import Remembers
from nas.training.sgd import global_norm

TINY = 1e-30  # below it a step along the direction has no finite length in float32


@dataclass(frozen=True)
class PublishedRecurrent(FiniteDifference):
    """``grad_alpha L_val(w') - lr * c * (grad_alpha L_train(w + e v) - grad_alpha L_train(w - e v)) / (2 e)``.

    1. The embedding of ``w'`` is that of ``w``: the original's unrolled copy is loaded from a state dict in which the
       embedding stands twice, as the output layer's matrix, too, and the second one is from before the step.
    2. ``v = grad_w' L_val(w')`` is clipped as a weight step's gradient is, and not scaled back: the second term is too
       small by a factor that is far below 1.
    3. ``c = clip / |grad L_train|`` even where that is above 1 and nothing was clipped.

    It needs a gradient clip, and a supernet whose embedding is tied: that of ``space=recurrent``.
    """

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture"})

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        clip, tied = problem.gradient_clip, getattr(problem.supernet, "tied", None)
        if clip is None or tied is None or not isinstance(problem.supernet, Remembers):
            allowed = "it repeats errors of a recurrent search with training.gradient_clip: take exact"
            raise InvalidValue("hypergradient", "published_recurrent", allowed)
        noise = problem.noise_state()
        step = problem.step_ahead(training, second_order=False)
        coefficient = clip / (float(global_norm(step.gradients)) + 1e-6)
        after = {**step.after, tied: problem.weights()[tied].detach().clone().requires_grad_()}
        loss, logits = problem.validation_loss(after, validation)
        found = torch.autograd.grad(loss, [*targets, *after.values()], materialize_grads=True)
        slopes = dict(zip(after, found[len(targets) :], strict=True))
        norm = float(global_norm(slopes))
        clipped = {name: min(1.0, clip / (norm + 1e-6)) * slope for name, slope in slopes.items()}
        gradients, length = list(found[: len(targets)]), float(global_norm(clipped))
        if length > TINY:  # a dead network has no direction
            noise_after = problem.noise_state()
            epsilon = self.scale / length
            products = self._products(problem, training, clipped, epsilon, list(targets), noise)
            problem.repeat_noise(noise_after)
            factor = problem.numbers()["learning_rate"] * coefficient
            gradients = [direct - factor * product for direct, product in zip(gradients, products, strict=True)]
        return Report(
            gradients,
            loss.detach(),
            logits.detach(),
            step.loss.detach(),
            validation_gradient_norm=norm,
            step_length=step.length,
            passes=(3, 1),
        )
