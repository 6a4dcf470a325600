"""What every search returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nas.candidate import Candidate
from nas.evaluation.evaluation import Cost
from nas.spaces.supernet import Supernet


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search; a method that builds on another replaces some of it (``dataclasses.replace``).

    Attributes:
        candidate: What was found.
        cost: What the search has spent.
        seconds: What the search took on the clock, resumed runs added up.
        step, epoch: Where the record ends, as its rows count them.
        metrics: The numbers at its end, for the record.
        remarks: Rows for the table at the end.
        summary: How the search ended, for the last line.
        settled: Per decision (``architecture``, each learned hyperparameter) None where it has settled, or why it
            cannot be said to have; empty where the method cannot tell.
        trajectory: How the learned hyperparameters moved, in a few points each, where the method moves them.
        supernet: What held all architectures, where the method has such a thing.
        record: The state of the record (:meth:`nas.run.tracking.Tracker.state_dict`), to go on there.
    """

    candidate: Candidate
    cost: Cost
    seconds: float
    step: int
    epoch: int
    metrics: Mapping[str, float]
    remarks: Mapping[str, str]
    summary: str
    settled: Mapping[str, str | None] = field(default_factory=dict)
    trajectory: Mapping[str, Sequence[float]] = field(default_factory=dict)
    supernet: Supernet | None = None
    record: Mapping[str, int] | None = None

    def having_cost(self, cost: Cost, seconds: float, **changes: Any) -> "SearchResult":
        """This result of a method that has spent so much in all; ``changes`` are further fields."""
        metrics = {**self.metrics, "samples": float(cost.samples)}
        return replace(self, cost=cost, seconds=seconds, metrics=metrics, **changes)

    def has_settled(self) -> dict[str, bool]:
        return {name: reason is None for name, reason in self.settled.items()}

    def in_words(self) -> str:
        """``not settled: architecture, dropout, interventions: none``, say."""
        unsettled = [name for name, reason in self.settled.items() if reason is not None]
        told = f"not settled: {', '.join(unsettled)}" if unsettled else "everything settled"
        return f"{told}, {self.summary}" if self.settled else self.summary


def unsettled_in_words(settled: Mapping[str, str | None]) -> str:
    """``architecture, dropout: too early to tell, 1 epoch of 3``: the reasons, and for which decisions they hold."""
    reasons = [reason for reason in settled.values() if reason is not None]
    names = {reason: [name for name in settled if settled[name] == reason] for reason in reasons}
    return "; ".join(f"{', '.join(concerned)}: {reason}" for reason, concerned in names.items()) or "nothing"


class Search(Protocol):
    """A method: it searches into its run folder and goes on from the newest checkpoint there.

    Attributes:
        data_parallel: Whether ``torchrun`` may spread it over processes.
        begins_with_another: Whether it can begin with the weights and values of another run (``search.from``).
    """

    data_parallel: bool
    begins_with_another: bool

    def search(self) -> SearchResult:
        """Run to the end.

        Raises:
            Stopped: A signal asked to stop; the checkpoint is written.
        """
        ...
