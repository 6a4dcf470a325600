"""The seam: from an evaluation to the one number that a search maximises."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from nas.evaluation.evaluation import Evaluation


class Objective(Protocol):
    """A number to maximise: weighted metrics, less what the network costs.

    Its weights may change over the search; scores are comparable under one set of weights only.
    """

    def score(self, evaluation: Evaluation) -> float:
        """The number for ``evaluation``; ``-inf`` where a metric that it needs is not finite."""
        ...

    def expected_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """What the gradient search adds to its validation loss, 0-dim, differentiable; None where costs are free.

        Args:
            weights: The relaxed weights of every alpha of the supernet.
        """
        ...

    def advance(self, progress: float, best: float) -> bool:
        """Tell how much of the search is done (0 to 1) and the best score so far; says whether the weights changed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
