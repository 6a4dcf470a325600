"""The evaluator, which turns candidates into evaluations, and the pruner, which ends some trainings early."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nas.candidate import Candidate
from nas.errors import InvalidValue, require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.spaces.space import SearchSpace


class Pruner(Protocol):
    """Decides after each rung which candidates of a batch go on; it sees a whole rung, so that jobs can be parallel."""

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        """The keys of the candidates that go on.

        Args:
            rung: The number of the rung, from 0.
            scores: For each candidate that is still in training, the objective's score by its place in the batch.
        """
        ...


class Evaluator(ABC):
    """Turns candidates into evaluations, which do not depend on the number of jobs.

    A subclass writes :meth:`evaluate` and :meth:`price`. Its constructor names what it needs of the run.

    Attributes:
        cacheable: Whether a candidate's metrics are the same at any time of the search.
        batch: How many candidates it takes at a time, at best. Between two batches a search can stop and save.
        finalists: How many of the best candidates :meth:`measure_again` gets at the end of the search. An evaluator
            whose metrics drift with time takes some, because scores of different times do not compare.
    """

    cacheable: bool = True
    batch: int = 1
    finalists: int = 0

    @abstractmethod
    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        """One evaluation per candidate, in their order."""

    @abstractmethod
    def price(self, candidate: Candidate) -> Cost:
        """The most that evaluating ``candidate`` can cost; its seconds are not known in advance and count as 0."""

    def measure_again(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """The finalists' metrics, all of the same time and without training. They count as no evaluations."""
        return []

    def reserve(self) -> Cost:
        """What the search must keep back beside the prices of its candidates, for the finalists above all."""
        return Cost()

    def state_dict(self) -> dict[str, Any]:
        """What the evaluator carries from one evaluation to the next, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        return


def refuse_hyperparameters(space: SearchSpace, why: str) -> None:
    """For an evaluator whose metrics do not depend on hyperparameters: the search would return random ones.

    Raises:
        InvalidValue: The space has hyperparameters.
    """
    if space.ranges:
        names = ", ".join(space.ranges)
        raise InvalidValue("hyperparameters", names, f"{why}, so they cannot be searched: take hyperparameters=fixed")


@dataclass(frozen=True)
class SuccessiveHalving:
    """Keeps the best share of the candidates at every rung, and at least one (Jamieson and Talwalkar, 2016,
    "Non-stochastic Best Arm Identification and Hyperparameter Optimization").

    Args:
        reduction: One candidate in ``reduction`` goes on: 2 halves their number, 3 is common.
    """

    reduction: float = 2.0

    def __post_init__(self) -> None:
        require(self.reduction > 1, "reduction", self.reduction, "it must be a number above 1")

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        return best_of(scores, round(len(scores) / self.reduction))


def best_of(scores: Mapping[int, float], count: int) -> list[int]:
    """The ``count`` keys of highest score, and at least one, in rising order; among equals the smallest."""
    best_first = sorted(scores, key=lambda index: (-scores[index], index))
    return sorted(best_first[: max(1, count)])


@dataclass(frozen=True)
class Placed:
    """Shows ``pruner`` places in the whole batch when only a part of the batch is evaluated.

    Args:
        pruner: The pruner of the whole batch.
        places: For each candidate of the part, its place in the whole batch.
    """

    pruner: Pruner
    places: Sequence[int]

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        kept = self.pruner.survivors(rung, {self.places[index]: score for index, score in scores.items()})
        return [index for index in scores if self.places[index] in kept]
