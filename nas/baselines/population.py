"""The members of a population: encoded candidates with their scores."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from nas.baselines.strategy import Vector


@dataclass(frozen=True)
class Member:
    vector: Vector
    score: float


def best_first(members: Iterable[Member]) -> list[Member]:
    """By descending score; among equals the one that came later goes first, so that a plateau can be crossed."""
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


def population_statistics(members: Sequence[Member], choices: int) -> dict[str, float]:
    """Curves of a population: how large and how diverse it is, the mean and the best of its finite scores."""
    found = {"population/size": float(len(members))}
    if members:
        found["population/diversity"] = diversity([member.vector for member in members], choices)
    scores = [member.score for member in members if math.isfinite(member.score)]
    if scores:
        found |= {"population/mean_score": math.fsum(scores) / len(scores), "population/best_score": max(scores)}
    return found


def members_state(members: Iterable[Member]) -> list[tuple[Vector, float]]:
    return [(member.vector, member.score) for member in members]


def members_from_state(state: Any) -> list[Member]:
    return [Member(list(vector), score) for vector, score in state]
