"""The objective whose weights stay as they are: accuracy, macro F1, recall, minus cross-entropy, and sums of them."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nas.configuration import require
from nas.evaluation.evaluation import Evaluation
from nas.evaluation.penalty import CostPenalty
from nas.spaces.space import SearchSpace


class Fixed:
    """``sum over metrics of weight * metric - penalty``.

    Args:
        weights: Of each metric (``accuracy``, ``macro_f1``, ``macro_recall``, ``loss``, ...); negative for what is to
            be small.
        cost_weight: What a network of the space's mean cost loses; 0 makes size free.
        costs: The share of each cost in that, see :class:`~nas.evaluation.penalty.CostPenalty`.
        space: Whose networks have these costs.
    """

    def __init__(
        self, weights: Mapping[str, float], cost_weight: float, costs: Mapping[str, float], *, space: SearchSpace
    ) -> None:
        self.weights = checked_weights("weights", weights)
        self.penalty = CostPenalty(cost_weight, costs, space)

    def score(self, evaluation: Evaluation) -> float:
        return weighted(self.weights, evaluation.metrics) - self.penalty.of(evaluation.candidate.architecture)

    def expected_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        return self.penalty.expected(weights)

    def advance(self, progress: float, best: float) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"penalty": self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.penalty.load_state_dict(state["penalty"])


def checked_weights(key: str, weights: Mapping[str, float]) -> dict[str, float]:
    """``weights`` without the zeros.

    Raises:
        InvalidValue: Nothing is left, or one is not finite.
    """
    used = {name: float(weight) for name, weight in weights.items() if weight != 0}
    require(len(used) > 0, key, dict(weights), "at least one metric needs a weight other than 0")
    for name, weight in used.items():
        require(math.isfinite(weight), f"{key}.{name}", weight, "it must be finite")
    return used


def weighted(weights: Mapping[str, float], metrics: Mapping[str, float]) -> float:
    """The weighted sum; ``-inf`` where a metric is not finite.

    Raises:
        InvalidValue: There is no such metric.
    """
    for name in weights:
        known = f"this evaluation gives {', '.join(sorted(metrics))}"
        require(name in metrics, f"objective.weights.{name}", weights[name], known)
    total = math.fsum(weight * metrics[name] for name, weight in weights.items())
    return total if math.isfinite(total) else -math.inf
