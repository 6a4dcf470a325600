"""Ordinary trainings of candidates after a search: made once, kept in a file, recorded, paid from its budget."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, Self

import torch

from nas.candidate import Candidate, Range
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation, EvaluationCache
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.run.tracking import SilentTracker, Tracker
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult
from nas.stopping import Stopped, StopRequest

MOST_SHOWN = 3
SEEDS = 2**62


class Refinement:
    """A search, and then ordinary trainings that refine what it found. A subclass says which, in ``search``.

    Args:
        inner: Makes the search that comes first, from the same parts.
        parts: The pieces of the run; the budget is that of search and trainings together.
    """

    def __init__(self, inner: Callable[..., Search], parts: SearchParts) -> None:
        self.parts, self.inner = parts, inner(**vars(parts), parts=parts)
        self.data_parallel, self.begins_with_another = self.inner.data_parallel, self.inner.begins_with_another


class CommonRandomNumbers(TrainingSetup):
    """A setup in which all candidates begin with the same weights and see the same batches and the same noise.

    What two trainings then differ by is what their hyperparameters do, and much less of it is chance.
    """

    @classmethod
    def of_setup(cls, setup: TrainingSetup) -> "CommonRandomNumbers":
        return cls(**{one.name: getattr(setup, one.name) for one in fields(setup)})

    def seed_for(self, candidate: Candidate) -> int:
        return self.seed


class Trainer:
    """Trains candidates for so many epochs, with common random numbers and on the training split.

    Args:
        name: Of its file in the run folder, ``<name>.jsonl``, and of what is recorded, ``<name>/validation_loss``.
        epochs: Length of a training, which the learning rate's schedule spans.
        parts: The pieces of the run.
        own_numbers: Whether its random numbers, common to its candidates, are others than those of other trainers.

    Raises:
        InvalidValue: ``epochs`` is below 1.
    """

    def __init__(self, name: str, epochs: int, parts: SearchParts, own_numbers: bool = False) -> None:
        assert parts.setup is not None
        assert parts.objective is not None
        self.name, self.epochs = name, epochs
        self.path = parts.folder.path / f"{name}.jsonl"
        setup = CommonRandomNumbers.of_setup(parts.setup)
        if own_numbers:
            setup = replace(setup, seed=int(torch.randint(SEEDS, (), generator=parts.randomness.anew(name))))
        self.from_scratch = TrainedFromScratch(epochs, setup=setup, objective=parts.objective)

    def price(self, candidate: Candidate) -> Cost:
        """What a training of ``candidate`` costs, without its seconds."""
        return self.from_scratch.price(candidate)

    def train(self, candidate: Candidate) -> Evaluation:
        return self.from_scratch.evaluate([candidate])[0]


class Trainings:
    """Context manager: the trainings after the search that has ended with ``found``, one at a time.

    A signal stops the run between two of them. With torchrun every process makes all of them, and the first one's
    numbers hold.

    Args:
        parts: The pieces of the run; its budget is that of the search and the trainings together.
        found: What the search has found.
        shown: The hyperparameters that are recorded at each training.

    Attributes:
        done: The trainings so far.
    """

    def __init__(self, parts: SearchParts, found: SearchResult, shown: Sequence[str]) -> None:
        self.parts, self.found, self.shown = parts, found, shown
        self.ranks = parts.randomness.ranks
        self.done: list[Evaluation] = []
        self._kept: dict[str, EvaluationCache] = {}
        self._tracker: Tracker = SilentTracker()
        self._begins = max(found.step, (found.record or {}).get("step", 0))
        self._record: Mapping[str, int] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._request = self._open.enter_context(StopRequest())
        if self.ranks.is_first:
            tracker = Tracker(self.parts.folder.path, self.parts.tracking, self.found.record, self.parts.task)
            self._tracker = self._open.enter_context(tracker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._record = self._tracker.state_dict()
        self._open.close()

    @property
    def cost(self) -> Cost:
        """What the search and the trainings have cost."""
        return sum((trial.cost for trial in self.done), self.found.cost)

    def affords(self, price: Cost) -> bool:
        """Whether the budget pays for ``price`` on top of what is spent; all processes agree."""
        return not self.ranks.any(not self.parts.budget.allows(self.cost + price))

    def train(self, trainer: Trainer, candidate: Candidate) -> Evaluation | None:
        """Train ``candidate``, or take its training from the file of an earlier start of the run.

        Returns:
            The evaluation, or None where the budget does not pay for it.

        Raises:
            Stopped: A signal asked to stop; the training is kept.
        """
        kept = self._cache(trainer)
        evaluation: Evaluation | None = self.ranks.share(kept.get(candidate) if kept is not None else None)
        if evaluation is None:
            if not self.affords(trainer.price(candidate)):
                return None
            evaluation = trainer.train(candidate)
            if kept is not None:
                kept.add([evaluation])
        self.done.append(evaluation)
        self._tell(trainer, evaluation)
        if self.ranks.any(self._request.requested):
            raise Stopped(self._begins + len(self.done), self.parts.folder.path)
        return evaluation

    def result(self, **changes: Any) -> SearchResult:
        """``found`` with the cost of the trainings, and with ``changes`` in further fields; after the context's end."""
        seconds = self.found.seconds + sum(trial.cost.seconds for trial in self.done)
        return self.found.having_cost(self.cost, seconds, record=self._record, **changes)

    def _cache(self, trainer: Trainer) -> EvaluationCache | None:
        """What has been trained before; only the first process keeps it."""
        if not self.ranks.is_first:
            return None
        if trainer.name not in self._kept:
            self._kept[trainer.name] = EvaluationCache(trainer.path)
        return self._kept[trainer.name]

    def _tell(self, trainer: Trainer, trial: Evaluation) -> None:
        values, spent = trial.candidate.hyperparameters, self.cost
        scalars = {f"{trainer.name}/{name}": values[name] for name in self.shown}
        scalars |= {f"{trainer.name}/validation_loss": loss(trial)}
        scalars |= {"budget/samples": float(spent.samples), "budget/multiply_adds": spent.multiply_adds}
        self._tracker.scalars(scalars, self._begins + len(self.done), self.found.epoch)


