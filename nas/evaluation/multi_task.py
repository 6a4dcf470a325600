"""One architecture for several data sets: an evaluator that measures each, and the objective over all of them."""

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


class EveryTask(Evaluator):
    """Evaluates each candidate by several evaluators; the metrics are called ``<task>/accuracy`` and so on.

    Args:
        tasks: For each task its evaluator, such as a training on its own images or a column of a table.
        setup: The run's own setup; all tasks share its space and training.
        objective: What the search maximises.
        space: The run's space.

    Raises:
        InvalidValue: There is no task.
    """

    def __init__(
        self,
        tasks: Mapping[str, Callable[..., Evaluator]],
        *,
        setup: TrainingSetup,
        objective: Objective,
        space: SearchSpace,
    ) -> None:
        require(len(tasks) > 0, "tasks", dict(tasks), "it must have at least one task")
        self.evaluators = {name: make(setup=setup, objective=objective, space=space) for name, make in tasks.items()}
        self.cacheable = all(evaluator.cacheable for evaluator in self.evaluators.values())
        self.batch = max(evaluator.batch for evaluator in self.evaluators.values())

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        """Without pruning, because a rung of one task says nothing about the others."""
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
        weight: The task's share beside the other tasks'.
        metric: The name of one of the evaluator's metrics.
        low, high: The metric's values that count as 0 and as 1, such as the accuracies of guessing and of the best
            known network.
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
        """The metric of the task called ``name``, on the scale from low to high."""
        key = f"{name}/{self.metric}"
        if key not in metrics:
            known = f"this evaluation gives {', '.join(sorted(metrics))} (take evaluation=multi_task)"
            raise InvalidValue(f"objective.tasks.{name}.metric", self.metric, known)
        return (metrics[key] - self.low) / (self.high - self.low)


class MultiTask(Objective):
    """The weighted mean of the tasks' normalised metrics, less the penalty of the network for the run's own data.

    Args:
        tasks: How each task counts; the names are those of :class:`EveryTask`.
        cost_weight: See :class:`~nas.evaluation.objective.Fixed`.
        costs: See :class:`~nas.evaluation.objective.Fixed`.
        space: See :class:`~nas.evaluation.objective.Fixed`.
    """

    def __init__(
        self, tasks: Mapping[str, TaskWeight], cost_weight: float, costs: Mapping[str, float], *, space: SearchSpace
    ) -> None:
        require(len(tasks) > 0, "tasks", dict(tasks), "it must have at least one task")
        super().__init__(CostPenalty(cost_weight, costs, space))
        self.tasks = dict(tasks)

    def value(self, metrics: Mapping[str, float]) -> float:
        parts = [task.weight * task.normalised(metrics, name) for name, task in self.tasks.items()]
        total = math.fsum(parts) / math.fsum(task.weight for task in self.tasks.values())
        return total if math.isfinite(total) else -math.inf

    def expected_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        raise InvalidValue("objective", "multi_task", "the gradient search learns on one data set, take another method")
