"""The strategy, which every black-box method is: it proposes candidates and learns from their scores.

:class:`EncodedStrategy` is the base of the methods that work on vectors, :class:`RandomSearch` the simplest of them.
``nas.baselines.search`` is the loop around a strategy.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.candidate import Candidate, Categorical
from nas.errors import InvalidValue, require
from nas.evaluation.evaluator import Pruner
from nas.spaces.space import SearchSpace


@dataclass(frozen=True)
class Scored:
    """A candidate with the objective's score, which is to be maximised (``-inf`` if its training failed)."""

    candidate: Candidate
    score: float


class Strategy(ABC):
    """Proposes candidates and learns from their scores. It evaluates nothing and logs nothing.

    The configuration names the class in ``_target_``, with its settings. The search adds the keywords ``space`` (a
    SearchSpace) and ``generator`` (a CPU ``torch.Generator``, whose state the search saves).

    Attributes:
        takes_a_part: Whether the search goes on where the budget may not pay for all that was asked for, and tells the
            scores of the first ones. It pays where trainings that are ended early leave much of their price.
    """

    takes_a_part: bool = False

    @property
    def pruner(self) -> Pruner | None:
        """The strategy's own pruner, for evaluators that train in rungs; None if every candidate is trained fully."""
        return None

    def open(self, folder: Path) -> None:
        """Open files that the strategy keeps beside its state, such as a study in a database.

        Called once, before a state is loaded and before the first :meth:`ask`.

        Args:
            folder: The run folder.
        """
        return

    def enqueue(self, values: Mapping[str, float]) -> None:
        """Give the first candidate these hyperparameters. Called before a state is loaded and before :meth:`ask`.

        Raises:
            InvalidValue: The strategy cannot do this.
        """
        raise InvalidValue("enqueue", "initial", f"{type(self).__name__} chooses its first candidate itself")

    @abstractmethod
    def ask(self) -> list[Candidate]:
        """The candidates to evaluate next, which stay the same until :meth:`tell`; none ends the search."""

    @abstractmethod
    def tell(self, scored: Sequence[Scored]) -> None:
        """Take in the scores of the candidates that :meth:`ask` returned, in the same order."""

    def statistics(self) -> dict[str, float]:
        """Numbers to record after each round, by their tags, such as ``policy/entropy``."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The state as tensors and plain values, without the generator's."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""


Vector = list[float]
"""An encoded candidate: the index of one option per choice, categorical hyperparameters last among them; then one place
from 0 to 1 per continuous hyperparameter; then numbers that a method keeps with a candidate, such as step sizes."""


class EncodedStrategy(Strategy):
    """A strategy on vectors: a subclass writes :meth:`propose` and :meth:`learn`.

    A batch of vectors is pending from ask to tell and is part of the state, so that a search that was interrupted in
    between asks for the same candidates again.

    Args:
        space: The joint space of architectures and hyperparameters.
        generator: The source of every random number (CPU).

    Attributes:
        sizes: The number of options of each choice; the categorical hyperparameters come last.
        continuous: The names of the other hyperparameters.
        length: The number of entries that encode a candidate.
        variable: The entries that can change: all but the choices with a single option.

    Raises:
        InvalidValue: No entry can change.
    """

    def __init__(self, *, space: SearchSpace, generator: torch.Generator) -> None:
        self.space, self.generator = space, generator
        self._categorical = {
            name: domain.options for name, domain in space.ranges.items() if isinstance(domain, Categorical)
        }
        self.sizes = (*(len(choice.options) for choice in space.choices), *map(len, self._categorical.values()))
        self.continuous = tuple(name for name in space.ranges if name not in self._categorical)
        self.length = len(self.sizes) + len(self.continuous)
        self.variable = [entry for entry in range(self.length) if entry >= len(self.sizes) or self.sizes[entry] > 1]
        allowed = "there is nothing to search: it needs a choice with several options or a hyperparameter that may move"
        require(len(self.variable) > 0, "space", space.name, allowed)
        self._pending: list[Vector] = []
        self._enqueued: dict[int, float] = {}  # entries of the first vector

    @abstractmethod
    def propose(self) -> list[Vector]:
        """The vectors to evaluate next; none ends the search."""

    @abstractmethod
    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        """Take in the scores of the vectors that were proposed; a score may be ``-inf``."""

    def enqueue(self, values: Mapping[str, float]) -> None:
        """Give the first vector these hyperparameters; its architecture stays as proposed.

        Args:
            values: By name; one beyond the space's range counts as the nearer end, one of no option as the nearest.
        """
        first = len(self.space.choices)
        for entry, name in enumerate((*self._categorical, *self.continuous), start=first):
            if name in values:
                place = self.space.ranges[name].to_unit(values[name])
                self._enqueued[entry] = place if name in self.continuous else self._option(name, place)

    def ask(self) -> list[Candidate]:
        if not self._pending:
            self._pending = [self.repaired(self._brought_in(vector)) for vector in self.propose()]
            if self._enqueued and self._pending:
                self._pending[0] = self.rewritten(self._pending[0], self._enqueued)
                self._enqueued = {}
        return [self.decoded(vector) for vector in self._pending]

    def _brought_in(self, vector: Vector) -> Vector:
        """``vector``, which may be an array, with the nearest index of each choice; places are brought in later."""
        entries = [float(entry) for entry in vector]
        if len(entries) < self.length or not all(map(math.isfinite, entries)):
            expected = f"{self.length} finite entries: the index of an option per choice, then a place from 0 to 1 each"
            raise ValueError(f"propose() gave {entries}, and a vector has {expected}.")
        nearest = [float(min(max(round(one), 0), size - 1)) for one, size in zip(entries, self.sizes, strict=False)]
        return nearest + entries[len(self.sizes) :]

    def decoded(self, vector: Vector) -> Candidate:
        """The candidate that ``vector`` encodes."""
        return self.space.decode(self._encoded(vector))

    def tell(self, scored: Sequence[Scored]) -> None:
        if len(scored) != len(self._pending):
            raise ValueError(f"{len(self._pending)} candidates are pending, not {len(scored)}.")
        vectors, self._pending = self._pending, []
        self.learn(vectors, [one.score for one in scored])

    def state_dict(self) -> dict[str, Any]:
        waiting = {"enqueued": dict(self._enqueued)} if self._enqueued else {}
        return {"pending": list(self._pending), **waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pending = [list(vector) for vector in state["pending"]]
        self._enqueued = dict(state.get("enqueued", {}))

    def rewritten(self, vector: Vector, entries: Mapping[int, float]) -> Vector:
        """The pending ``vector`` with other ``entries``; a method that keeps more of it than its entries overrides."""
        return [entries.get(entry, number) for entry, number in enumerate(vector)]

    def repaired(self, vector: Vector) -> Vector:
        """``vector``, changed where needed so that the space can sample it."""
        choices = len(self.space.choices)
        return self.space.repair(vector[:choices], self.generator) + vector[choices:]

    def random_vector(self) -> Vector:
        """A vector of the space: options equally likely, places uniform."""
        candidate = self.space.sample(self.generator)
        encoded = self.space.encode(candidate)
        places = dict(zip(self.space.ranges, encoded[len(self.space.choices) :], strict=True))
        options = [self._option(name, places[name]) for name in self._categorical]
        return [*encoded[: len(self.space.choices)], *options, *(places[name] for name in self.continuous)]

    def _option(self, name: str, place: float) -> float:
        """The index of a categorical hyperparameter's option at ``place``."""
        return float(int(place * len(self._categorical[name])))

    def _encoded(self, vector: Vector) -> list[float]:
        """``vector`` as :meth:`SearchSpace.encode` writes it: a categorical's option is the middle of its share."""
        choices = len(self.space.choices)
        options = zip(self._categorical.items(), vector[choices : len(self.sizes)], strict=True)
        places = {name: (index + 0.5) / len(values) for (name, values), index in options}
        places |= zip(self.continuous, vector[len(self.sizes) : self.length], strict=True)
        return vector[:choices] + [places[name] for name in self.space.ranges]

    def uniform(self) -> float:
        """A number from 0 up to but not including 1."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def whole(self, below: int) -> int:
        """A whole number from 0 up to but not including ``below``."""
        return int(torch.randint(below, (), generator=self.generator))

    def normal(self) -> float:
        """A number from the standard normal distribution."""
        return float(torch.randn((), generator=self.generator, dtype=torch.float64))

    def other_option(self, choice: int, index: float) -> float:
        """An option other than ``index``, all equally likely; the choice must have several."""
        size = self.sizes[choice]
        return float((int(index) + 1 + self.whole(size - 1)) % size)


def reflected(place: float) -> float:
    """``place`` reflected at 0 and 1; clamping would pile places up at the ends."""
    place = place % 2.0
    return 2.0 - place if place > 1.0 else place


class RandomSearch(EncodedStrategy):
    """Draws every candidate anew: options equally likely, hyperparameters uniform on their scale.

    It is the yardstick of all other methods.

    Args:
        batch: Candidates per ask, which can be evaluated in parallel. It does not change what is drawn.
    """

    def __init__(self, batch: int = 8, *, space: SearchSpace, generator: torch.Generator) -> None:
        require(batch >= 1, "batch", batch, "it must be at least 1")
        super().__init__(space=space, generator=generator)
        self.batch = batch

    def propose(self) -> list[Vector]:
        return [self.random_vector() for _ in range(self.batch)]

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        """Do nothing: the next candidate does not depend on the last."""
