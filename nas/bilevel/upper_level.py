"""One upper-level step: the gradients of alpha and of the hyperparameters, then their moves."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.configuration import require
from nas.data.dataset import Batch


@dataclass(frozen=True)
class ArchitectureOptimiser:
    """Adam for alpha, as in DARTS."""

    rate: float
    betas: tuple[float, float]
    weight_decay: float

    def __post_init__(self) -> None:
        require(self.rate > 0 and math.isfinite(self.rate), "rate", self.rate, "it must be a number above 0")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(good, "betas", list(self.betas), "it must be two numbers from 0 to below 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "it must be at least 0")

    def over(self, parameters: list[nn.Parameter]) -> torch.optim.Adam:
        betas = (self.betas[0], self.betas[1])
        return torch.optim.Adam(parameters, lr=self.rate, betas=betas, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class UpperLevelOutcome:
    """What one step did: the last strategy's report, the samples all of them spent, and the gradients' sizes."""

    report: UpperLevelReport
    samples: int
    gradient_norms: dict[str, float] = field(default_factory=dict)


class UpperLevel:
    """Alpha and the raw hyperparameters, their gradient strategies and the rules that move them.

    Args:
        architecture_gradient: How alpha gets its gradient; None leaves alpha as it is.
        hyperparameter_gradient: The same for the learned hyperparameters.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        architecture_gradient: Hypergradient | None,
        hyperparameter_gradient: Hypergradient | None,
        architecture: ArchitectureOptimiser,
    ) -> None:
        self.problem = problem
        self.alpha = problem.supernet.architecture_parameters()
        self.hyperparameters = problem.hyperparameters
        self.architecture_gradient = architecture_gradient if self.alpha else None
        self.hyperparameter_gradient = hyperparameter_gradient if self.hyperparameters.learned() else None
        self.optimiser = architecture.over(self.alpha) if self.alpha else None

    def work(self, architecture: bool, hyperparameters: bool) -> list[tuple[Hypergradient, list[nn.Parameter]]]:
        """The strategies that a step calls, each with what it gives gradients to.

        Args:
            architecture: Whether alpha takes part.
            hyperparameters: Whether the learned hyperparameters do.
        """
        raw = self.hyperparameters.raw_parameters()
        alpha_strategy = self.architecture_gradient if architecture else None
        raw_strategy = self.hyperparameter_gradient if hyperparameters else None
        if alpha_strategy is not None and alpha_strategy == raw_strategy:
            return [(alpha_strategy, [*self.alpha, *raw])]  # the same strategy: one set of passes serves both
        work = [] if alpha_strategy is None else [(alpha_strategy, self.alpha)]
        return work if raw_strategy is None else [*work, (raw_strategy, raw)]

    def step(
        self, training: Batch, validation: Batch, work: list[tuple[Hypergradient, list[nn.Parameter]]]
    ) -> UpperLevelOutcome:
        """Take every gradient of ``work`` (not empty) at the same alpha and h, then move them."""
        samples = 0
        reports = []
        for strategy, targets in work:
            report = strategy(self.problem, training, validation, targets)
            samples += report.passes[0] * len(training.labels) + report.passes[1] * len(validation.labels)
            reports.append(report)
        return UpperLevelOutcome(reports[-1], samples, self._move(reports[-1]))

    def _move(self, report: UpperLevelReport) -> dict[str, float]:
        norms = {}
        gradients = [alpha.grad for alpha in self.alpha if alpha.grad is not None]
        if gradients and self.optimiser is not None:
            norms["architecture"] = float(torch.nn.utils.get_total_norm(gradients))
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
        for name, raw in self.hyperparameters.named_raw():
            update = self.hyperparameters.entries[name].update
            if raw.grad is not None and update is not None:
                norms[name] = abs(float(raw.grad))
                update.step(raw, report)
                raw.grad = None
        self.hyperparameters.clamp()
        return norms

    def forget(self) -> None:
        """Drop the optimiser's memory of alpha, after alpha was set back."""
        if self.optimiser is not None:
            self.optimiser.state.clear()

    def state_dict(self) -> dict[str, Any]:
        updates = {name: self.hyperparameters.entries[name].update for name in self.hyperparameters.learned()}
        return {
            "architecture": self.optimiser.state_dict() if self.optimiser else {},
            "raw": {name: raw.detach().clone() for name, raw in self.hyperparameters.named_raw()},
            "updates": {name: update.state_dict() for name, update in updates.items() if update is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state["architecture"])
        for name, raw in self.hyperparameters.named_raw():
            raw.data.copy_(state["raw"][name])
            update = self.hyperparameters.entries[name].update
            if update is not None:
                update.load_state_dict(state["updates"][name])
