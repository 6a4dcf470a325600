"""Finite-difference unrolled gradient of DARTS (Liu et al., 2019, eq. 7-8).

In ReLU networks the difference is far off at DARTS's own scale; it is here to reproduce DARTS. Use ``exact`` otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.bilevel.problem import BilevelProblem, Values, Weights, as_number, global_norm
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.configuration import require
from nas.data.dataset import Batch


@dataclass(frozen=True)
class FiniteDifference:
    """The gradient at ``w' = w - lr * (momentum * buffer + grad L_train + weight_decay * w)``.

    ``grad_alpha L_val(w', alpha) - lr * (grad_alpha L_train(w + e v) - grad_alpha L_train(w - e v)) / (2 e)`` with
    ``v = grad_w' L_val(w')`` and ``e = scale / |v|``. As in the original, ``w'`` ignores gradient clipping.
    All training losses see the same noise.
    """

    reaches_hyperparameters: ClassVar[bool] = True

    scale: float = 0.01

    def __post_init__(self) -> None:
        require(self.scale > 0 and math.isfinite(self.scale), "scale", self.scale, "it must be a number above 0")

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        values = problem.values()
        weights = problem.weights()
        noise = problem.noise_state()
        training_loss = problem.training_loss(weights, training, values)
        gradients = torch.autograd.grad(training_loss, list(weights.values()))
        update = problem.update_direction(weights, dict(zip(weights, gradients, strict=True)), values, clip=False)
        rate = values["learning_rate"]
        moved = {name: (weight.detach() - rate * update[name]).to(weight.dtype) for name, weight in weights.items()}
        moved = {name: weight if weight.requires_grad else weight.requires_grad_() for name, weight in moved.items()}

        validation_loss, logits = problem.validation_loss(moved, validation)
        found = torch.autograd.grad(validation_loss, [*targets, *moved.values()], allow_unused=True)
        direct, direction = found[: len(targets)], dict(zip(moved, found[len(targets) :], strict=True))
        vector = {name: torch.zeros_like(weights[name]) if v is None else v for name, v in direction.items()}
        norm = float(global_norm(vector))

        through_loss = {*problem.supernet.architecture_parameters(), *problem.hyperparameters.acting_through_loss()}
        unrolled = [target for target in targets if target in through_loss]
        after = problem.noise_state()
        products = dict(zip(unrolled, self._product(problem, training, vector, norm, unrolled, noise), strict=True))
        problem.repeat_noise(after)
        for target, gradient in zip(targets, direct, strict=True):
            total = torch.zeros_like(target) if gradient is None else gradient
            target.grad = total - as_number(rate) * products[target] if target in products else total
        return UpperLevelReport(
            validation_loss.detach(),
            logits.detach(),
            training_loss.detach(),
            validation_gradient_norm=norm,
            step_length=as_number(rate) * float(global_norm(update).detach()),
            passes=(3 if unrolled else 1, 1),
        )

    def _product(
        self,
        problem: BilevelProblem,
        training: Batch,
        vector: Weights,
        norm: float,
        targets: list[nn.Parameter],
        noise: list[Tensor],
    ) -> list[Tensor]:
        """``d^2 L_train / (d target d w) . vector`` by a central difference, one tensor per target."""
        if norm == 0.0 or not targets:
            return [torch.zeros_like(target) for target in targets]
        epsilon = self.scale / norm
        values = problem.values()
        ends = [self._gradient(problem, training, vector, sign * epsilon, targets, values, noise) for sign in (1, -1)]
        return [(ahead - behind) / (2 * epsilon) for ahead, behind in zip(*ends, strict=True)]

    def _gradient(
        self,
        problem: BilevelProblem,
        training: Batch,
        vector: Weights,
        epsilon: float,
        targets: list[nn.Parameter],
        values: Values,
        noise: list[Tensor],
    ) -> list[Tensor]:
        problem.repeat_noise(noise)
        perturbed = {name: weight.detach() + epsilon * vector[name] for name, weight in problem.weights().items()}
        loss = problem.training_loss(perturbed, training, values)
        gradients = torch.autograd.grad(loss, targets, allow_unused=True, retain_graph=True)
        return [
            torch.zeros_like(target) if gradient is None else gradient
            for target, gradient in zip(targets, gradients, strict=True)
        ]
