"""What a search may spend; every method is held to it in the same way."""

import math
from dataclasses import dataclass

from nas.configuration import require
from nas.evaluation.evaluation import Cost


@dataclass(frozen=True)
class Budget:
    """Limits of which the first to be reached ends the search; null sets none.

    Args:
        samples: Images that go through a network, on either split: every forward and backward pass, restarts and
            measurements included.
        multiply_adds: Of these passes.
        evaluations: Candidates evaluated.
        seconds: On the clock, resumed runs added up.
    """

    samples: int | None = None
    multiply_adds: float | None = None
    evaluations: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            good = limit is None or 0 < limit < math.inf
            require(good, name, limit, "it must be null or a number above 0")

    def limits(self) -> dict[str, float]:
        """Those that are set."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def without(self, cost: Cost) -> "Budget | None":
        """What is left of it after ``cost``, or None where nothing is."""
        left = {name: limit - getattr(cost, name) for name, limit in self.limits().items()}
        return None if any(limit <= 0 for limit in left.values()) else Budget(**left)

    def allows(self, cost: Cost) -> bool:
        """Whether no more than the budget is spent with ``cost``."""
        return all(getattr(cost, name) <= limit for name, limit in self.limits().items())

    def progress(self, cost: Cost) -> float:
        """The share that is spent (0 to 1) of the limit nearest to its end; 0 where none is set."""
        shares = [getattr(cost, name) / limit for name, limit in self.limits().items()]
        return min(max(shares, default=0.0), 1.0)
