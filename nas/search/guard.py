"""What goes wrong in a search: weights that have diverged or died, and all that had to be held back.

Interventions are counted by kind, and each is told once. Those of the upper level are in
:mod:`nas.hyperparameters.collection`; further ones are

========================== ====================================================================================
kind                       what was done
========================== ====================================================================================
``loss_not_finite``        the weights start again: the loss or its gradient is not finite
``loss_jump``              the weights start again: the loss rose far above the untrained supernet's
``gradient_vanished``      the weights start again: the network is dead
``cap``                    the candidate carries a hyperparameter's cap instead of its average
========================== ====================================================================================
"""

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nas.bilevel.optimiser import BilevelOptimiser
from nas.errors import RunFailed, require
from nas.hyperparameters.collection import Intervention
from nas.run.finiteness import NotFinite
from nas.search.callback import Callback, SeenStep
from nas.spaces.supernet import Supernet

log = logging.getLogger(__name__)

SMOOTHING = 0.8  # of the moving averages: a single bad batch is no reason to start over
DEAD_GRADIENT = 1e-3  # as a share of the gradient norm at the initial weights


@dataclass(frozen=True)
class GuardSettings:
    """When to restart, and how.

    Args:
        jump: Restart when the loss passes this multiple of the measured initial loss.
        patience: Steps without life (loss at its initial value, gradients gone) before a network counts as dead.
        divisor: What a restart divides the learning rate by.
        restarts: How many there may be; the next one ends the run.
    """

    jump: float = 2.0
    patience: int = 10
    divisor: float = 4.0
    restarts: int = 5

    def __post_init__(self) -> None:
        require(self.jump > 1, "jump", self.jump, "it must be above 1")
        require(self.patience >= 1, "patience", self.patience, "it must be at least 1")
        require(self.divisor > 1, "divisor", self.divisor, "it must be above 1")
        require(self.restarts >= 0, "restarts", self.restarts, "it must be at least 0")


class SearchDiverged(RunFailed):
    """The weights diverged or died more often than the guard may restart them."""


class Guard(Callback):
    """Notices that the weights have diverged or died, and has them started again at a lower learning rate.

    It compares with the *measured* initial loss: ln(classes) would miss networks that start far from it.

    Args:
        restart: What starts the weights again, given the reason; None ends the run instead.
        interventions: Where a restart is counted.
    """

    def __init__(
        self, settings: GuardSettings, restart: Callable[[str], None] | None, interventions: "Interventions"
    ) -> None:
        self.settings, self.interventions, self._restart = settings, interventions, restart
        self.initial_loss = math.nan
        self.restarts = 0
        self.forget()

    def forget(self) -> None:
        self._initial_norm = math.nan
        self._loss, self._quiet = math.nan, 0

    def begin(self, initial_loss: float) -> None:
        """Tell the loss of the untrained supernet."""
        self.initial_loss = initial_loss

    def on_step(self, seen: SeenStep) -> None:
        """Look at a step.

        Raises:
            SearchDiverged: The weights must start again, and cannot, or have done so too often.
        """
        losses = [value for name, value in seen.numbers.items() if name.endswith("loss")]
        worst = max(losses) if all(map(math.isfinite, losses)) else math.nan
        complaint = self.complaint(worst, seen.numbers["the gradient of the weights"])
        if complaint is None:
            return
        kind, reason = complaint
        self.interventions.note(Intervention(kind, "weights"), seen.step)
        reason = f"step {seen.step}: {reason}"
        if self._restart is None:
            raise SearchDiverged(f"{reason}; lower hyperparameters.learning_rate.initial or learn it.")
        if self.restarts >= self.settings.restarts:
            advice = "lower hyperparameters.learning_rate.initial"
            raise SearchDiverged(f"{reason}, after {self.restarts} restarts; {advice}.")
        self.restarts += 1
        self._restart(reason)

    def complaint(self, loss: float, gradient_norm: float) -> tuple[str, str] | None:
        """Look at a step's losses and gradient. Returns why the weights must start again, kind and reason, or None."""
        if not math.isfinite(loss):
            return "loss_not_finite", "the loss is not finite"
        if not math.isfinite(gradient_norm):
            return "loss_not_finite", "the gradient of the weights is not finite"
        self._loss = loss if math.isnan(self._loss) else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        if self._loss > self.settings.jump * self.initial_loss:
            return "loss_jump", f"the loss rose to {self._loss:.3g} from {self.initial_loss:.3g}"
        if math.isnan(self._initial_norm):
            self._initial_norm = gradient_norm
        lifeless = gradient_norm < DEAD_GRADIENT * self._initial_norm and self._loss > 0.9 * self.initial_loss
        self._quiet = self._quiet + 1 if lifeless else 0
        dead = self._quiet >= self.settings.patience
        return ("gradient_vanished", "the gradient has vanished") if dead else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "initial_loss": self.initial_loss,
            "restarts": self.restarts,
            "initial_norm": self._initial_norm,
            "loss": self._loss,
            "quiet": self._quiet,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.initial_loss, self.restarts = state["initial_loss"], state["restarts"]
        self._initial_norm, self._loss, self._quiet = state["initial_norm"], state["loss"], state["quiet"]


