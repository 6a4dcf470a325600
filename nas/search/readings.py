"""Has the architecture settled that is handed on? What the discretisation reads off at the end of the last epochs.

Alpha need not tell: the next layer's weights undo what a gate does, so that the alphas of widths wander for good, while
the losses of the options tell them clearly apart. So the supernet is asked what decides at the end.

Shared weights exaggerate: an option that they have not been trained for alone, and that is worth a few per cent of a
trained network's loss, costs the supernet two to ten times its own. A quarter of it is less than one training can tell.
"""

import math
from collections.abc import Mapping, Set
from typing import Any

from torch import Tensor

from nas.candidate import Architecture
from nas.search.callback import Callback
from nas.search.convergence import too_early
from nas.search.parts import SearchParts
from nas.search.reader import CandidateReader

MOST_NAMED = 3
NOISE = 2.0  # standard errors within which nothing can be told apart


class Readings(Callback):
    """Reads the architecture off at the end of each of the last ``settled_epochs``; of every epoch where any may be the
    last.

    Args:
        parts: The pieces of the run.
        reader: Reads, and pays for it.
    """

    def __init__(self, parts: SearchParts, reader: CandidateReader) -> None:
        self.parts, self.settings, self.reader = parts, parts.search, reader
        self._taken: dict[int, dict[str, str]] = {}  # by step
        self._losses: dict[str, dict[str, Tensor]] = {}  # of the last one, a sample each

    @classmethod
    def of(cls, parts: SearchParts, reader: CandidateReader) -> "Readings | None":
        """None where alpha is to be judged, where the discretisation asks for no losses, and under a budget, which is
        for the search."""
        asked = parts.search.settled_by == "candidate" and parts.discretisation.asks_for_losses
        limited = parts.budget.limits().keys() - {"evaluations"}
        return cls(parts, reader) if asked and not limited else None

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        left = self.settings.epochs - epoch - 1
        may_end = self.settings.stop == "settled" or self.parts.stopping is not None
        due = may_end or 0 < left < self.settings.settled_epochs
        if due:
            self._note(step, self.reader.read_off(lambda batches: batches))

    def note(self, step: int) -> None:
        """Take what was read off at the end of the search, after ``step``, for the last reading."""
        if self.reader.chosen is not None:
            self._note(step, self.reader.chosen)

    def _note(self, step: int, read: Architecture) -> None:
        self._taken[step] = dict(read)
        self._losses = {choice: dict(own) for choice, own in self.parts.discretisation.losses.items()}

    def unsettled(self) -> str | None:
        """Why the architecture has not settled, or None.

        It has where no choice differs among the last readings, but between options of which it makes no difference
        which one is taken.
        """
        epochs = self.settings.settled_epochs
        recent = [self._taken[step] for step in sorted(self._taken)[-epochs:]]
        if len(recent) < epochs:
            return f"{too_early(len(recent), 'reading')} of {epochs}"
        options = {choice: {one[choice] for one in recent} for choice in recent[-1]}
        changed = sorted(choice for choice, taken in options.items() if len(taken) > 1 and self._matters(choice, taken))
        shown = ", ".join(changed[:MOST_NAMED]) + (", ..." if len(changed) > MOST_NAMED else "")
        return f"{shown} read off differently in the last {epochs} epochs" if changed else None

    def _matters(self, choice: str, options: Set[str]) -> bool:
        """Whether it makes a difference which of ``options`` is taken, as far as the last reading can tell.

        It makes none where another choice switches this one off, and where the mean losses differ by a share of
        ``settled_loss`` at most or by less than the noise of the samples asked: twice the standard error of the paired
        difference.
        """
        newest = self._taken[max(self._taken)]
        if not self.parts.space.acts(choice, newest):
            return False
        known = [losses for option, losses in self._losses.get(choice, {}).items() if option in options]
        if len(known) < len(options):
            return True
        best = min(known, key=lambda losses: float(losses.mean()))
        tolerance = self.settings.settled_loss * float(best.mean())
        return any(
            float(more.mean()) > max(tolerance, NOISE * float(more.std()) / math.sqrt(len(more)))
            for more in (losses - best for losses in known)
        )

    def forget(self) -> None:
        self._taken.clear()
        self._losses.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"taken": {step: dict(read) for step, read in self._taken.items()}, "losses": self._losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._taken = {int(step): dict(read) for step, read in state["taken"].items()}
        self._losses = {choice: dict(own) for choice, own in state["losses"].items()}
