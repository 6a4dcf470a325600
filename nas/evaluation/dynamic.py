"""An objective whose metric weights change over the search: by a schedule, or whenever it stagnates."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from nas.configuration import require
from nas.evaluation.evaluation import Evaluation
from nas.evaluation.fixed import checked_weights, weighted
from nas.evaluation.penalty import CostPenalty
from nas.spaces.space import SearchSpace


class Dynamic:
    """The weights ``(1 - position) * start + position * end`` of :class:`~nas.evaluation.fixed.Fixed`.

    Args:
        start: The metrics' weights at position 0.
        end: At position 1.
        schedule: ``linear`` and ``cosine`` let the position follow the spent share of the budget; with ``stagnation``
            it moves on by ``step`` whenever the best score has not risen for ``patience`` rounds.
        patience: Rounds of the search.
        step: The move at a stagnation.
        cost_weight: As in ``Fixed``.
        costs: As in ``Fixed``.
        space: As in ``Fixed``.
    """

    def __init__(
        self,
        start: Mapping[str, float],
        end: Mapping[str, float],
        schedule: Literal["linear", "cosine", "stagnation"],
        patience: int,
        step: float,
        cost_weight: float,
        costs: Mapping[str, float],
        *,
        space: SearchSpace,
    ) -> None:
        checked_weights("start", start)
        checked_weights("end", end)
        require(patience >= 1, "patience", patience, "it must be at least 1")
        require(0 < step <= 1, "step", step, "it must be a number above 0 and at most 1")
        self.start, self.end, self.schedule, self.patience, self.step = dict(start), dict(end), schedule, patience, step
        self.penalty = CostPenalty(cost_weight, costs, space)
        self.position, self.waited, self.best = 0.0, 0, -math.inf

    @property
    def weights(self) -> dict[str, float]:
        """The metrics' weights at the present position."""
        names = dict.fromkeys([*self.start, *self.end])
        mixed = {
            name: (1 - self.position) * self.start.get(name, 0.0) + self.position * self.end.get(name, 0.0)
            for name in names
        }
        return {name: weight for name, weight in mixed.items() if weight != 0}

    def score(self, evaluation: Evaluation) -> float:
        return weighted(self.weights, evaluation.metrics) - self.penalty.of(evaluation.candidate.architecture)

    def expected_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        return self.penalty.expected(weights)

    def advance(self, progress: float, best: float) -> bool:
        before = self.position
        if self.schedule == "linear":
            self.position = progress
        elif self.schedule == "cosine":
            self.position = 0.5 * (1 - math.cos(math.pi * progress))
        elif best > self.best:
            self.best, self.waited = best, 0
        else:
            self.waited += 1
            if self.waited >= self.patience and self.position < 1:
                # Scores under the new weights are other numbers: the next one is the first best again.
                self.position, self.waited, self.best = min(self.position + self.step, 1.0), 0, -math.inf
        return self.position != before

    def state_dict(self) -> dict[str, Any]:
        moving = {"position": self.position, "waited": self.waited, "best": self.best}
        return {**moving, "penalty": self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.waited, self.best = state["position"], state["waited"], state["best"]
        self.penalty.load_state_dict(state["penalty"])
