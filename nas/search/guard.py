"""Noticing that the supernet has diverged or died, so that the search can start its weights again at a lower rate."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nas.bilevel.upper_level import Intervention
from nas.errors import RunFailed, require

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
        pair: ``present`` goes on with alpha and the hyperparameters as they are, ``best`` with those at the end of the
            epoch of lowest validation loss, where there has been one; the learning rate is divided either way.
    """

    jump: float = 2.0
    patience: int = 10
    divisor: float = 4.0
    restarts: int = 5
    pair: Literal["present", "best"] = "present"

    def __post_init__(self) -> None:
        require(self.jump > 1, "jump", self.jump, "it must be above 1")
        require(self.patience >= 1, "patience", self.patience, "it must be at least 1")
        require(self.divisor > 1, "divisor", self.divisor, "it must be above 1")
        require(self.restarts >= 0, "restarts", self.restarts, "it must be at least 0")


class Complaint(NamedTuple):
    """Why the weights must start again: its kind (``nas.search.guard``) and a sentence."""

    kind: str
    reason: str


class SearchDiverged(RunFailed):
    """The weights diverged or died more often than the guard may restart them."""


class Guard:
    """Compares with the *measured* initial loss: ln(classes) would miss networks that start far from it."""

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self.initial_loss = math.nan
        self.restarts = 0
        self._forget()

    def _forget(self) -> None:
        self._initial_norm = math.nan
        self._loss, self._quiet = math.nan, 0

    def begin(self, initial_loss: float) -> None:
        """Tell the loss of the untrained supernet."""
        self.initial_loss = initial_loss

    def complaint(self, loss: float, gradient_norm: float) -> Complaint | None:
        """Look at one step. Returns why the weights must start again, or None."""
        if not math.isfinite(loss):
            return Complaint("loss_not_finite", "the loss is not finite")
        if not math.isfinite(gradient_norm):
            return Complaint("loss_not_finite", "the gradient of the weights is not finite")
        self._loss = loss if math.isnan(self._loss) else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        if self._loss > self.settings.jump * self.initial_loss:
            return Complaint("loss_jump", f"the loss rose to {self._loss:.3g} from {self.initial_loss:.3g}")
        if math.isnan(self._initial_norm):
            self._initial_norm = gradient_norm
        lifeless = gradient_norm < DEAD_GRADIENT * self._initial_norm and self._loss > 0.9 * self.initial_loss
        self._quiet = self._quiet + 1 if lifeless else 0
        dead = self._quiet >= self.settings.patience
        return Complaint("gradient_vanished", "the gradient has vanished") if dead else None

    def restart(self, reason: str) -> None:
        """Count a restart.

        Raises:
            SearchDiverged: There have been too many.
        """
        if self.restarts >= self.settings.restarts:
            raise SearchDiverged(
                f"{reason}, after {self.restarts} restarts; lower hyperparameters.learning_rate.initial."
            )
        self.restarts += 1
        self._forget()

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


SENTENCES = {
    "gradient_not_finite": "{what} stays: its hypergradient is not finite",
    "gradient_silent": "{what} does not learn: its hypergradient is zero",
    "trust_region": "the change of {what} is cut to its trust region",
    "bound": "{what} is held at the end of its range",
    "cap": "the candidate carries {what} at its cap",
}


class Interventions:
    """The record of a search.

    Args:
        say: Where the first of every kind upon everything is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, intervention: Intervention, step: int) -> None:
        kind, what = intervention
        self._counts[kind, what] += 1
        if self._counts[kind, what] == 1 and kind in SENTENCES:
            self._say(f"step {step}: {SENTENCES[kind].format(what=what)}")

    def by_kind(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (kind, _), count in self._counts.items():
            counts[kind] += count
        return dict(sorted(counts.items()))

    def in_words(self) -> str:
        """``loss_jump 2 (weights), bound 31 (dropout, mixing)``, or ``none``."""
        parts = []
        for kind, count in self.by_kind().items():
            upon = sorted(what for one, what in self._counts if one == kind)
            parts.append(f"{kind} {count} ({', '.join(upon)})")
        return ", ".join(parts) or "none"

    def state_dict(self) -> dict[str, Any]:
        return {"counts": [[kind, what, count] for (kind, what), count in self._counts.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts = Counter({(kind, what): count for kind, what, count in state["counts"]})
