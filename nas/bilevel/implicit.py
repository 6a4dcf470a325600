"""The implicit gradient: the validation loss differentiated through the fixed point of training (Bengio, 2000).

Where the training gradient vanishes, ``dw*/dh = -H^-1 d^2 L_train / (dw dh)``, so the gradient is
``dL_val/dh - v . H^-1 d^2 L_train / (dw dh)`` with ``v = grad_w L_val`` and ``H`` the Hessian of the training loss with
its weight decay. How the update gets to the fixed point has no part in it: learning rate and momentum get nothing.
``H x = v`` is solved by a Neumann series (Lorraine et al., 2020, "Optimizing Millions of Hyperparameters") or by
conjugate gradients (Pedregosa, 2016, "Hyperparameter optimization with approximate gradient").
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.kinds import Kind
from nas.training.sgd import global_norm

Vector = list[Tensor]  # one tensor per weight
Product = Callable[[Vector], Vector]


@dataclass(frozen=True)
class Implicit(Hypergradient):
    """Subclasses say how ``H x = v`` is solved, with products ``H p`` only."""

    reaches: ClassVar[frozenset[Kind]] = frozenset({"architecture", "loss", "decay"})
    of_sgd: ClassVar[bool] = True  # AdamW's decay is not the gradient of a penalty

    @abstractmethod
    def most_products(self) -> int:
        """How many products :meth:`solve` takes at most."""

    def most_passes(self, targets: int) -> int:
        return 3 + self.most_products()

    @abstractmethod
    def solve(self, product: Product, right_hand_side: Vector) -> tuple[Vector, int]:
        """``x`` and the number of products it took."""

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        weights, values = problem.weights(), problem.values()
        training_loss = problem.training_loss(weights, training, values)
        gradients = torch.autograd.grad(
            training_loss, list(weights.values()), create_graph=True, materialize_grads=True
        )
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
        return Report(
            [own - through for own, through in zip(direct, mixed, strict=True)],
            validation_loss.detach(),
            logits.detach(),
            training_loss.detach(),
            validation_gradient_norm=float(global_norm(dict(zip(weights, at_weights, strict=True)))),
            passes=(2 + products, 1),  # a product goes once through the graph, and so does the mixed derivative
        )


def dot(one: Vector, other: Vector) -> float:
    """The inner product over all weights."""
    return float(torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum())


def plus(one: Vector, factor: float, other: Vector) -> Vector:
    """``one + factor * other``."""
    return [torch.add(a, b, alpha=factor) for a, b in zip(one, other, strict=True)]


@dataclass(frozen=True)
class NeumannSeries(Implicit):
    """``H^-1 v`` as ``step * sum over i from 0 to terms of (I - step * H)^i v``.

    It converges where ``step`` times every eigenvalue of H lies between 0 and 2. A network's Hessian is not that kind:
    the series ends before the first term that is longer than the one before it.
    """

    terms: int = 5
    step: float = 0.1

    def __post_init__(self) -> None:
        require(self.terms >= 0, "terms", self.terms, "it must be at least 0")
        require(self.step > 0 and math.isfinite(self.step), "step", self.step, "it must be a number above 0")

    def most_products(self) -> int:
        return self.terms

    def solve(self, product: Product, right_hand_side: Vector) -> tuple[Vector, int]:
        term, total, length = right_hand_side, right_hand_side, dot(right_hand_side, right_hand_side)
        products = 0
        while products < self.terms:
            term = plus(term, -self.step, product(term))
            products += 1
            before, length = length, dot(term, term)
            if not length <= before:
                break
            total = plus(total, 1.0, term)
        return [self.step * entry for entry in total], products


@dataclass(frozen=True)
class ConjugateGradient(Implicit):
    """``(H + damping * I) x = v`` by at most ``iterations`` steps of conjugate gradients from zero.

    It ends early where the residual is down to ``tolerance`` of ``v``, or where H bends downwards along a direction:
    there a network's Hessian is no longer what the method is for, and what has been found so far is taken.
    """

    iterations: int = 5
    damping: float = 0.1
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "iterations", self.iterations, "it must be at least 1")
        require(0 <= self.damping < math.inf, "damping", self.damping, "it must be at least 0")
        require(0 <= self.tolerance < 1, "tolerance", self.tolerance, "it must be a number from 0 to below 1")

    def most_products(self) -> int:
        return self.iterations

    def solve(self, product: Product, right_hand_side: Vector) -> tuple[Vector, int]:
        solution = [torch.zeros_like(entry) for entry in right_hand_side]
        residual = direction = right_hand_side
        length = first = dot(residual, residual)
        products = 0
        while products < self.iterations and length > self.tolerance**2 * first:
            image = plus(product(direction), self.damping, direction)
            products += 1
            curvature = dot(direction, image)
            if not curvature > 0:
                break
            solution = plus(solution, length / curvature, direction)
            residual = plus(residual, -length / curvature, image)
            before, length = length, dot(residual, residual)
            direction = plus(residual, length / before, direction)
        return solution, products
