"""What a gradient search tells of itself: the epoch's means, the curves in TensorBoard, the console's lines."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from nas.candidate import Architecture
from nas.evaluation.budget import CostMeter
from nas.evaluation.evaluation import Cost
from nas.operations.memory import logits_of
from nas.run.loop import Session
from nas.search.callback import Callback, SeenStep
from nas.search.guard import Guard, Interventions
from nas.search.parts import SearchParts
from nas.spaces.supernet import Supernet
from nas.training.metrics import RunningMeans


class SearchRecord(Callback):
    """The record of a search whose ``meter``, ``guard`` and ``interventions`` it reads.

    Where alpha moves only every so many steps, the validation loss recorded is that of its last one.

    Attributes:
        means: The present epoch's.
        last_means: The means of the last epoch that has ended, and what was measured after the last one.
    """

    def __init__(
        self, parts: SearchParts, supernet: Supernet, meter: CostMeter, guard: Guard, interventions: Interventions
    ) -> None:
        self.supernet, self.meter, self.guard, self.interventions = supernet, meter, guard, interventions
        self.hyperparameters, self._task, self._ranks = parts.hyperparameters, parts.task, parts.randomness.ranks
        self._log_every, self._epochs = parts.tracking.log_every, parts.search.epochs
        self._architecture_every = parts.search.architecture_every
        self._draw = parts.draw if parts.tracking.tensorboard and self._ranks.is_first else None
        self._drawn: Architecture | None = None
        self.means = RunningMeans()
        self.last_means: dict[str, float] = {}

    def open(self, session: Session) -> None:
        self._tracker, self._progress = session.tracker, session.progress

    def on_step(self, seen: SeenStep) -> None:
        weight_step, upper_step = seen.outcome.weight_step, seen.outcome.upper_step
        if upper_step is not None and seen.validation is not None:
            for name, value in upper_step.gradient_norms.items():
                self.means.add(f"gradient/{name}", value)
            self.means.add("validation/loss", upper_step.report.validation_loss)
            glance = self._task.glance(logits_of(upper_step.report.validation_logits), seen.validation.targets)
            self.means.add(f"validation/{self._task.glanced}", self._ranks.average([glance])[0])
        assert weight_step.norm is not None
        self.means.add("gradient/weights", weight_step.norm)
        self.means.add("train/loss", weight_step.loss)
        glance = self._task.glance(logits_of(weight_step.logits), seen.training.targets)
        self.means.add(f"train/{self._task.glanced}", self._ranks.average([glance])[0])
        behind = seen.step % self._log_every
        if upper_step is not None and behind > self._log_every - self._architecture_every:
            self._tracker.scalars({"step/validation_loss": upper_step.report.validation_loss}, seen.step, seen.epoch)
        if behind == 0:
            scalars: dict[str, Tensor | float] = {"step/training_loss": weight_step.loss}
            if upper_step is not None:
                scalars["step/validation_loss"] = upper_step.report.validation_loss
            scalars |= {f"hyperparameters/{name}": value for name, value in seen.hyperparameters.items()}
            self._tracker.scalars(scalars, seen.step, seen.epoch)
        learned = {name: seen.hyperparameters[name] for name in self.hyperparameters.learned()}
        self._progress.update(seen.step, loss=seen.numbers["the training loss"], **learned)

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        tracker = self._tracker
        means = self.last_means = self.means.means()
        self.means.clear()
        tracker.scalars(means, step, epoch)
        for decision, options in self.supernet.probabilities().items():
            tracker.scalars({f"probability/{decision}/{name}": share for name, share in options.items()}, step, epoch)
            tracker.scalar(f"entropy/{decision}", normalised_entropy(options.values()), step, epoch)
        for name, value in self.supernet.scheduled().items():
            tracker.scalar(f"schedule/{name}", value, step, epoch)
        self.tell_spent(self.meter.spent, step, epoch)
        tracker.scalar("guard/restarts", float(self.guard.restarts), step, epoch)
        self.tell_interventions(step, epoch)
        if self._draw is not None and preferred != self._drawn:
            self._drawn = preferred
            tracker.figure("architecture/over time", self._draw(preferred), step)

        seconds, samples_per_second = self.meter.end_epoch()
        tracker.timing("time/epoch_seconds", seconds, step, epoch)
        tracker.timing("time/total_seconds", self.meter.seconds, step, epoch)
        tracker.timing("throughput/samples_per_second", samples_per_second, step, epoch)

        numbers = self.hyperparameters.numbers()
        parts = [f"epoch {epoch + 1:>3}/{self._epochs}"]
        told = sorted(means, key=lambda tag: tag.partition("/")[0])  # the same columns in every epoch
        parts += [f"{tag} {means[tag]:z.4f}" for tag in told if not tag.startswith("gradient/")]
        parts += [f"{name} {numbers[name]:.3g}" for name in self.hyperparameters.learned()]
        self._progress.epoch_line("  ".join(parts))

    def forget(self) -> None:
        self.means.clear()

    def tell_restart(self, step: int, epoch: int) -> None:
        self._tracker.scalar("guard/restart", float(self.guard.restarts), step, epoch)

    def tell(self, scalars: dict[str, float], step: int, epoch: int) -> None:
        self._tracker.scalars(scalars, step, epoch)

    def tell_end(self, measured: dict[str, float], step: int, epoch: int) -> None:
        """Add what was measured of the finished supernet."""
        self.last_means |= measured
        self._tracker.scalars(measured, step, epoch)
        self.tell_spent(self.meter.spent, step, epoch)
        self.tell_interventions(step, epoch)

    def tell_spent(self, spent: Cost, step: int, epoch: int) -> None:
        scalars = {"budget/samples": float(spent.samples), "budget/multiply_adds": spent.multiply_adds}
        self._tracker.scalars(scalars, step, epoch)

    def tell_interventions(self, step: int, epoch: int) -> None:
        counts = self.interventions.by_kind().items()
        self._tracker.scalars({f"intervention/{kind}": float(count) for kind, count in counts}, step, epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means.state_dict(), "last_means": self.last_means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means.load_state_dict(state["means"])
        self.last_means = state["last_means"]


def normalised_entropy(probabilities: Iterable[float]) -> float:
    """The entropy as a share of its largest value: 1 where nothing is decided, 0 where all is."""
    values = list(probabilities)
    if len(values) < 2:
        return 0.0
    return -sum(p * math.log(p) for p in values if p > 0) / math.log(len(values))
