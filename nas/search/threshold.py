"""Discretisation by weights that stand on their own (FairDARTS, Chu et al., 2020, section 4.1)."""

from collections.abc import Mapping

from nas.candidate import Architecture
from nas.errors import InvalidValue, require
from nas.search.discretisation import Discretisation, Trained, decided_rows
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet


class Threshold(Discretisation):
    """The options that alpha prefers, of those whose weight is at least a threshold; where none is, ``none`` is chosen.

    So a node of a DARTS cell has two edges, one, or none.

    Args:
        threshold: The paper has 0.85.
    """

    def __init__(self, threshold: float = 0.85) -> None:
        require(0 <= threshold < 1, "threshold", threshold, "it must be a number from 0 to below 1")
        self.threshold = threshold

    def check(self, supernet: Supernet, space: SearchSpace) -> None:
        if not any("none" in choice.options for choice in space.choices):
            why = "every edge of this space has an operation: set space.optional_edges=true, or take strongest"
            raise InvalidValue("", "threshold", why)

    def choose(self, trained: Trained) -> Architecture:
        decided = decided_rows(trained.space)
        rows = trained.supernet.finite_probabilities().items()
        return trained.space.preferred(
            {row: at_least(options, self.threshold) if row in decided else options for row, options in rows}
        )


def at_least(options: Mapping[str, float], threshold: float, most: int | None = None) -> dict[str, float]:
    """``options`` with those at 0 whose weight is below ``threshold``.

    Args:
        most: Keep the largest so many at most, the last one of equals first; None keeps all.
    """
    largest = sorted(options, key=options.__getitem__)[-(most or len(options)) :]
    return {name: weight if weight >= threshold and name in largest else 0.0 for name, weight in options.items()}
