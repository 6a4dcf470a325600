"""The gradient search from several starts: short searches first, then the long one from the best pair they came to.

A learned learning rate and the architecture that likes it depend on where the learning rate started. Every short search
begins with the same weights and sees the same batches, so that only the start tells them apart; the one whose supernet
ends with the lowest validation loss hands its alpha and its hyperparameters on. The long search starts from these with
fresh weights.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from nas.candidate import Candidate, Hyperparameters
from nas.errors import InvalidValue, require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost
from nas.hyperparameters.collection import HyperparameterSet
from nas.run.tracking import Tracker
from nas.search.discretisation import Strongest
from nas.search.gradient_search import GradientSearch
from nas.search.guard import SearchDiverged
from nas.search.line_search import Rehearsal
from nas.search.parts import SearchParts
from nas.spaces.supernet import Supernet
from nas.stopping import Stopped


class SeveralStarts:
    """Short searches in ``starts/0``, ``starts/1``, ... of the run folder, then the long one in the folder itself.

    Args:
        parts: Of every search; the budget is that of all together.
        starts: Initial values of learned hyperparameters, by name, one group per start; what a group does not name
            starts as configured.
        start_epochs: Of a short search.
        rehearsal: Follows the long search.
    """

    def __init__(
        self,
        parts: SearchParts,
        starts: Sequence[Mapping[str, float]],
        start_epochs: int,
        rehearsal: Rehearsal | None = None,
    ) -> None:
        require(len(starts) >= 2, "starts", len(starts), "it must hold two starts or more")
        require(start_epochs >= 1, "start_epochs", start_epochs, "it must be at least 1")
        self.parts, self.say = parts, parts.say
        self.hyperparameters = [
            started_at(parts.hyperparameters, start, f"starts[{k}]") for k, start in enumerate(starts)
        ]
        warmup = min(parts.search.warmup_epochs, start_epochs - 1)
        self.short = replace(parts.search, epochs=start_epochs, warmup_epochs=warmup)
        self.long = GradientSearch(parts, rehearsal)
        self._spent = Cost()  # by the short searches
        self._seconds = 0.0
        self.losses: list[float] = []  # of the supernets after the short searches, on the validation split

    def search(self) -> Candidate:
        best: GradientSearch | None = None
        for number in range(len(self.hyperparameters)):
            short = self._short_search(number)
            left = self.parts.budget.without(self._spent)
            if left is None or not left.allows(short.meter.least() + self.long.meter.least()):
                self.say(f"the budget is too small for start {number} and those after it")
                break
            loss = self._loss(short)
            self._spent += short.spent
            self._seconds += short.seconds
            if loss < min(self.losses, default=float("inf")):
                best = short
            self.losses.append(loss)
            self.say(f"start {number}: supernet's validation loss {loss:.4g}, {_values(short)}")
        self.long.meter.budget = self.parts.budget.without(self._spent) or self.parts.budget
        if best is not None:
            self._take_over(best)
        return self.long.search()

    def _short_search(self, number: int) -> GradientSearch:
        parts = replace(
            self.parts,
            hyperparameters=self.hyperparameters[number],
            search=self.short,
            relaxation=copy.copy(self.parts.relaxation),
            randomness=self.long.randomness.branch("starts"),
            folder=self.long.folder.below("starts", str(number)),
            discretisation=Strongest(),
            budget=Budget(),
            draw=None,
        )
        return GradientSearch(parts)

    def _loss(self, short: GradientSearch) -> float:
        try:
            short.search()
        except Stopped as stop:
            raise Stopped(stop.step, self.long.folder.path) from stop
        except SearchDiverged as error:
            self.say(f"this start is given up: {error}")
            return float("inf")
        return short.final_metrics()["supernet/validation_loss"]

    @torch.no_grad()
    def _take_over(self, best: GradientSearch) -> None:
        """Let the long search begin with the alpha and the hyperparameters of ``best``."""
        for name, alpha in self.long.supernet.alpha.items():
            alpha.copy_(best.supernet.alpha[name])
        values = best.trajectory.tail_average()
        for name in self.long.hyperparameters.learned():
            self.long.hyperparameters.set_value(name, values[name])

    @property
    def supernet(self) -> Supernet | None:
        return self.long.supernet

    @property
    def step(self) -> int:
        return self.long.step

    @property
    def seconds(self) -> float:
        return self.long.seconds + self._seconds

    @property
    def spent(self) -> Cost:
        return self._spent + self.long.spent

    def settled(self) -> dict[str, bool]:
        return self.long.settled()

    def recorded(self) -> dict[str, list[float]]:
        return self.long.recorded()

    def remarks(self) -> dict[str, str]:
        losses = ", ".join(f"{loss:.4g}" for loss in self.losses)
        return {**self.long.remarks(), "validation loss by start": losses}

    def in_words(self) -> str:
        return self.long.in_words()

    def final_metrics(self) -> dict[str, float]:
        return self.long.final_metrics() | {"samples": float(self.spent.samples)}

    def open_tracker(self) -> Tracker:
        return self.long.open_tracker()


def started_at(hyperparameters: HyperparameterSet, start: Mapping[str, float], key: str) -> HyperparameterSet:
    """``hyperparameters`` with other initial values and update rules that remember nothing.

    Raises:
        InvalidValue: A name is not that of a learned hyperparameter, or its value is out of its range.
    """
    learned = hyperparameters.learned()
    for name, value in start.items():
        require(name in learned, f"{key}.{name}", value, f"it must be one that is learned: {', '.join(learned)}")
    entries = {}
    for name, entry in hyperparameters.entries.items():
        update = copy.copy(entry.update)
        if update is not None:
            update.load_state_dict({})
        try:
            entries[name] = replace(entry, initial=start.get(name, entry.initial), update=update)
        except InvalidValue as error:
            raise InvalidValue(f"{key}.{name}", error.value, error.allowed) from error
    return HyperparameterSet(entries)


def _values(search: GradientSearch) -> str:
    values: Hyperparameters = search.trajectory.tail_average()
    return ", ".join(f"{name} {values[name]:.3g}" for name in search.hyperparameters.learned())
