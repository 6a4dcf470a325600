"""The moves of the raw hyperparameters along their gradients, and what has to be held back.

========================== ====================================================================================
kind                       what was done
========================== ====================================================================================
``gradient_not_finite``    alpha, or a hyperparameter, does not move: its hypergradient is not finite
``gradient_silent``        nothing is done: a hyperparameter's gradient has been zero for many steps
``trust_region``           a hyperparameter's change is cut to its trust region
``bound``                  a hyperparameter stays at the end of its range
========================== ====================================================================================
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from nas.hyperparameters.collection import HyperparameterSet

SILENT_STEPS = 20  # after so many with a gradient of zero, a hyperparameter counts as not learning


class Intervention(NamedTuple):
    """A ``kind`` of the table above; ``what`` is a hyperparameter's name, ``architecture`` or ``weights``."""

    kind: str
    what: str


class HyperparameterMoves:
    """Moves every learned hyperparameter by its own rule."""

    def __init__(self, hyperparameters: HyperparameterSet) -> None:
        self.hyperparameters = hyperparameters
        self._silent: dict[str, int] = {}  # for how many steps a hyperparameter's gradient has been zero

    def take(self, largest: Mapping[nn.Parameter, float]) -> tuple[dict[str, float], list[Intervention]]:
        """Move those raw parameters that have a gradient, which is then dropped.

        Args:
            largest: See :meth:`nas.hyperparameters.rules.Update.step`.

        Returns:
            The gradients' sizes by name, and what had to be held back.
        """
        norms: dict[str, float] = {}
        held: list[Intervention] = []
        for name, raw in self.hyperparameters.named_raw():
            entry = self.hyperparameters.entries[name]
            if raw.grad is None or entry.update is None:
                continue
            norms[name], before = abs(float(raw.grad)), raw.detach().clone()
            if math.isfinite(norms[name]):
                entry.update.step(raw, largest[raw])
                held.extend(Intervention(kind, name) for kind in entry.held(raw, before))
            raw.grad = None
            self._silent[name] = self._silent.get(name, 0) + 1 if norms[name] == 0 else 0
            if self._silent[name] == SILENT_STEPS:
                held.append(Intervention("gradient_silent", name))
        return norms, held

    def state_dict(self) -> dict[str, Any]:
        updates = {name: self.hyperparameters.entries[name].update for name in self.hyperparameters.learned()}
        return {
            "raw": {name: raw.detach().clone() for name, raw in self.hyperparameters.named_raw()},
            "updates": {name: update.state_dict() for name, update in updates.items() if update is not None},
            "silent": dict(self._silent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._silent = dict(state["silent"])
        for name, raw in self.hyperparameters.named_raw():
            raw.data.copy_(state["raw"][name])
            update = self.hyperparameters.entries[name].update
            if update is not None:
                update.load_state_dict(state["updates"][name])
