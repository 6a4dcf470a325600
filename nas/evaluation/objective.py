"""The objective, which turns an evaluation into the one number that a search maximises.

Its fixed and its dynamic form weight the metrics; a network's cost comes off as a penalty, which is a number for a
candidate and an expectation for a supernet.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.errors import require
from nas.evaluation.evaluation import Evaluation
from nas.evaluation.network_cost import NETWORK_COSTS, BlockCosts
from nas.spaces.space import SearchSpace
from nas.tasks import Task

OF_ALL_TASKS = ("parameters", "multiply_adds", "fidelity")


class Objective(ABC):
    """A number to maximise: the value of the metrics, less a penalty for the network's cost.

    A subclass writes :meth:`value`. Its weights may change during the search; only scores under the same weights
    compare.

    Args:
        penalty: What the network's cost takes off.
    """

    def __init__(self, penalty: "CostPenalty") -> None:
        self.penalty = penalty

    @abstractmethod
    def value(self, metrics: Mapping[str, float]) -> float:
        """The number for an evaluation's ``metrics``; ``-inf`` if a metric that it needs is not finite.

        Raises:
            InvalidValue: A metric that it needs is missing.
        """

    def score(self, evaluation: Evaluation) -> float:
        """The number to maximise; ``-inf`` if a metric that it needs is not finite."""
        return self.value(evaluation.metrics) - self.penalty.of(evaluation.candidate.architecture)

    def expected_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """What the gradient search adds to its validation loss: 0-dim and differentiable, or None if costs are free.

        Args:
            weights: The relaxed operation weights of the supernet, named and shaped as its alphas.
        """
        return self.penalty.expected(weights)

    def advance(self, progress: float, best: float) -> bool:
        """Take in the progress of the search (0 to 1) and its best score; returns whether the weights changed."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"penalty": self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.penalty.load_state_dict(state["penalty"])


class TaskScore(Objective):
    """The task's own score (``nas.tasks.Task.score``), less the penalty.

    Args:
        cost_weight: What a network of the space's mean cost loses; 0 makes cost free.
        costs: By name the share of each cost, see :class:`CostPenalty`.
        space: The space of the networks.
        task: What their outputs mean.
    """

    def __init__(self, cost_weight: float, costs: Mapping[str, float], *, space: SearchSpace, task: Task) -> None:
        self.task = task
        super().__init__(CostPenalty(cost_weight, costs, space))

    def value(self, metrics: Mapping[str, float]) -> float:
        main = self.task.measures[0].name
        known = f"this evaluation gives {', '.join(sorted(metrics))}"
        require(main in metrics, "objective", "task", f"it needs {main}, and {known}")
        score = self.task.score(metrics)
        return score if math.isfinite(score) else -math.inf


class Fixed(Objective):
    """``sum over metrics of weight * metric - penalty``.

    Args:
        weights: By metric (``accuracy``, ``macro_f1``, ``macro_recall``, ``loss``, ...) its weight: negative for a
            metric that shall be small.
        cost_weight: What a network of the space's mean cost loses; 0 makes cost free.
        costs: By name the share of each cost, see :class:`CostPenalty`.
        space: The space of the networks.
        task: Where it is given, it must have the metrics.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        cost_weight: float,
        costs: Mapping[str, float],
        *,
        space: SearchSpace,
        task: Task | None = None,
    ) -> None:
        self.weights = checked_weights("weights", weights, task)
        super().__init__(CostPenalty(cost_weight, costs, space))

    def value(self, metrics: Mapping[str, float]) -> float:
        return weighted(self.weights, metrics)


class Dynamic(Objective):
    """As :class:`Fixed`, with the weights ``(1 - position) * start + position * end``; the position starts at 0.

    Args:
        start: The metrics' weights at position 0.
        end: The metrics' weights at position 1.
        schedule: With ``linear`` and ``cosine`` the position follows the spent share of the budget. With
            ``stagnation`` it moves by ``step`` whenever the best score has not risen for ``patience`` rounds.
        patience: Rounds without a better score, with ``stagnation``.
        step: How far the position moves, with ``stagnation``.
        cost_weight: As in :class:`Fixed`.
        costs: As in :class:`Fixed`.
        space: As in :class:`Fixed`.
        task: As in :class:`Fixed`.
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
        task: Task | None = None,
    ) -> None:
        checked_weights("start", start, task)
        checked_weights("end", end, task)
        require(patience >= 1, "patience", patience, "it must be at least 1")
        require(0 < step <= 1, "step", step, "it must be a number above 0 and at most 1")
        super().__init__(CostPenalty(cost_weight, costs, space))
        self.start, self.end, self.schedule, self.patience, self.step = dict(start), dict(end), schedule, patience, step
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

    def value(self, metrics: Mapping[str, float]) -> float:
        return weighted(self.weights, metrics)

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
                # Scores under the new weights are other numbers: the next best score counts as the first again.
                self.position, self.waited, self.best = min(self.position + self.step, 1.0), 0, -math.inf
        return self.position != before

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "position": self.position, "waited": self.waited, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.position, self.waited, self.best = state["position"], state["waited"], state["best"]


