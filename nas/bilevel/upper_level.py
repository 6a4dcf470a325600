"""What had to be held back or started again during a search: counted by kind, each told once.

========================== ====================================================================================
kind                       what was done
========================== ====================================================================================
``loss_not_finite``        the weights start again: the loss or its gradient is not finite
``loss_jump``              the weights start again: the loss rose far above the untrained supernet's
``gradient_vanished``      the weights start again: the network is dead
``gradient_not_finite``    alpha, or a hyperparameter, does not move: its hypergradient is not finite
``gradient_silent``        nothing is done: a hyperparameter's gradient has been zero for many steps
``trust_region``           a hyperparameter's change is cut to its trust region
``bound``                  a hyperparameter stays at the end of its range
``cap``                    the candidate carries a hyperparameter's cap instead of its average
========================== ====================================================================================
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.bilevel.hypergradient import ObservingHypergradient, RetrospectiveHypergradient, Strategy, UpperLevelReport
from nas.bilevel.problem import BilevelProblem, RecordedStep, WeightStep
from nas.data.batches import Batch
from nas.errors import require


class Intervention(NamedTuple):
    """Of a ``kind`` named above, upon ``what``: a hyperparameter's name, ``architecture`` or ``weights``."""

    kind: str
    what: str


SILENT_STEPS = 20  # with a gradient of zero, after which a hyperparameter counts as one that does not learn
Penalty = Callable[[Mapping[str, Tensor]], Tensor | None]
Work = list[tuple[Strategy, list[nn.Parameter]]]  # whom a step asks, each for the gradients of what


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
    """What one step did: the last strategy's report, the samples all of them spent, the gradients' sizes, and what had
    to be held back."""

    report: UpperLevelReport
    samples: int
    gradient_norms: dict[str, float] = field(default_factory=dict)
    interventions: tuple[Intervention, ...] = ()


@dataclass(frozen=True)
class Alternation:
    """A step of either level: what the upper one did, where it had anything to do, and all samples spent."""

    outcome: UpperLevelOutcome | None
    taken: WeightStep
    samples: int


