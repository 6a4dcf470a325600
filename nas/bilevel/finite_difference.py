"""Finite-difference unrolled gradient of DARTS (Liu et al., 2019, eq. 7-8).

In ReLU networks the difference is far off at DARTS's own scale; it is here to reproduce DARTS. Use ``exact`` otherwise.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.kinds import Kind, group_of, learning_rates
from nas.training.sgd import Weights, global_norm


@dataclass(frozen=True)
class FiniteDifference(Hypergradient):
    """The gradient at ``w' = w - lr * (momentum * buffer + grad L_train + weight_decay * w)`` (eq. 6; xi is lr).

    ``grad_alpha L_val(w', alpha) - lr * (grad_alpha L_train(w + e v) - grad_alpha L_train(w - e v)) / (2 e)`` with
    ``v = grad_w' L_val(w')`` and ``e = scale / |v|``. As in the original, ``w'`` ignores gradient clipping.
    All training losses see the same noise.
    """

    of_sgd: ClassVar[bool] = True

    scale: float = 0.01

    def __post_init__(self) -> None:
        require(self.scale > 0 and math.isfinite(self.scale), "scale", self.scale, "it must be a number above 0")

    def most_passes(self, targets: int) -> int:
        return 4

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return False

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        noise = problem.noise_state()
        step = problem.step_ahead(training, second_order=False, clip=False)
        loss, logits = problem.validation_loss(step.after, validation)
        # The whole gradient of what acts on the update alone, the first term for alpha and what acts through L_train.
        found = torch.autograd.grad(loss, [*targets, *step.after.values()], materialize_grads=True)
        gradients = dict(zip(targets, found[: len(targets)], strict=True))
        vector = dict(zip(step.after, found[len(targets) :], strict=True))
        norm = float(global_norm(vector))

        through_loss = problem.act_through_loss(targets)
        if through_loss and norm > 0:  # the second term
            noise_after = problem.noise_state()
            numbers = problem.numbers()
            rate = numbers["learning_rate"]
            # With rate factors every group of weights has a learning rate of its own: v is scaled by them.
            factors = {group: value / rate for group, value in learning_rates(numbers).items()}
            scaled = {name: factors[group_of(entry)] * entry for name, entry in vector.items()}
            products = self._products(problem, training, scaled, self.scale / norm, through_loss, noise)
            problem.repeat_noise(noise_after)
            for target, product in zip(through_loss, products, strict=True):
                gradients[target] = gradients[target] - rate * product
        return Report(
            list(gradients.values()),
            loss.detach(),
            logits.detach(),
            step.loss.detach(),
            validation_gradient_norm=norm,
            step_length=step.length,
            passes=(3 if through_loss else 1, 1),
        )

    @staticmethod
    def _products(
        problem: BilevelProblem,
        training: Batch,
        vector: Weights,
        epsilon: float,
        targets: list[nn.Parameter],
        noise: list[Tensor],
    ) -> list[Tensor]:
        """``d^2 L_train / (d target d w) . vector`` by a central difference (eq. 8), one tensor per target."""
        weights = {name: weight.detach() for name, weight in problem.weights().items()}
        live, directions = list(weights.values()), [vector[name] for name in weights]
        saved = [weight.clone() for weight in live]
        gradients = []
        try:
            for shift in (epsilon, -epsilon):
                torch._foreach_copy_(live, saved)
                torch._foreach_add_(live, directions, alpha=shift)
                problem.repeat_noise(noise)
                loss = problem.training_loss(weights, training, problem.values())
                gradients.append(torch.autograd.grad(loss, targets, materialize_grads=True))
        finally:
            torch._foreach_copy_(live, saved)
        return [(plus - minus) / (2 * epsilon) for plus, minus in zip(*gradients, strict=True)]
