"""The seam: what every black-box search strategy offers to the loop around it (``nas.baselines.search``)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from nas.candidate import Candidate, Categorical
from nas.errors import require
from nas.spaces.space import SearchSpace


@dataclass(frozen=True)
class Scored:
    """A candidate with the objective's number, which is to be maximised (``-inf`` where its training failed)."""

    candidate: Candidate
    score: float


class Strategy(Protocol):
    """Proposes candidates and learns from their scores: pure, without evaluation, files or logging.

    Built by ``_target_`` with its settings and the keywords ``space`` (a SearchSpace) and ``generator`` (a CPU
    ``torch.Generator``, which the loop saves). A strategy that is a :class:`~nas.evaluation.evaluator.Pruner` as well
    decides which of its candidates go on where the evaluator trains them in rungs.
    """

    def ask(self) -> list[Candidate]:
        """The candidates to evaluate next, at least one; the same ones until they have been told."""
        ...

    def tell(self, scored: Sequence[Scored]) -> None:
        """The scores of what :meth:`ask` gave, in its order."""
        ...

    def statistics(self) -> dict[str, float]:
        """What is worth a curve. ``diversity`` becomes the tag ``population/diversity``; a name with a slash, such as
        ``policy/entropy``, is a tag as it is."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only; the generator's state is not in it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A strategy that keeps something beside its state, such as a study in a database."""

    def open(self, folder: Path) -> None:
        """Called once, with the run folder, before the first :meth:`Strategy.ask` and before a state is loaded."""
        ...


Vector = list[float]


class EncodedStrategy(ABC):
    """A :class:`~nas.baselines.strategy.Strategy` whose subclass proposes vectors and learns from their scores.

    Args:
        space: The joint space.
        generator: Where every random number comes from (CPU).

    Attributes:
        sizes: How many options each choice has, the categorical hyperparameters being the last ones.
        continuous: The names of the other hyperparameters.
        variable: The entries of a vector that can change at all: all but the choices with a single option.
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

    @abstractmethod
    def propose(self) -> list[Vector]:
        """The vectors to evaluate next, at least one."""

    @abstractmethod
    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        """Take in how good what was proposed is; a score may be -inf."""

    @abstractmethod
    def statistics(self) -> dict[str, float]:
        """What is worth a curve."""

    def ask(self) -> list[Candidate]:
        """What is pending, or new proposals; so a search that was interrupted here asks for the same once more."""
        if not self._pending:
            self._pending = [self.repaired(vector) for vector in self.propose()]
        return [self.space.decode(self._encoded(vector)) for vector in self._pending]

    def tell(self, scored: Sequence[Scored]) -> None:
        if len(scored) != len(self._pending):
            raise ValueError(f"{len(self._pending)} candidates are pending, not {len(scored)}.")
        vectors, self._pending = self._pending, []
        self.learn(vectors, [one.score for one in scored])

    def state_dict(self) -> dict[str, Any]:
        return {"pending": list(self._pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pending = [list(vector) for vector in state["pending"]]

    def repaired(self, vector: Vector) -> Vector:
        """``vector`` as one that the space could have sampled."""
        choices = len(self.space.choices)
        return self.space.repair(vector[:choices], self.generator) + vector[choices:]

    def random_vector(self) -> Vector:
        candidate = self.space.sample(self.generator)
        encoded = self.space.encode(candidate)
        places = dict(zip(self.space.ranges, encoded[len(self.space.choices) :], strict=True))
        options = [float(int(places[name] * len(values))) for name, values in self._categorical.items()]
        return [*encoded[: len(self.space.choices)], *options, *(places[name] for name in self.continuous)]

    def _encoded(self, vector: Vector) -> list[float]:
        """``vector`` as :meth:`SearchSpace.encode` has it: a categorical's option is the middle of its share."""
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
        return float(torch.randn((), generator=self.generator, dtype=torch.float64))

    def other_option(self, choice: int, index: float) -> float:
        """An option other than ``index`` of a choice with several, all equally likely."""
        size = self.sizes[choice]
        return float((int(index) + 1 + self.whole(size - 1)) % size)


def reflected(place: float) -> float:
    """``place`` folded back into 0..1 at the ends, which piles nothing up there as clamping would."""
    place = place % 2.0
    return 2.0 - place if place > 1.0 else place


class RandomSearch(EncodedStrategy):
    """Options equally likely, hyperparameters uniform on their scale.

    Args:
        batch: Candidates per ask, which can be evaluated at the same time; has no influence on what is drawn.
    """

    def __init__(self, batch: int = 8, *, space: SearchSpace, generator: torch.Generator) -> None:
        require(batch >= 1, "batch", batch, "it must be at least 1")
        super().__init__(space=space, generator=generator)
        self.batch = batch

    def propose(self) -> list[Vector]:
        return [self.random_vector() for _ in range(self.batch)]

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        """Nothing: the next candidate does not depend on the last."""

    def statistics(self) -> dict[str, float]:
        return {}
