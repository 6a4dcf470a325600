"""The implicit gradient by conjugate gradients (Pedregosa, 2016, "Hyperparameter optimization with approximate
gradient")."""

import math
from dataclasses import dataclass

import torch

from nas.bilevel.implicit import Implicit, Product, Vector, dot, plus
from nas.configuration import require


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