def values_within(key: str, values: Mapping[str, float], ranges: Mapping[str, Range]) -> dict[str, float]:
    """Those of ``values`` whose hyperparameters have a range.

    Raises:
        InvalidValue: A value is out of its range; ``key`` is the setting that holds them.
    """
    found = {name: value for name, value in values.items() if name in ranges}
    for name, value in found.items():
        range_ = ranges[name]
        require(range_.contains(value), f"{key}.{name}", value, f"it must be from {range_.low:g} to {range_.high:g}")
    return found


def loss(trial: Evaluation) -> float:
    """The validation loss; infinite where the training broke off."""
    return trial.metrics["loss"]


def best(trials: Sequence[Evaluation]) -> Evaluation:
    """The trial of lowest loss, the earliest of equals."""
    return min(trials, key=loss)


def in_words(trials: Sequence[Evaluation], taken: Candidate) -> str:
    """``learning_rate 0.0094: loss 0.231; learning_rate 0.0282: 0.198 (taken)``: what differs among them, in order.

    Only the first three hyperparameters that differ are named.
    """
    first = trials[0].candidate.hyperparameters
    varied = [name for name in first if len({trial.candidate.hyperparameters[name] for trial in trials}) > 1]
    parts = []
    for trial in trials:
        shown = (varied or list(first))[:MOST_SHOWN]
        values = ", ".join(f"{name} {trial.candidate.hyperparameters[name]:.3g}" for name in shown)
        parts.append(f"{values}: loss {loss(trial):.3g}" + (" (taken)" if trial.candidate == taken else ""))
    return "; ".join(parts)
