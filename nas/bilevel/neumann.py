"""The implicit gradient by a Neumann series (Lorraine et al., 2020, "Optimizing Millions of Hyperparameters")."""

import math
from dataclasses import dataclass

from nas.bilevel.implicit import Implicit, Product, Vector, dot, plus
from nas.configuration import require


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
