"""Successive halving (Jamieson and Talwalkar, 2016): after each rung the best share of the candidates goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.configuration import require
from nas.evaluation.evaluator import Pruner


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


@dataclass(frozen=True)
class Placed:
    """Lets ``pruner`` see places in the whole batch where only a part of it is evaluated.

    Args:
        places: In the whole batch, of each candidate of the part.
    """

    pruner: Pruner
    places: Sequence[int]

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        kept = self.pruner.survivors(rung, {self.places[index]: score for index, score in scores.items()})
        return [index for index in scores if self.places[index] in kept]
