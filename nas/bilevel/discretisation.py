"""From the supernet that a search leaves behind to one architecture."""

from collections.abc import Callable, Iterable
from typing import Protocol

from nas.candidate import Architecture
from nas.data.batch import Batch
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet


class Discretisation(Protocol):
    """How the architecture is read off a finished supernet."""

    def check(self, supernet: Supernet, space: SearchSpace) -> None:
        """Raise ``InvalidValue`` where it cannot choose in ``space``, whose supernet ``supernet`` is."""
        ...

    def images(self, space: SearchSpace, available: int) -> int:
        """How many images of ``available`` go forward through the supernet, each pass counted."""
        ...

    def choose(self, supernet: Supernet, space: SearchSpace, batches: Callable[[int], Iterable[Batch]]) -> Architecture:
        """The architecture; ``supernet`` is left as it was.

        Args:
            supernet: As the search left it.
            space: Whose it is.
            batches: Gives the same first validation images at every call: at most as many as it is asked for.
        """
        ...


class Strongest:
    """The options that alpha prefers (Liu et al., 2019)."""

    def check(self, supernet: Supernet, space: SearchSpace) -> None:
        pass

    def images(self, space: SearchSpace, available: int) -> int:
        return 0

    def choose(self, supernet: Supernet, space: SearchSpace, batches: Callable[[int], Iterable[Batch]]) -> Architecture:
        return supernet.discretise()
