"""The gradient search from several starts: short searches first, then the long one from the best pair they found.

A learned learning rate and the architecture that likes it depend on where the learning rate started. Every short search
begins with the same weights and sees the same batches, so that only the start tells them apart; the one whose supernet
ends with the lowest validation loss hands its alpha and its hyperparameters on. The long search starts from these with
fresh weights.

The loss is measured with each batch's own statistics. After few steps the running averages of batch norm lag behind,
the further the faster the weights have moved: after 30 steps on the digits they give twice the loss at a learning rate
of 0.1, and up to 3.5 times at 0.3.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from nas.errors import InvalidValue, require
from nas.evaluation.budget import Budget
from nas.evaluation.evaluation import Cost
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.hyperparameters.collection import HyperparameterSet
from nas.search.discretisation import Strongest
from nas.search.gradient_search import GradientSearch
from nas.search.guard import SearchDiverged
from nas.search.parts import SearchParts
from nas.search.result import SearchResult
from nas.stopping import Stopped

log = logging.getLogger(__name__)


class MultiStart:
    """Short searches in ``starts/0``, ``starts/1``, ... of the run folder, then the long one in the folder itself.

    Args:
        starts: Initial values of learned hyperparameters, by name, one group per start; what a group does not name
            starts as configured.
        start_epochs: Length of a short search.
        parts: The pieces of every search; the budget is that of all together.
    """

    data_parallel = begins_with_another = False

    def __init__(self, starts: Sequence[Mapping[str, float]], start_epochs: int, *, parts: SearchParts) -> None:
        require(len(starts) >= 2, "starts", len(starts), "it must hold two starts or more")
        require(start_epochs >= 1, "start_epochs", start_epochs, "it must be at least 1")
        self.parts = parts
        self.hyperparameters = [
            started_at(parts.hyperparameters, start, f"starts[{k}]") for k, start in enumerate(starts)
        ]
        warmup = min(parts.search.warmup_epochs, start_epochs - 1)
        self.short = replace(parts.search, epochs=start_epochs, warmup_epochs=warmup)
        self.long = GradientSearch(parts)

    def search(self) -> SearchResult:
        spent, seconds = Cost(), 0.0
        losses: list[float] = []
        best: GradientSearch | None = None
        for number in range(len(self.hyperparameters)):
            short = self._short_search(number)
            left = self.parts.budget.without(spent)
            comparing = Cost.of_passes(short.meter.per_image, 0, short.meter.validation_images)
            if left is None or not left.allows(short.meter.least() + comparing + self.long.meter.least()):
                log.info(f"the budget is too small for start {number} and those after it")
                break
            loss = self._loss(short)
            spent, seconds = spent + short.meter.spent, seconds + short.meter.seconds
            if loss < min(losses, default=math.inf):
                best = short
            losses.append(loss)
            values = {name: short.trajectory.tail_average()[name] for name in short.hyperparameters.learned()}
            told = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            log.info(f"start {number}: supernet's validation loss {loss:.4g}, {told}")
        self.long.meter.budget = self.parts.budget.without(spent) or self.parts.budget
        if best is not None:
            self._take_over(best)
        found = self.long.search()
        remarks = {**found.remarks, "validation loss by start": ", ".join(f"{loss:.4g}" for loss in losses)}
        return found.having_cost(found.cost + spent, found.seconds + seconds, remarks=remarks)

    def _short_search(self, number: int) -> GradientSearch:
        parts = replace(
            self.parts,
            hyperparameters=self.hyperparameters[number],
            search=self.short,
            relaxation=copy.copy(self.parts.relaxation),
            randomness=self.long.randomness.branch("starts"),
            folder=self.parts.folder.below("starts", str(number)),
            discretisation=Strongest(),
            shrinking=None,  # they only try values out, to their last epoch
            stopping=None,
            budget=Budget(),
            draw=None,
        )
        return GradientSearch(parts)

    def _loss(self, short: GradientSearch) -> float:
        """Run a short search. Returns its supernet's validation loss; infinite where it has diverged."""
        try:
            short.search()
        except Stopped as stop:
            raise Stopped(stop.step, self.parts.folder.path) from stop
        except SearchDiverged as error:
            log.info(f"this start is given up: {error}")
            return math.inf
        short.meter.count_forward(short.meter.validation_images)
        weights = relaxed_weights(short.supernet)
        loss = supernet_metrics(short.supernet, short.reader.batches(), weights, self.parts.task)["loss"]
        return loss if math.isfinite(loss) else math.inf

    @torch.no_grad()
    def _take_over(self, best: GradientSearch) -> None:
        """Let the long search begin with the alpha and the hyperparameters of ``best``."""
        for name, alpha in self.long.supernet.alpha.items():
            alpha.copy_(best.supernet.alpha[name])
        values = best.trajectory.tail_average()
        for name in self.long.hyperparameters.learned():
            self.long.hyperparameters.set_value(name, values[name])


def started_at(hyperparameters: HyperparameterSet, start: Mapping[str, float], key: str) -> HyperparameterSet:
    """``hyperparameters`` with other initial values and update rules that remember nothing.

    Raises:
        InvalidValue: A name is not that of a learned hyperparameter, or its value is out of its range.
    """
    learned = hyperparameters.learned()
    for name, value in start.items():
        require(name in learned, f"{key}.{name}", value, f"it must be one that is learned: {', '.join(learned)}")
    entries = {}
    for name, entry in hyperparameters.entries.items():
        update = copy.copy(entry.update)
        if update is not None:
            update.load_state_dict({})
        try:
            entries[name] = replace(entry, initial=start.get(name, entry.initial), update=update)
        except InvalidValue as error:
            raise InvalidValue(f"{key}.{name}", error.value, error.allowed) from error
    return HyperparameterSet(entries)
