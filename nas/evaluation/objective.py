"""The seam: from an evaluation's metrics to the one number that a search maximises."""

from collections.abc import Mapping
from typing import Any, Protocol


class Objective(Protocol):
    """A number to maximise. Its weights may change over the search; scores are compared under one set of weights."""

    def score(self, metrics: Mapping[str, float]) -> float:
        """The number for ``metrics``; not finite metrics give ``-inf``."""
        ...

    def costs(self) -> tuple[str, ...]:
        """The cost metrics it needs (``parameters``, ``multiply_adds``, ``latency``)."""
        ...

    def advance(self, progress: float, best: float) -> None:
        """Tell how much of the search is done (0 to 1) and the best score so far."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
