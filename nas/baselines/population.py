"""What the methods with a population share: its members, its statistics, and DEAP's random numbers."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from nas.baselines.strategy import EncodedStrategy, Vector
from nas.spaces.space import SearchSpace


@dataclass(frozen=True)
class Member:
    """An encoded candidate with its score."""

    vector: Vector
    score: float


class PopulationStrategy(EncodedStrategy):
    """A strategy that learns by changing its :attr:`members`.

    Attributes:
        members: The population, empty at first.
    """

    def __init__(self, *, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__(space=space, generator=generator)
        self.members: list[Member] = []

    def statistics(self) -> dict[str, float]:
        """The size and the diversity of the population, the mean and the best of its finite scores."""
        found = {"population/size": float(len(self.members))}
        if self.members:
            vectors = [member.vector for member in self.members]
            found["population/diversity"] = diversity(vectors, len(self.sizes))
        scores = [member.score for member in self.members if math.isfinite(member.score)]
        if scores:
            found |= {"population/mean_score": math.fsum(scores) / len(scores), "population/best_score": max(scores)}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "members": [(member.vector, member.score) for member in self.members]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.members = [Member(list(vector), score) for vector, score in state["members"]]


def best_first(members: Iterable[Member]) -> list[Member]:
    """Members by descending score. Among equals the later one goes first, so that a plateau can be crossed."""
    ranked = sorted(enumerate(members), key=lambda item: (item[1].score, item[0]), reverse=True)
    return [member for _, member in ranked]


def diversity(vectors: Sequence[Vector], choices: int) -> float:
    """The share of the first ``choices`` entries in which two members differ, averaged over all pairs: 0 to 1."""
    pairs = len(vectors) * (len(vectors) - 1) // 2
    if pairs == 0 or choices == 0:
        return 0.0
    different = sum(
        a != b for one, other in combinations(vectors, 2) for a, b in zip(one[:choices], other[:choices], strict=True)
    )
    return different / (pairs * choices)


@contextmanager
def python_random(generator: torch.Generator) -> Iterator[None]:
    """Seed Python's ``random``, from which DEAP draws, by ``generator``; afterwards ``random`` is as it was before."""
    before = random.getstate()
    random.seed(int(torch.randint(2**62, (), generator=generator)))
    try:
        yield
    finally:
        random.setstate(before)
