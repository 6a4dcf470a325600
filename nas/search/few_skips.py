"""Discretisation with a cap on skip connections (P-DARTS, Chen et al., 2019, section 3.3)."""

from collections.abc import Mapping

from nas.candidate import Architecture
from nas.errors import require
from nas.search.discretisation import Discretisation, Trained
from nas.spaces.space import SearchSpace


class FewSkips(Discretisation):
    """The options that alpha prefers, with at most so many skip connections (in DARTS cells: in the normal cell).

    Args:
        most: How many there may be; the paper has 2.
    """

    def __init__(self, most: int = 2) -> None:
        require(most >= 0, "most", most, "it must be at least 0")
        self.most = most

    def choose(self, trained: Trained) -> Architecture:
        return with_few_skips(trained.space, trained.supernet.finite_probabilities(), self.most)


def with_few_skips(space: SearchSpace, probabilities: Mapping[str, Mapping[str, float]], most: float) -> Architecture:
    """What ``probabilities`` prefer once the weakest skips that are chosen are set to 0, one after the other.

    A row of alpha that has nothing else to choose keeps its skip.
    """
    left = {row: dict(options) for row, options in probabilities.items()}
    while True:
        architecture = space.preferred(left)
        skips = dict(space.skips(architecture))
        movable = [row for row in left if row in skips and _has_another(space, left[row], skips[row])]
        if len(skips) <= most or not movable:
            return architecture
        weakest = min(movable, key=lambda row: left[row][skips[row]])
        left[weakest][skips[weakest]] = 0.0


def _has_another(space: SearchSpace, options: Mapping[str, float], skip: str) -> bool:
    return any(share > 0 for one, share in options.items() if one != skip and one not in space.never_chosen)