def checked_weights(key: str, weights: Mapping[str, float], task: Task | None = None) -> dict[str, float]:
    """``weights`` without the zeros.

    Raises:
        InvalidValue: No weight is left, a weight is not finite, or an evaluation of ``task`` has no such metric.
    """
    used = {name: float(weight) for name, weight in weights.items() if weight != 0}
    require(len(used) > 0, key, dict(weights), "at least one metric needs a weight other than 0")
    for name, weight in used.items():
        require(math.isfinite(weight), f"{key}.{name}", weight, "it must be finite")
        if task is not None:
            has = [*(one.name for one in task.measures), "loss", *OF_ALL_TASKS]
            require(name in has, f"{key}.{name}", weight, f"task={task.name} has {', '.join(has)}")
    return used


def weighted(weights: Mapping[str, float], metrics: Mapping[str, float]) -> float:
    """The weighted sum of ``metrics``; ``-inf`` if it is not finite.

    Raises:
        InvalidValue: ``metrics`` lacks a metric that has a weight.
    """
    for name in weights:
        known = f"this evaluation gives {', '.join(sorted(metrics))}"
        require(name in metrics, f"objective.weights.{name}", weights[name], known)
    total = math.fsum(weight * metrics[name] for name, weight in weights.items())
    return total if math.isfinite(total) else -math.inf


class CostPenalty:
    """``weight * sum over costs of share * cost / reference``.

    The reference of a cost is its mean over the space with all options equally likely. So a network of mean cost loses
    ``weight``, and a network of half that cost loses half of it.

    Args:
        weight: 0 makes every cost free.
        shares: The share of each cost, by name: ``parameters``, ``multiply_adds`` or ``latency`` (the sum over the
            network's parts, each measured once per search).
        space: The space of the networks.

    Raises:
        InvalidValue: The weight or a share is negative, or a cost is unknown.
    """

    def __init__(self, weight: float, shares: Mapping[str, float], space: SearchSpace) -> None:
        require(0 <= weight < math.inf, "cost_weight", weight, "it must be at least 0")
        for name, share in shares.items():
            known = f"a cost must be one of {', '.join(NETWORK_COSTS)}"
            require(name in NETWORK_COSTS, f"costs.{name}", share, known)
            require(0 <= share < math.inf, f"costs.{name}", share, "it must be at least 0")
        self.weight, self.space = weight, space
        self.shares = {name: share for name, share in shares.items() if share > 0 and weight > 0}
        told = type(space).expected_cost is not SearchSpace.expected_cost
        allowed = f"space={space.name} has no expected_cost(weights, cost), which a cost of size asks for: take 0"
        require(told or not self.shares, "cost_weight", weight, allowed)
        self.blocks = {name: BlockCosts(name) for name in self.shares}
        self._references: dict[str, float] = {}

    def reference(self, name: str) -> float:
        """The mean of a cost over the space."""
        if name not in self._references:
            uniform = {}
            weights = self.space.architecture_weights(self.space.sample(torch.Generator().manual_seed(0)).architecture)
            for key, weight in weights.items():
                uniform[key] = torch.full_like(weight, 1.0) / weight.shape[-1]
            self._references[name] = float(self.space.expected_cost(uniform, self.blocks[name]))
        return self._references[name]

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty of relaxed operation ``weights``: 0-dim and differentiable, or None if nothing is penalised."""
        total: Tensor | None = None
        for name, share in self.shares.items():
            expected = self.space.expected_cost(weights, self.blocks[name])
            term = self.weight * share / self.reference(name) * expected
            total = term if total is None else total + term
        return total

    def of(self, architecture: Architecture) -> float:
        """The penalty of one architecture."""
        found = self.expected(self.space.architecture_weights(architecture)) if self.shares else None
        return 0.0 if found is None else float(found)

    def state_dict(self) -> dict[str, Any]:
        return {name: dict(blocks.known) for name, blocks in self.blocks.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, blocks in self.blocks.items():
            blocks.known = dict(state[name])
        self._references.clear()
