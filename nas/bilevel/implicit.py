"""The implicit gradient: the validation loss differentiated through the fixed point of training (Bengio, 2000).

Where the training gradient vanishes, ``dw*/dh = -H^-1 d^2 L_train / (dw dh)``, so the gradient is
``dL_val/dh - v . H^-1 d^2 L_train / (dw dh)`` with ``v = grad_w L_val`` and ``H`` the Hessian of the training loss with
its weight decay. How the update gets to the fixed point has no part in it: learning rate and momentum get nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.bilevel.hyperparameters import Kind
from nas.bilevel.problem import BilevelProblem, global_norm
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.data.dataset import Batch

Vector = list[Tensor]  # one tensor per weight
Product = Callable[[Vector], Vector]


@dataclass(frozen=True)
class Implicit(ABC):
    """Subclasses say how ``H x = v`` is solved, with products ``H p`` only."""

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture", "loss", "decay"})

    @abstractmethod
    def most_products(self) -> int:
        """How many products :meth:`solve` takes at most."""

    def most_passes(self, targets: int) -> int:
        return 3 + self.most_products()

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return True

    @abstractmethod
    def solve(self, product: Product, right_hand_side: Vector) -> tuple[Vector, int]:
        """``x`` and the number of products it took."""

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        weights, values = problem.weights(), problem.values()
        training_loss = problem.training_loss(weights, training, values)
        gradients = torch.autograd.grad(training_loss, list(weights.values()), create_graph=True)
        pairs = zip(gradients, weights.values(), strict=True)
        stationary = [(one + values["weight_decay"] * weight).to(weight.dtype) for one, weight in pairs]

        validation_loss, logits = problem.validation_loss(weights, validation)
        found = torch.autograd.grad(validation_loss, [*targets, *weights.values()], materialize_grads=True)
        direct, at_weights = found[: len(targets)], list(found[len(targets) :])

        def product(vector: Vector) -> Vector:
            return list(
                torch.autograd.grad(
                    stationary, list(weights.values()), vector, retain_graph=True, materialize_grads=True
                )
            )

        solution, products = self.solve(product, at_weights)
        mixed = torch.autograd.grad(stationary, targets, solution, materialize_grads=True)
        for target, own, through in zip(targets, direct, mixed, strict=True):
            target.grad = own - through
        return UpperLevelReport(
            validation_loss.detach(),
            logits.detach(),
            training_loss.detach(),
            validation_gradient_norm=float(global_norm(dict(zip(weights, at_weights, strict=True)))),
            passes=(2 + products, 1),  # a product goes once through the graph, and so does the mixed derivative
        )


def dot(one: Vector, other: Vector) -> float:
    return float(torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum())


def plus(one: Vector, factor: float, other: Vector) -> Vector:
    """``one + factor * other``."""
    return [torch.add(a, b, alpha=factor) for a, b in zip(one, other, strict=True)]
