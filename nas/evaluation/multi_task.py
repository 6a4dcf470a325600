"""One architecture for several data sets: evaluation on each, and the weighted mean of their normalised metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nas.candidate import Candidate
from nas.errors import InvalidValue, require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Pruner
from nas.evaluation.objective import CostPenalty, Objective
from nas.evaluation.training_setup import TrainingSetup
from nas.spaces.space import SearchSpace


class EveryTask:
    """Evaluates each candidate by several evaluators; the metrics are called ``<task>/accuracy`` and so on.

    Args:
        tasks: Per task its evaluator, such as a training on its own images or a table's column.
        task: The run's own, whose space and training all share.
        objective: What the search maximises.

    Raises:
        InvalidValue: There is no task.
    """

    def __init__(
        self,
        tasks: Mapping[str, Callable[..., Evaluator]],
        *,
        task: TrainingSetup,
        objective: Objective,
        space: SearchSpace,
    ) -> None:
        require(len(tasks) > 0, "tasks", dict(tasks), "it must have at least one task")
        self.evaluators = {name: make(task=task, objective=objective, space=space) for name, make in tasks.items()}
        self.cacheable = all(evaluator.cacheable for evaluator in self.evaluators.values())
        self.batch = max(evaluator.batch for evaluator in self.evaluators.values())

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        """Without pruning: a rung of one task says nothing about the others."""
        columns = {name: evaluator.evaluate(candidates) for name, evaluator in self.evaluators.items()}
        found = []
        for index, candidate in enumerate(candidates):
            metrics: dict[str, float] = {}
            cost = Cost(evaluations=1)
            for name, evaluations in columns.items():
                one = evaluations[index]
                metrics |= {f"{name}/{metric}": value for metric, value in one.metrics.items()}
                cost += Cost(one.cost.samples, one.cost.multiply_adds, 0, one.cost.seconds)
            found.append(Evaluation(candidate, metrics, cost))
        return found

    def price(self, candidate: Candidate) -> Cost:
        prices = [evaluator.price(candidate) for evaluator in self.evaluators.values()]
        return Cost(sum(price.samples for price in prices), math.fsum(price.multiply_adds for price in prices), 1)

    def state_dict(self) -> dict[str, Any]:
        return {name: evaluator.state_dict() for name, evaluator in self.evaluators.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, evaluator in self.evaluators.items():
            evaluator.load_state_dict(state[name])


@dataclass(frozen=True)
class TaskWeight:
    """How one task counts: ``weight * (metric - low) / (high - low)``.

    Args:
        weight: Its share beside the others'.
        metric: One of the evaluator's.
        low, high: What counts as 0 and as 1: the accuracy of guessing and of the best network known, say.
    """

    weight: float
    metric: str
    low: float
    high: float

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, "weight", self.weight, "it must be a number above 0")
        good = math.isfinite(self.low) and math.isfinite(self.high) and self.low != self.high
        require(good, "high", self.high, f"it must be finite and differ from low={self.low}")

    def normalised(self, metrics: Mapping[str, float], name: str) -> float:
        key = f"{name}/{self.metric}"
        if key not in metrics:
            known = f"this evaluation gives {', '.join(sorted(metrics))} (take evaluation=multi_task)"
            raise InvalidValue(f"objective.tasks.{name}.metric", self.metric, known)
        return (metrics[key] - self.low) / (self.high - self.low)


class MultiTask:
    """The weighted mean of the tasks' normalised metrics, less the penalty of the run's own network.

    Args:
        tasks: How each counts; their names are those of :class:`EveryTask`.
        cost_weight: See :class:`~nas.evaluation.objective.Fixed`.
        costs: See there.
        space: See there.
    """

    def __init__(
        self, tasks: Mapping[str, TaskWeight], cost_weight: float, costs: Mapping[str, float], *, space: SearchSpace
    ) -> None:
        require(len(tasks) > 0, "tasks", dict(tasks), "it must have at least one task")
        self.tasks = dict(tasks)
        self.penalty = CostPenalty(cost_weight, costs, space)

    def score(self, evaluation: Evaluation) -> float:
        total = math.fsum(
            task.weight * task.normalised(evaluation.metrics, name) for name, task in self.tasks.items()
        ) / math.fsum(task.weight for task in self.tasks.values())
        return total - self.penalty.of(evaluation.candidate.architecture) if math.isfinite(total) else -math.inf

    def expected_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        raise InvalidValue("objective", "multi_task", "the gradient search learns on one data set, take another method")

    def advance(self, progress: float, best: float) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"penalty": self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.penalty.load_state_dict(state["penalty"])
