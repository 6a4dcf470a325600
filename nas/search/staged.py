"""The search in stages (P-DARTS, Chen et al., 2019): a deeper search network in each, and fewer options to choose from.

Weights and alpha begin anew in every stage. What a stage's alpha likes least is not built in the next one, which makes
room for more cells.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.candidate import Architecture
from nas.errors import require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost
from nas.operations.skip_dropout import SkipDropout, add_skip_dropouts
from nas.search.callback import Callback
from nas.search.discretisation import Strongest, decided_rows
from nas.search.gradient_search import GradientSearch
from nas.search.multi_start import started_at
from nas.search.parts import SearchParts, built_meter
from nas.search.result import SearchResult
from nas.spaces.space import SearchSpace
from nas.stopping import Stopped

log = logging.getLogger(__name__)
FADING = 0.2  # per epoch, of the dropout once alpha moves


class Staged:
    """Gradient searches one after the other, in ``stages/0``, ``stages/1``, ... of the run folder, the last in itself.

    Each has ``search.epochs`` and an equal share of the budget. Learned hyperparameters go on from stage to stage.

    Args:
        further_cells: By how many cells the search network of each further stage is deeper than ``space.cells``.
        keep: How many options each further stage has in every row of alpha.
        skip_dropout: The dropout behind skip connections at the beginning of each stage, the first one's included. It
            falls linearly while alpha rests, and then exponentially.
        parts: The pieces of every search.
    """

    data_parallel = begins_with_another = False

    def __init__(
        self,
        further_cells: Sequence[int],
        keep: Sequence[int],
        skip_dropout: Sequence[float],
        *,
        parts: SearchParts,
    ) -> None:
        require(len(keep) >= 1, "keep", list(keep), "it must have a number for each further stage, one or more")
        good = all(number >= 2 for number in keep)
        require(good, "keep", list(keep), "each must be at least 2: with one, nothing is left to choose")
        good = len(further_cells) == len(keep) and all(number >= 0 for number in further_cells)
        allowed = f"it must have {len(keep)} whole numbers of at least 0, as many as keep"
        require(good, "further_cells", list(further_cells), allowed)
        good = len(skip_dropout) == len(keep) + 1 and all(0 <= rate < 1 for rate in skip_dropout)
        allowed = f"it must have {len(keep) + 1} rates from 0 to below 1, one for each stage"
        require(good, "skip_dropout", list(skip_dropout), allowed)
        self.parts, self.keep, self.skip_dropout = parts, tuple(keep), tuple(skip_dropout)
        self.further_cells = (0, *further_cells)
        self.first = self._stage(0, parts.space, {})
        rows = {row: options for row, options in _rows(self.first).items() if row in decided_rows(parts.space)}
        for number, kept in enumerate(self.keep, start=1):
            fewest = min(len(options) for options in rows.values())
            allowed = f"each must be below the one before, and below the {fewest} options that there are"
            require(kept < fewest, "keep", list(keep), allowed)
            rows = {row: options[:kept] for row, options in rows.items()}
            some = parts.space.narrowed(rows, self.further_cells[number])
            built_meter(replace(parts, space=some, budget=self._budget()), 0, len(parts.splits.validation))

    def search(self) -> SearchResult:
        spent, seconds = Cost(), 0.0
        search = self.first
        for number, kept in enumerate(self.keep):
            found = self._searched(search)
            spent, seconds = spent + found.cost, seconds + found.seconds
            options = kept_options(search.supernet.probabilities(), kept)
            space = self.parts.space.narrowed(options, self.further_cells[number + 1])
            log.info(
                f"stage {number + 1} is done: {kept} options go on, in a network of {self._cells(number + 1)} cells"
            )
            search = self._stage(number + 1, space, search.trajectory.tail_average())
        found = self._searched(search)
        stages = [f"{self._cells(number)} cells" for number in range(len(self.keep) + 1)]
        remarks = {**found.remarks, "stages": ", ".join(stages)}
        return found.having_cost(found.cost + spent, found.seconds + seconds, remarks=remarks)

    def _searched(self, search: GradientSearch) -> SearchResult:
        try:
            return search.search()
        except Stopped as stop:
            raise Stopped(stop.step, self.parts.folder.path) from stop

    def _stage(self, number: int, space: SearchSpace, values: Mapping[str, float]) -> GradientSearch:
        """The search of a stage, whose learned hyperparameters begin with ``values``."""
        parts, last = self.parts, number == len(self.keep)
        learned = {name: value for name, value in values.items() if name in parts.hyperparameters.learned()}
        own = replace(
            parts,
            space=space,
            hyperparameters=started_at(parts.hyperparameters, learned, "hyperparameters"),
            relaxation=copy.copy(parts.relaxation),
            randomness=parts.randomness.branch(f"stage {number}"),
            folder=parts.folder if last else parts.folder.below("stages", str(number)),
            discretisation=parts.discretisation if last else Strongest(),
            budget=self._budget(),
            draw=parts.draw if last else None,
        )
        search = GradientSearch(own)
        if self.skip_dropout[number]:
            search.callbacks["skip dropout"] = FadingSkipDropout(self.skip_dropout[number], search)
        return search

    def _budget(self) -> Budget:
        """A stage's share."""
        stages, limits = len(self.keep) + 1, self.parts.budget.limits()
        shares: dict[str, Any] = {name: limit / stages for name, limit in limits.items()}
        return Budget(**shares)

    def _cells(self, number: int) -> Any:
        return getattr(self.parts.space, "cells", 0) + self.further_cells[number]


class FadingSkipDropout(Callback):
    """Sets the dropout behind skip connections, epoch by epoch.

    ``rate (E - e - 1) / E`` in epoch e of E while alpha rests, and ``rate exp(-0.2 (e - w))`` after these w epochs.
    """

    def __init__(self, rate: float, search: GradientSearch) -> None:
        self.rate, self.epochs, self.rests = rate, search.settings.epochs, search.settings.warmup_epochs
        self.layers: list[SkipDropout] = add_skip_dropouts(search.supernet)
        for layer in self.layers:
            layer.generator = search.randomness.on_device("dropout")
        self._begin(0)

    def at(self, epoch: int) -> float:
        if epoch < self.rests:
            return self.rate * (self.epochs - epoch - 1) / self.epochs
        return self.rate * math.exp(-FADING * (epoch - self.rests))

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        for layer in self.layers:
            layer.rate = self.at(epoch)

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        self._begin(epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._begin(state["epoch"])


def _rows(search: GradientSearch) -> dict[str, tuple[str, ...]]:
    supernet = search.supernet
    return {row: options for name in supernet.alpha for row, options in supernet.alpha_rows(name)}


def kept_options(probabilities: Mapping[str, Mapping[str, float]], keep: int) -> dict[str, tuple[str, ...]]:
    """Per row of alpha the ``keep`` most probable options, in their order; of equals the first go."""
    kept = {}
    for row, options in probabilities.items():
        gone = sorted(options, key=options.__getitem__)[: len(options) - keep]
        kept[row] = tuple(option for option in options if option not in gone)
    return kept