class FreshStart:
    """Takes the weights back to where the search began; alpha stays unless it is not finite."""

    def __init__(self, bilevel_optimiser: BilevelOptimiser) -> None:
        self.bilevel_optimiser, self.problem = bilevel_optimiser, bilevel_optimiser.problem
        self._initial = {name: entry.clone() for name, entry in self.problem.supernet.state_dict().items()}

    def go_back(self, divisor: float) -> float:
        """Take the weights back, and divide the learning rate by ``divisor``. Returns the new learning rate."""
        supernet, hyperparameters = self.problem.supernet, self.problem.hyperparameters
        rate = hyperparameters.numbers()["learning_rate"] / divisor
        hyperparameters.set_value("learning_rate", rate)
        state, stays = dict(self._initial), ["kept."]
        if all(bool(torch.isfinite(alpha).all()) for alpha in supernet.architecture_parameters()):
            stays.append("alpha.")
        else:
            self.bilevel_optimiser.forget()
        state |= {name: one for name, one in supernet.state_dict().items() if name.startswith(tuple(stays))}
        supernet.load_state_dict(state)
        self.problem.optimiser.state.clear()
        self.bilevel_optimiser.forget_weights()
        return rate


class Finiteness(Callback):
    """Ends the step at a number that is not finite, where no guard would start the weights again.

    Args:
        supernet: Its alphas are named where they are not finite.
        gradients: Whether a hypergradient that is not finite counts; otherwise it moves nothing.
    """

    def __init__(self, supernet: Supernet, gradients: bool) -> None:
        self.supernet, self.gradients = supernet, gradients

    def on_step(self, seen: SeenStep) -> None:
        """Look at a step.

        Raises:
            NotFinite: Something in it is not finite.
        """
        quantities = dict(seen.numbers)
        if not math.isfinite(quantities.pop("alpha", 0.0)):
            try:
                self.supernet.discretise()
            except FloatingPointError as error:
                alpha, _, values = str(error).partition(" is ")
                raise NotFinite(seen.step, alpha, values) from error
        if seen.outcome.upper_step is not None and self.gradients:
            norms = seen.outcome.upper_step.gradient_norms
            quantities |= {f"the gradient of {name}": norm for name, norm in norms.items()}
        for name, value in quantities.items():
            if not math.isfinite(value):
                raise NotFinite(seen.step, name, value)


SENTENCES = {
    "gradient_not_finite": "{what} stays: its hypergradient is not finite",
    "gradient_silent": "{what} does not learn: its hypergradient is zero",
    "trust_region": "the change of {what} is cut to its trust region",
    "bound": "{what} is held at the end of its range",
    "cap": "the candidate carries {what} at its cap",
}


class Interventions(Callback):
    """Counts what had to be held back; the first of every kind and place is told."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def on_step(self, seen: SeenStep) -> None:
        if seen.outcome.upper_step is not None:
            for intervention in seen.outcome.upper_step.interventions:
                self.note(intervention, seen.step - 1)

    def note(self, intervention: Intervention, step: int) -> None:
        kind, what = intervention
        self._counts[kind, what] += 1
        if self._counts[kind, what] == 1 and kind in SENTENCES:
            log.info(f"step {step}: {SENTENCES[kind].format(what=what)}")

    def by_kind(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (kind, _), count in self._counts.items():
            counts[kind] += count
        return dict(sorted(counts.items()))

    def in_words(self) -> str:
        """``loss_jump 2 (weights), bound 31 (dropout, mixing)``, or ``none``."""
        parts = []
        for kind, count in self.by_kind().items():
            places = sorted(what for one, what in self._counts if one == kind)
            parts.append(f"{kind} {count} ({', '.join(places)})")
        return ", ".join(parts) or "none"

    def state_dict(self) -> dict[str, Any]:
        return {"counts": [[kind, what, count] for (kind, what), count in self._counts.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts = Counter({(kind, what): count for kind, what, count in state["counts"]})
