"""What was learned over time: every step's hyperparameters, every epoch's architecture, and whether they settled."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nas.candidate import Architecture, Hyperparameters
from nas.hyperparameters.collection import HyperparameterSet
from nas.run.checkpoint import write_atomically
from nas.search.callback import Callback, SeenStep

RECORDED_POINTS = 50  # of a trajectory in a candidate's file
NOTHING_LEARNED = 0.95  # a validation loss above this share of the untrained supernet's says so
SETTLED_PLACE = 0.1  # of the range: how far a value on a logit or linear scale may still move


def too_early(count: int, what: str) -> str:
    """``too early to tell, 2 epochs``."""
    return f"too early to tell, {count} {what}{'' if count == 1 else 's'}"


class Trajectory(Callback):
    """The record from which a candidate's hyperparameters are averaged."""

    def __init__(self, hyperparameters: HyperparameterSet) -> None:
        self._hyperparameters = hyperparameters
        self._values: list[list[float]] = []  # one row per step, one column per learned hyperparameter
        self._architectures: list[dict[str, str]] = []  # one per epoch
        self._epoch_ends: list[int] = []  # in steps

    def _present(self) -> list[float]:
        numbers = self._hyperparameters.numbers()
        return [numbers[name] for name in self._hyperparameters.learned()]

    def on_step(self, seen: SeenStep) -> None:
        self._values.append([seen.hyperparameters[name] for name in self._hyperparameters.learned()])

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        """End an epoch; without a step since :meth:`forget` it is none."""
        if len(self._values) > (self._epoch_ends[-1] if self._epoch_ends else 0):
            self._architectures.append(dict(preferred))
            self._epoch_ends.append(len(self._values))

    def forget(self) -> None:
        self._values.clear()
        self._architectures.clear()
        self._epoch_ends.clear()

    def _averages(self, rows: Sequence[Sequence[float]]) -> dict[str, float]:
        columns = torch.tensor(rows, dtype=torch.float64).unbind(1)  # (steps,) each
        entries = self._hyperparameters.entries
        return {
            name: entries[name].average(column)
            for name, column in zip(self._hyperparameters.learned(), columns, strict=True)
        }

    def tail_average(self) -> Hyperparameters:
        """Averages over the last half of the steps, within the caps; a hyperparameter not learned keeps its value.

        Before the first step they are the present values: where a restart has put them, if there was one.
        """
        rows = self._values[len(self._values) // 2 :] or [self._present()]
        values = self._hyperparameters.fixed() | self._averages(rows)
        return Hyperparameters({name: values[name] for name in self._hyperparameters.entries if name in values})

    def recorded(self, points: int = RECORDED_POINTS) -> dict[str, list[float]]:
        """The values of every learned hyperparameter in at most ``points`` averages of equally many steps each, within
        the caps and to six digits; empty before the first step."""
        steps = len(self._values)
        ends = [steps * (place + 1) // min(points, steps) for place in range(min(points, steps))]
        averages = [self._averages(self._values[first:last]) for first, last in zip([0, *ends], ends, strict=False)]
        names = self._hyperparameters.learned() if averages else []
        return {name: [float(f"{average[name]:.6g}") for average in averages] for name in names}

    def table(self, last_step: int) -> str:
        """Every step's values as CSV, the newest being those of ``last_step``."""
        first = last_step - len(self._values) + 1
        lines = [",".join(("step", *self._hyperparameters.learned()))]
        lines += [",".join((str(first + row), *map(repr, values))) for row, values in enumerate(self._values)]
        return "\n".join(lines) + "\n"

    def write(self, path: Path, last_step: int) -> None:
        """Write :meth:`table` to ``path``."""
        write_atomically(path, self.table(last_step).encode())

    def capped(self) -> list[str]:
        """Whose average over the last half is above its cap."""
        rows = torch.tensor(self._values[len(self._values) // 2 :], dtype=torch.float64)
        return [
            name
            for index, name in enumerate(self._hyperparameters.learned())
            if len(rows) and self._hyperparameters.entries[name].exceeds_cap(rows[:, index])
        ]

    def settled(self, epochs: int, ratio: float, every: int = 1, handed_on: bool = False) -> dict[str, str | None]:
        """Per decision, the architecture and every learned hyperparameter: None, or why it has not settled.

        The architecture has settled where no choice changed in the last ``epochs``. A hyperparameter has settled where
        its means over these epochs stayed within ``ratio`` (on a log scale) or within a tenth of its range (on others),
        and where it could have moved further than that: its update rule's rate, times its moves.

        Args:
            epochs: How many epochs count.
            ratio: The largest mean over the smallest.
            every: Steps from one move of the hyperparameters to the next.
            handed_on: Whether the means are those that a candidate would carry at the end of each of these epochs: over
                the last half of the steps until then, not over the epoch.
        """
        learned = self._hyperparameters.learned()
        result: dict[str, str | None] = dict.fromkeys(("architecture", *learned))
        if len(self._epoch_ends) < epochs:
            few = f"{too_early(len(self._epoch_ends), 'epoch')} of {epochs}"
            return dict.fromkeys(result, few)
        recent = self._architectures[-epochs:]
        if changed := sorted({choice for one in recent for choice in one if one[choice] != recent[0].get(choice)}):
            shown = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
            result["architecture"] = f"{shown} changed in the last {epochs} epochs"
        starts = [0, *self._epoch_ends][-epochs - 1 : -1]
        spans = list(zip(starts, self._epoch_ends[-epochs:], strict=True))
        if handed_on:
            spans = [(end // 2, end) for _, end in spans]
        averages = [self._averages(self._values[first:last]) for first, last in spans]
        moves = (self._epoch_ends[-1] - starts[0]) // every
        for name in learned:
            entry = self._hyperparameters.entries[name]
            means = [average[name] for average in averages]
            moved, allowed = max(means) - min(means), SETTLED_PLACE * (entry.high - entry.low)
            if entry.scale == "log":
                moved, allowed = math.log(max(means) / min(means)), math.log(ratio)
            if moved > allowed:
                span = f"from {means[0]:.3g} to {means[-1]:.3g}"
                result[name] = f"moved {span} in the last {epochs} epochs"
            elif entry.update is not None and moves * entry.update.rate < entry.raw_length(allowed):
                result[name] = too_early(moves, "move")
        return result

    def state_dict(self) -> dict[str, Any]:
        return {
            "values": torch.tensor(self._values, dtype=torch.float64),
            "architectures": self._architectures,
            "epoch_ends": self._epoch_ends,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        values: Sequence[list[float]] = state["values"].tolist()
        self._values = list(values)
        self._architectures = list(state["architectures"])
        self._epoch_ends = list(state["epoch_ends"])


def nothing_learned(loss: float, untrained: float) -> str | None:
    """Why a validation loss of ``loss`` says that the supernet has learned nothing, or None."""
    told = f"nothing was learned: validation loss {loss:.3g}, {untrained:.3g} untrained"
    return told if loss > NOTHING_LEARNED * untrained else None