class UpperLevel:
    """Alpha and the raw hyperparameters, their gradient strategies and the rules that move them.

    Args:
        architecture_gradient: How alpha gets its gradient; None leaves alpha as it is.
        hyperparameter_gradient: The same for the learned hyperparameters.
        penalty: Of alpha's probabilities, added to the validation loss; None, or where it gives None: nothing.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        architecture_gradient: Strategy | None,
        hyperparameter_gradient: Strategy | None,
        architecture: ArchitectureOptimiser,
        penalty: Penalty | None = None,
    ) -> None:
        self.problem, self.penalty = problem, penalty
        self.alpha = problem.supernet.architecture_parameters()
        self.hyperparameters = problem.hyperparameters
        self.architecture_gradient = architecture_gradient if self.alpha else None
        self.hyperparameter_gradient = hyperparameter_gradient if self.hyperparameters.learned() else None
        strategies = (self.architecture_gradient, self.hyperparameter_gradient)
        self.looks_back = any(isinstance(strategy, RetrospectiveHypergradient) for strategy in strategies)
        self.optimiser = architecture.over(self.alpha) if self.alpha else None
        self._silent: dict[str, int] = {}  # for how many steps a hyperparameter's gradient has been zero

    def work(self, architecture: bool, hyperparameters: bool) -> Work:
        """What a step has to do.

        Args:
            architecture: Whether alpha takes part.
            hyperparameters: Whether the learned hyperparameters do.
        """
        raw = self.hyperparameters.raw_parameters()
        alpha_strategy = self.architecture_gradient if architecture else None
        raw_strategy = self.hyperparameter_gradient if hyperparameters else None
        if raw_strategy is not None and alpha_strategy is not None and _is_served(alpha_strategy, raw_strategy):
            return [(raw_strategy, [*self.alpha, *raw])]  # one set of passes for both
        work: Work = [] if alpha_strategy is None else [(alpha_strategy, self.alpha)]
        return work if raw_strategy is None else [*work, (raw_strategy, raw)]

    def alternate(self, training: Batch, validation: Batch | None, work: Work) -> Alternation:
        """One step of either level: the upper one moves first, or last where a strategy looks back.

        Args:
            validation: None where ``work`` is empty.
        """
        outcome, recorded, samples = None, None, len(training.labels)
        if self.looks_back:
            known = {id(raw) for raw in self.hyperparameters.raw_parameters()}
            through = [target for _, targets in work for target in targets if id(target) in known]
            recorded = self.problem.recorded_step(training, through) if through else None
            taken = self.problem.weight_step(training) if recorded is None else recorded.taken
        if validation is not None:
            outcome = self.step(training, validation, work, recorded)
            samples += outcome.samples
        if not self.looks_back:
            taken, observing = self._weight_step(training)
            samples += observing
        return Alternation(outcome, taken, samples)

    def step(
        self, training: Batch, validation: Batch, work: Work, recorded: RecordedStep | None = None
    ) -> UpperLevelOutcome:
        """Take every gradient of ``work`` (not empty) at the same alpha and h, then move them.

        Args:
            recorded: The weight step that a strategy looks back upon.
        """
        samples = 0
        reports = []
        for strategy, targets in work:
            if isinstance(strategy, RetrospectiveHypergradient):
                report = strategy.look_back(self.problem, recorded, validation, targets)
            else:
                report = strategy(self.problem, training, validation, targets)
            samples += report.passes[0] * len(training.labels) + report.passes[1] * len(validation.labels)
            reports.append(report)
            if self.alpha and self.alpha[0] in set(targets):
                self._add_penalty()
        held: list[Intervention] = []
        norms = self._move_architecture() | self._move_hyperparameters(reports[-1], held)
        held += [Intervention("gradient_not_finite", name) for name, norm in norms.items() if not math.isfinite(norm)]
        finite = {name: norm for name, norm in norms.items() if math.isfinite(norm)}
        return UpperLevelOutcome(reports[-1], samples, finite, tuple(held))

    def expected_penalty(self) -> Tensor | None:
        """The penalty of the present alpha, 0-dim, in its graph."""
        supernet = self.problem.supernet
        weights = {name: supernet.relaxation.probabilities(alpha) for name, alpha in supernet.alpha.items()}
        return None if self.penalty is None or not self.alpha else self.penalty(weights)

    def _add_penalty(self) -> None:
        penalty = self.expected_penalty()
        if penalty is None:
            return
        gradients = torch.autograd.grad(penalty, self.alpha, materialize_grads=True)
        for alpha, gradient in zip(self.alpha, gradients, strict=True):
            alpha.grad = gradient if alpha.grad is None else alpha.grad + gradient

    def most_passes(self) -> int:
        """Forward-backward passes over a batch that a step takes at most."""
        strategies = (self.architecture_gradient, self.hyperparameter_gradient)
        targets = len(self.hyperparameters.raw_parameters())
        return sum(strategy.most_passes(targets) for strategy in strategies if strategy is not None)

    def _weight_step(self, training: Batch) -> tuple[WeightStep, int]:
        """Take it, before the eyes of a strategy that follows the weights, and the samples that its looking took."""
        strategy = self.hyperparameter_gradient
        if not isinstance(strategy, ObservingHypergradient):
            return self.problem.weight_step(training), 0
        step = self.problem.open_step(training)
        passes = strategy.observe(self.problem, step, self.hyperparameters.raw_parameters())
        return self.problem.close_step(step), passes * len(training.labels)

    def forget_weights(self) -> None:
        """The weights have started again: nothing that was remembered of them is true any more."""
        if isinstance(self.hyperparameter_gradient, ObservingHypergradient):
            self.hyperparameter_gradient.forget()

    def _move_architecture(self) -> dict[str, float]:
        gradients = [alpha.grad for alpha in self.alpha if alpha.grad is not None]
        if not gradients or self.optimiser is None:
            return {}
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {"architecture": norm}

    def _move_hyperparameters(self, report: UpperLevelReport, held: list[Intervention]) -> dict[str, float]:
        """Returns the gradients' sizes; what had to be held back is added to ``held``."""
        norms = {}
        for name, raw in self.hyperparameters.named_raw():
            entry = self.hyperparameters.entries[name]
            if raw.grad is None or entry.update is None:
                continue
            norms[name], before = abs(float(raw.grad)), raw.detach().clone()
            if math.isfinite(norms[name]):
                sensitivity = report.sensitivity.get(raw, report.step_length)
                entry.update.step(raw, sensitivity * report.validation_gradient_norm)
                held.extend(Intervention(kind, name) for kind in entry.held(raw, before))
            raw.grad = None
            self._silent[name] = self._silent.get(name, 0) + 1 if norms[name] == 0 else 0
            if self._silent[name] == SILENT_STEPS:
                held.append(Intervention("gradient_silent", name))
        return norms

    def forget(self) -> None:
        """Drop the optimiser's memory of alpha, after alpha was set back."""
        if self.optimiser is not None:
            self.optimiser.state.clear()

    def state_dict(self) -> dict[str, Any]:
        strategy = self.hyperparameter_gradient
        updates = {name: self.hyperparameters.entries[name].update for name in self.hyperparameters.learned()}
        return {
            "architecture": self.optimiser.state_dict() if self.optimiser else {},
            "raw": {name: raw.detach().clone() for name, raw in self.hyperparameters.named_raw()},
            "updates": {name: update.state_dict() for name, update in updates.items() if update is not None},
            "silent": dict(self._silent),
            "strategy": strategy.state_dict() if isinstance(strategy, ObservingHypergradient) else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._silent = dict(state["silent"])
        if isinstance(self.hyperparameter_gradient, ObservingHypergradient):
            self.hyperparameter_gradient.load_state_dict(state["strategy"])
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state["architecture"])
        for name, raw in self.hyperparameters.named_raw():
            raw.data.copy_(state["raw"][name])
            update = self.hyperparameters.entries[name].update
            if update is not None:
                update.load_state_dict(state["updates"][name])


def _is_served(alpha_strategy: Strategy, raw_strategy: Strategy) -> bool:
    """Whether the passes for the hyperparameters give alpha what its own strategy would."""
    if isinstance(raw_strategy, RetrospectiveHypergradient):
        return raw_strategy.serves(alpha_strategy)
    return alpha_strategy == raw_strategy
