"""All hyperparameters of a search in one module, and the optimiser that moves them along their gradients.

What has to be held back is told as an intervention:

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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.candidate import Range
from nas.errors import InvalidValue, require
from nas.hyperparameters.kinds import Hyperparameter, Kind
from nas.hyperparameters.relations import Relation, applied

SILENT_STEPS = 20  # after so many with a gradient of zero, a hyperparameter counts as not learning


class Intervention(NamedTuple):
    """A ``kind`` of the table above; ``what`` is a hyperparameter's name, ``architecture`` or ``weights``."""

    kind: str
    what: str


class HyperparameterSet(nn.Module):
    """All hyperparameters of a search: the raw parameters of the learned ones, the fixed values of the others.

    Args:
        entries: By name.
        relations: By any name, what learned ones have to do with each other; null takes one away.

    Attributes:
        progress: The share of the search that is done, 0 to 1.
    """

    progress = 1.0

    def __init__(
        self, entries: Mapping[str, Hyperparameter], relations: Mapping[str, Relation | None] | None = None
    ) -> None:
        super().__init__()
        for name in ("learning_rate", "weight_decay"):
            require(name in entries, name, None, "every search needs it")
        for name, entry in entries.items():
            if not isinstance(entry, Hyperparameter):
                raise InvalidValue(name, entry, "it must be a hyperparameter with a _target_")
            known = f"{type(entry).__name__} must be called {' or '.join(entry.names)}, the training loop's name for it"
            require(not entry.names or name in entry.names, name, type(entry).__name__, known)
        self.entries = dict(entries)
        self.relations = applied(relations or {}, entries)
        self.raw = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(entry.raw(entry.initial), dtype=torch.float64))
                for name, entry in entries.items()
                if entry.moves
            }
        )

    def learned(self) -> list[str]:
        """The names of those that the hypergradient moves; what trainings learn (``by``) is not among them."""
        return list(self.raw.keys())

    def learned_kinds(self) -> list[Kind]:
        return [self.entries[name].kind for name in self.raw]

    def candidate_ranges(self) -> dict[str, Range]:
        """Where a candidate's values of the learned ones may lie: up to their cap. In alphabetical order."""
        ranges: dict[str, Range] = {}
        for name in sorted(name for name, entry in self.entries.items() if entry.learn):
            entry = self.entries[name]
            ranges[name] = Range(entry.low, entry.high if entry.cap is None else entry.cap, entry.scale)
        return ranges

    def raw_parameters(self) -> list[nn.Parameter]:
        return list(self.raw.values())

    def named_raw(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.raw.items())

    def acting_through_loss(self) -> list[nn.Parameter]:
        return [self.raw[name] for name in self.raw if self.entries[name].acts_through_loss]

    def values(self, raw: Mapping[str, Tensor] | None = None) -> dict[str, Tensor | float]:
        """Learned ones as tensors in the graph of their raw parameter, the others as numbers.

        Args:
            raw: What stands in for the raw parameters, by name.
        """
        raw = dict(self.raw.items()) if raw is None else raw
        return {
            name: entry.value(raw[name]) if name in raw else entry.fixed_value(self.progress)
            for name, entry in self.entries.items()
        }

    @torch.no_grad()
    def loss_values(self) -> dict[str, Tensor | float]:
        """Those of :meth:`values` that act through the training loss, outside the graph: for a plain weight step.

        What is learned stays a tensor, so that its mask is as relaxed as what the hypergradient differentiates.
        """
        return {
            name: entry.value(self.raw[name]) if name in self.raw else entry.fixed_value(self.progress)
            for name, entry in self.entries.items()
            if entry.acts_through_loss
        }

    def fixed(self) -> dict[str, float]:
        """The initial values of those that no hypergradient moves.

        Left out is what is not learned and has no effect at its value (:attr:`Hyperparameter.neutral`).
        """
        return {
            name: entry.initial
            for name, entry in self.entries.items()
            if not entry.moves and (entry.learn or entry.initial != entry.neutral)
        }

    def initial(self) -> dict[str, float]:
        """The values at the start, as a candidate would carry them: without what :meth:`fixed` leaves out."""
        learned = {name: self.entries[name].initial for name in self.raw}
        return {**learned, **self.fixed()}

    def require_effect_on(self, network: nn.Module) -> None:
        """Refuse to learn what nothing in ``network`` depends on.

        Raises:
            InvalidValue: The key is ``<name>.learn``.
        """
        for name in self.raw:
            acts, allowed = self.entries[name].acts_on(network), "the supernet has nothing that it acts on, such as a"
            require(acts, f"{name}.learn", True, f"{allowed} layer of nas.operations.stochastic; take false")

    @torch.no_grad()
    def numbers(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.values().items()}

    @torch.no_grad()
    def set_value(self, name: str, value: float) -> None:
        """Move a learned hyperparameter to ``value``, clamped to its range."""
        entry = self.entries[name]
        raw = entry.raw(min(max(value, entry.low), entry.high))
        self.raw[name].copy_(torch.tensor(raw, dtype=torch.float64))

    def bind(self, network: nn.Module, values: Mapping[str, Tensor | float]) -> None:
        """Make ``network`` compute with those of ``values`` that act through its loss."""
        for name, entry in self.entries.items():
            if entry.acts_through_loss:
                entry.bind(network, values[name])


class HyperparameterOptimiser:
    """Moves every learned hyperparameter by its own rule, back into its bounds, and then what is related."""

    def __init__(self, hyperparameters: HyperparameterSet) -> None:
        self.hyperparameters = hyperparameters
        self._silent: dict[str, int] = {}  # for how many steps a hyperparameter's gradient has been zero

    def step(self, norm_products: Mapping[nn.Parameter, float]) -> tuple[dict[str, float], list[Intervention]]:
        """Move those raw parameters that have a gradient, which is then dropped.

        Args:
            norm_products: By raw parameter, see :meth:`nas.hyperparameters.rules.Update.step`.

        Returns:
            The gradients' sizes by name, and what had to be held back.
        """
        norms: dict[str, float] = {}
        interventions: list[Intervention] = []
        relations = [one for one in self.hyperparameters.relations if self._have_gradients(one.related)]
        noted = [one.before(dict(self.hyperparameters.named_raw())) for one in relations]
        for name, raw in self.hyperparameters.named_raw():
            entry = self.hyperparameters.entries[name]
            if raw.grad is None or entry.update is None:
                continue
            norms[name], before = float(raw.grad.abs().max()), raw.detach().clone()
            if math.isfinite(norms[name]):
                entry.update.step(raw, norm_products[raw])
                interventions.extend(Intervention(kind, name) for kind in entry.project(raw, before))
            raw.grad = None
            self._silent[name] = self._silent.get(name, 0) + 1 if norms[name] == 0 else 0
            if self._silent[name] == SILENT_STEPS:
                interventions.append(Intervention("gradient_silent", name))
        for relation, own in zip(relations, noted, strict=True):
            relation.after(dict(self.hyperparameters.named_raw()), own)
        return norms, interventions

    def _have_gradients(self, names: Sequence[str]) -> bool:
        return all(self.hyperparameters.raw[name].grad is not None for name in names)

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
