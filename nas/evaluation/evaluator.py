"""The seams: what turns candidates into evaluations, and what ends some of them early."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from nas.candidate import Candidate
from nas.errors import InvalidValue, require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.spaces.space import SearchSpace


@runtime_checkable
class Pruner(Protocol):
    """Says which candidates of a batch go on after a rung; rung-wise, so that they can be trained in parallel."""

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        """The keys of those in ``scores`` that go on.

        Args:
            rung: 0 for the first.
            scores: The objective's number of each candidate that is still in the race, by its place in the batch.
        """
        ...


def refuse_hyperparameters(space: SearchSpace, why: str) -> None:
    """For an evaluator that hyperparameters have no effect on: a search would carry random ones.

    Raises:
        InvalidValue: The space has some.
    """
    if space.ranges:
        names = ", ".join(space.ranges)
        raise InvalidValue("hyperparameters", names, f"{why}, so they cannot be searched: take hyperparameters=fixed")


class Evaluator(Protocol):
    """Turns candidates into evaluations; the same ones whatever the number of jobs."""

    cacheable: bool
    """Whether a candidate's metrics are the same at any time of the search."""

    batch: int
    """How many candidates it is best given at a time, so that a search can stop or save in between."""

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        """One evaluation per candidate, in their order."""
        ...

    def price(self, candidate: Candidate) -> Cost:
        """The most that evaluating ``candidate`` may cost; its seconds are not known before and count as 0."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What an evaluator carries from one evaluation to the next, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Drifting(Protocol):
    """An evaluator whose metrics change with time, so that those of different times do not compare."""

    finalists: int
    """How many of the best are measured again, all at the same time, before one is chosen."""

    def measure_again(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        """Without training; one evaluation per candidate, which counts as none."""
        ...

    def reserve(self) -> Cost:
        """What a search must keep back beside the prices of its candidates: for the finalists, above all."""
        ...


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
