"""What a gradient search tells of itself: the epoch's means, the curves in TensorBoard, the console's lines."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from nas.bilevel.upper_level import Alternation
from nas.candidate import Architecture
from nas.data.batch import Batch
from nas.distributed import Ranks
from nas.evaluation.budget import CostMeter
from nas.evaluation.evaluation import Cost
from nas.hyperparameters.collection import HyperparameterSet
from nas.run.progress import Progress
from nas.run.tracking import Tracker
from nas.search.guard import Guard, Interventions
from nas.spaces.supernet import Supernet
from nas.training.metrics import RunningMeans, accuracy


class SearchRecord:
    """The record of a search whose ``meter``, ``guard`` and ``interventions`` it reads.

    Attributes:
        means: Of the present epoch.
        last_means: Of the last one that has ended, and what was measured after the last of all.
    """

    def __init__(
        self,
        supernet: Supernet,
        hyperparameters: HyperparameterSet,
        meter: CostMeter,
        guard: Guard,
        interventions: Interventions,
        ranks: Ranks,
        draw: Callable[[Architecture], Any] | None,
    ) -> None:
        self.supernet, self.hyperparameters = supernet, hyperparameters
        self.meter, self.guard, self.interventions = meter, guard, interventions
        self._ranks, self._draw = ranks, draw
        self._drawn: Architecture | None = None
        self.means = RunningMeans()
        self.last_means: dict[str, float] = {}

    def see(self, done: Alternation, batch: Batch, validation: Batch | None) -> None:
        """Add a step to the epoch's means."""
        outcome, (loss, logits, norm) = done.outcome, done.taken
        if outcome is not None and validation is not None:
            for name, value in outcome.gradient_norms.items():
                self.means.add(f"gradient/{name}", value)
            self.means.add("validation/loss", outcome.report.validation_loss)
            share = accuracy(outcome.report.validation_logits, validation.labels)
            self.means.add("validation/accuracy", self._ranks.average([share])[0])
        self.means.add("gradient/weights", norm)
        self.means.add("train/loss", loss)
        self.means.add("train/accuracy", self._ranks.average([accuracy(logits, batch.labels)])[0])

    def tell_step(
        self, tracker: Tracker, done: Alternation, numbers: Mapping[str, float], step: int, epoch: int
    ) -> None:
        """``numbers``: the hyperparameters after the step."""
        scalars: dict[str, Tensor | float] = {"step/training_loss": done.taken.loss}
        if done.outcome is not None:
            scalars["step/validation_loss"] = done.outcome.report.validation_loss
        scalars |= {f"hyperparameters/{name}": value for name, value in numbers.items()}
        tracker.scalars(scalars, step, epoch)

    def tell_epoch(
        self, tracker: Tracker, progress: Progress, preferred: Architecture, step: int, epoch: int, epochs: int
    ) -> None:
        """End an epoch, at whose end alpha prefers ``preferred``."""
        means = self.last_means = self.means.means()
        self.means.clear()
        tracker.scalars(means, step, epoch)
        for decision, options in self.supernet.probabilities().items():
            tracker.scalars({f"probability/{decision}/{name}": share for name, share in options.items()}, step, epoch)
            tracker.scalar(f"entropy/{decision}", normalised_entropy(options.values()), step, epoch)
        self.tell_spent(tracker, self.meter.spent, step, epoch)
        tracker.scalar("guard/restarts", float(self.guard.restarts), step, epoch)
        self.tell_interventions(tracker, step, epoch)
        if self._draw is not None and preferred != self._drawn:
            self._drawn = preferred
            tracker.figure("architecture/over time", self._draw(preferred), step)

        seconds, samples_per_second = self.meter.end_epoch()
        tracker.timing("time/epoch_seconds", seconds, step, epoch)
        tracker.timing("time/total_seconds", self.meter.seconds, step, epoch)
        tracker.timing("throughput/samples_per_second", samples_per_second, step, epoch)

        numbers = self.hyperparameters.numbers()
        parts = [f"epoch {epoch + 1:>3}/{epochs}"]
        parts += [f"{tag} {value:.4f}" for tag, value in means.items() if not tag.startswith("gradient/")]
        parts += [f"{name} {numbers[name]:.3g}" for name in self.hyperparameters.learned()]
        progress.epoch_line("  ".join(parts))

    def tell_spent(self, tracker: Tracker, spent: Cost, step: int, epoch: int) -> None:
        scalars = {"budget/samples": float(spent.samples), "budget/multiply_adds": spent.multiply_adds}
        tracker.scalars(scalars, step, epoch)

    def tell_interventions(self, tracker: Tracker, step: int, epoch: int) -> None:
        counts = self.interventions.by_kind().items()
        tracker.scalars({f"intervention/{kind}": float(count) for kind, count in counts}, step, epoch)


def normalised_entropy(probabilities: Iterable[float]) -> float:
    """The entropy as a share of its largest value: 1 where nothing is decided, 0 where all is."""
    values = list(probabilities)
    if len(values) < 2:
        return 0.0
    return -sum(p * math.log(p) for p in values if p > 0) / math.log(len(values))
