"""Successive halving (Jamieson and Talwalkar, 2016): after each rung the best share of the candidates goes on."""

from collections.abc import Mapping
from dataclasses import dataclass

from nas.configuration import require


@dataclass(frozen=True)
class SuccessiveHalving:
    """Keeps the best ``1 / reduction`` of the candidates at every rung, and at least one.

    Args:
        reduction: 2 halves; 3 is common.
    """

    reduction: float = 2.0

    def __post_init__(self) -> None:
        require(self.reduction > 1, "reduction", self.reduction, "it must be a number above 1")

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        best_first = sorted(scores, key=lambda index: (-scores[index], index))
        return sorted(best_first[: max(1, round(len(scores) / self.reduction))])
