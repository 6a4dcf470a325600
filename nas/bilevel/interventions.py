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

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

SENTENCES = {
    "gradient_not_finite": "{what} stays: its hypergradient is not finite",
    "gradient_silent": "{what} does not learn: its hypergradient is zero",
    "trust_region": "the change of {what} is cut to its trust region",
    "bound": "{what} is held at the end of its range",
    "cap": "the candidate carries {what} at its cap",
}


class Intervention(NamedTuple):
    """Of a ``kind`` named above, upon ``what``: a hyperparameter's name, ``architecture`` or ``weights``."""

    kind: str
    what: str


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
