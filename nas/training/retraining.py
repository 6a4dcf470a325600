"""The ordinary training loop: a found network from fresh weights, with given hyperparameters."""

import importlib.util
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.data.batches import Batch, Stream, sharded
from nas.device.compilation import compile_regions, what_it_takes
from nas.device.cuda_graphs import cuda_graphed, recording_for
from nas.errors import require
from nas.hyperparameters.kinds import OF_THE_STEP
from nas.operations.memory import Outputs, Remembers, logits_of
from nas.operations.stochastic import set_drop_path, set_dropouts, set_noise_generator
from nas.operations.synchronised import average_running_statistics, synchronise_batch_norm
from nas.run.checkpoint import is_due
from nas.run.finiteness import ROLLBACK_DIVISOR, Watch
from nas.run.folder import RunFolder
from nas.run.loop import Loop, Session, Start
from nas.run.randomness import Randomness
from nas.run.tracking import Tracker, TrackingSettings
from nas.tasks import Task
from nas.training.augment import augmented
from nas.training.averaging import AveragedWeights
from nas.training.loss import training_loss
from nas.training.memory import carry
from nas.training.metrics import RunningMeans, measure
from nas.training.schedules import Schedule, recorded_value, schedule_factor
from nas.training.settings import TrainingSettings
from nas.training.sgd import set_step, take_step
from nas.training.weight_step import weight_optimiser

log = logging.getLogger(__name__)
ExportKind = Literal["onnx", "torch_export"]
NEEDED: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": ()}


def missing_packages(kind: str) -> list[str]:
    """The packages that ``kind`` needs and that are not installed."""
    return [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class FinalSettings:
    """How a found network is retrained.

    Args:
        epochs: Passes over the training and validation splits together.
        hyperparameters: ``learned`` takes the candidate's values under the schedule they were learned with;
            ``schedule`` lets them go the way they went in the search; ``fixed`` takes the configuration's initial ones.
        checkpoint: A file with weights to start from instead of fresh ones: ours, or the original code base's.
        label_smoothing: Smoothing of the cross-entropy's labels; null takes the hyperparameters'.
        auxiliary_weight: Weight of the auxiliary head's loss, where the network has one.
        drop_path_schedule: ``linear`` lets the drop-path rate rise from 0 over the epochs, as DARTS has it.
        checkpoint_every: Steps from one checkpoint to the next; see :func:`nas.run.checkpoint.is_due`.
        export: The kind of file that the trained network is also written to: ``onnx`` or ``torch_export``.
    """

    epochs: int
    hyperparameters: Literal["learned", "schedule", "fixed"]
    checkpoint: str | None
    label_smoothing: float | None
    auxiliary_weight: float
    drop_path_schedule: Literal["constant", "linear"]
    checkpoint_every: int
    export: ExportKind | None = None

    def __post_init__(self) -> None:
        lacking = [] if self.export is None else missing_packages(self.export)
        allowed = f"it needs {', '.join(lacking)}: pip install -e '.[export]'"
        require(not lacking, "export", self.export, allowed)
        require(self.epochs >= 0, "epochs", self.epochs, "it must be at least 0")
        good = self.label_smoothing is None or 0 <= self.label_smoothing < 1
        require(good, "label_smoothing", self.label_smoothing, "it must be null or a number from 0 to below 1")
        good = 0 <= self.auxiliary_weight < math.inf
        require(good, "auxiliary_weight", self.auxiliary_weight, "it must be at least 0")
        require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "it must be at least 1")


class Retraining:
    """Trains ``network`` in place.

    Args:
        hyperparameters: ``learning_rate`` and any other by its name in ``conf/hyperparameters``: ``weight_decay``,
            ``momentum``, ``dropout``, ``label_smoothing``, ...; what is absent is off.
        schedule, schedule_end: The learning rate's schedule that these values were learned with.
        recorded: What replaces some of them as the training goes on (``nas.training.schedules.recorded_value``).
        validation: The batches that averaging waits for, held out of the stream.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        task: Task,
        stream: Stream,
        hyperparameters: Mapping[str, float],
        schedule: Schedule,
        final: FinalSettings,
        training: TrainingSettings,
        tracking: TrackingSettings,
        randomness: Randomness,
        folder: RunFolder,
        schedule_end: float = 0.0,
        recorded: Mapping[str, Sequence[float]] | None = None,
        validation: Callable[[], Iterable[Batch]] | None = None,
    ) -> None:
        # Convolutions like the channels innermost, on CPUs as on GPUs.
        self.network = network.to(randomness.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task, self.ranks = task, randomness.ranks
        self.stream, self.schedule = sharded(stream, self.ranks), schedule
        self.final, self.training, self.tracking, self.schedule_end = final, training, tracking, schedule_end
        self.randomness, self.folder, self.validation = randomness, folder, validation
        randomness.seed_ranks_apart()
        if training.batch_norm == "synchronised":
            synchronise_batch_norm(network, self.ranks)
        self.hyperparameters, self.recorded = dict(hyperparameters), recorded or {}
        set_dropouts(network, hyperparameters)
        set_noise_generator(network, randomness.on_device("dropout"))
        self._augmentation = randomness.on_device("learned augmentation")
        self.optimiser = weight_optimiser(training, network.parameters())
        if training.compile:
            compile_regions(self.network)
        recording = recording_for(training.cuda_graphs, randomness.device, randomness.ranks)
        cuda_graphed(self, ("gradients",), recording, (randomness.on_device("dropout"), self._augmentation))
        self.averaging = AveragedWeights(self.optimiser) if training.averaging != "none" else None
        self._reached: list[nn.Parameter] = []  # by the loss: a path through a supernet leaves others out
        self.means = RunningMeans()
        self.step, self.seconds, self.rollbacks = 0, 0.0, 0
        self.watch = Watch()
        self._epoch_began = time.perf_counter()

    @property
    def total_steps(self) -> int:
        return self.final.epochs * self.stream.steps_per_epoch

    def train(self) -> None:
        """Run to the end, from the newest checkpoint if the run folder has one.

        Raises:
            Stopped: A signal asked to stop; the checkpoint is written.
            NotFinite: A loss or gradient is not, and ``training.on_non_finite`` does not help.
        """
        policy = self.training.on_non_finite
        advice = "lower the learning rate"
        self._loop = Loop(self, "retrain", self.folder, self.tracking, self.ranks, policy, advice, self.task)
        self._loop.run()

    def open_tracker(self) -> Tracker:
        """The run's record, opened again after :meth:`train` for the test's results."""
        return self._loop.open_tracker(self._loop.tracker_state)

    def begin(self, session: Session, start: Start) -> None:
        self._session = session
        self.network.train()
        if self.training.compile:
            log.info(what_it_takes())
        self._epoch_began = time.perf_counter()

    def advance(self) -> None:
        loss, rate = self._one_step()
        if self.step % self.tracking.log_every == 0:
            epoch = (self.step - 1) // self.stream.steps_per_epoch
            self._session.tracker.scalar("step/training_loss", loss, self.step, epoch)
            moving = {name: self.hyperparameters[name] for name in self.recorded} | {"learning_rate": rate}
            for name, value in moving.items():
                self._session.tracker.scalar(f"hyperparameters/{name}", value, self.step, epoch)
        self._session.progress.update(self.step)
        if self.step % self.stream.steps_per_epoch == 0:
            self._end_epoch()

    def finished(self) -> bool:
        return self.step >= self.total_steps

    def place(self) -> tuple[int, int]:
        return self.step, self.total_steps

    def due(self) -> bool:
        return is_due(self.step, self.final.checkpoint_every, self.stream.steps_per_epoch)

    def end(self) -> None:
        if self.averaging is not None:
            self.averaging.keep()

    def fit(self, until: int) -> None:
        """Train up to step ``until`` without a record of it, as the evaluation of a candidate does.

        Raises:
            NotFinite: A loss or gradient is not.
        """
        self.network.train()
        while self.step < until:
            self._one_step()
        self.watch.check()

    def _one_step(self) -> tuple[Tensor, float]:
        """Take a step. Returns its training loss and its learning rate."""
        progress = self.step / self.total_steps
        factor = schedule_factor(self.schedule, progress, self.schedule_end)
        self.hyperparameters |= {name: recorded_value(points, progress) for name, points in self.recorded.items()}
        if self.recorded:
            set_dropouts(self.network, self.hyperparameters)
        drop_path = self._set_drop_path()
        rate = self.hyperparameters["learning_rate"] * factor / ROLLBACK_DIVISOR**self.rollbacks
        batch = self.stream.next()
        rate *= self.task.rate_factor(batch.targets)
        set_step(self.optimiser, self.hyperparameters | {"learning_rate": rate})
        acting = {name: value for name, value in self.hyperparameters.items() if name not in OF_THE_STEP}
        loss, outputs, gradients = self.gradients(batch, acting | {"drop_path": drop_path})
        carry(self.stream, outputs)
        gradients = self.ranks.average(gradients)
        norm = take_step(self.optimiser, self._reached, gradients, self.training.gradient_clip)
        loss, glance = self.ranks.average([loss.clone(), self.task.glance(logits_of(outputs), batch.targets)])
        self.step += 1
        self.watch.look(self.step, {"the training loss": loss, "the gradient of the weights": norm})
        self.means.add("train/loss", loss)
        self.means.add(f"train/{self.task.glanced}", glance)
        if self.step % self.tracking.log_every == 0:
            self.watch.check()
        return loss, rate

    def gradients(self, batch: Batch, acting: Mapping[str, float]) -> tuple[Tensor, Outputs, list[Tensor]]:
        """The training loss, the outputs, and the gradients of the weights that the loss reaches, all detached.

        Args:
            acting: The hyperparameters that act in the pass; the network holds them already, a recording depends on
                them.
        """
        outputs, loss = self._loss(batch)
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        self._reached = [weight for weight, gradient in zip(weights, found, strict=True) if gradient is not None]
        return loss.detach(), outputs.detach(), [gradient for gradient in found if gradient is not None]

    def _loss(self, batch: Batch) -> tuple[Outputs, Tensor]:
        """The outputs and the training loss, that of an auxiliary head included."""
        shown = augmented(batch, self.hyperparameters, self._augmentation)
        values: Mapping[str, float] = self.hyperparameters
        if self.final.label_smoothing is not None:
            values = {**values, "label_smoothing": self.final.label_smoothing}
        with self.training.autocast(shown.inputs.device):
            if isinstance(self.network, Remembers):
                remembered = self.network.recall(shown.inputs, batch.state).float_at_least()
                return remembered, training_loss(self.task, remembered, shown, values)
            images = shown.inputs.dim() == 4
            layout = torch.channels_last if images else torch.contiguous_format
            output = self.network(shown.inputs.contiguous(memory_format=layout))
        logits, auxiliary = (one.float() for one in output) if isinstance(output, tuple) else (output.float(), None)
        loss = training_loss(self.task, logits, shown, values)
        if auxiliary is not None:
            loss = loss + self.final.auxiliary_weight * training_loss(self.task, auxiliary, shown, values)
        return logits, loss

    def _set_drop_path(self) -> float:
        """Set it to that of the epoch that the next step belongs to."""
        epoch = self.step // self.stream.steps_per_epoch
        rising = self.final.drop_path_schedule == "linear"
        rate = self.hyperparameters.get("drop_path", 0.0)
        rate = rate * epoch / self.final.epochs if rising else rate
        set_drop_path(self.network, rate)
        return rate

    def _end_epoch(self) -> None:
        self.watch.check()
        tracker, epoch = self._session.tracker, self.step // self.stream.steps_per_epoch - 1
        means = self.means.means() | self._measured()
        self.means.clear()
        for tag, value in means.items():
            tracker.scalar(tag, value, self.step, epoch)
        seconds = time.perf_counter() - self._epoch_began
        self._epoch_began = time.perf_counter()
        self.seconds += seconds
        tracker.timing("time/epoch_seconds", seconds, self.step, epoch)
        tracker.timing("time/total_seconds", self.seconds, self.step, epoch)
        told = "  ".join(f"{tag} {value:z.4f}" for tag, value in means.items())
        self._session.progress.epoch_line(f"epoch {epoch + 1:>3}/{self.final.epochs}  {told}")

    def _measured(self) -> dict[str, float]:
        """See how the weights, or their average, do on the validation split where averaging waits for that."""
        if self.averaging is None:
            return {}
        assert self.validation is not None
        with self.averaging.in_place():
            found = measure(self.network, self.validation(), self.task, self.randomness.device)
        if self.averaging.measured(found.loss):
            log.info(f"the validation loss no longer falls: from step {self.step} on the weights are averaged")
        self.optimiser = self.averaging.optimiser
        main = self.task.measures[0].name
        return {"validation/loss": found.loss, f"validation/{main}": found[main]}

    def tensors(self) -> dict[str, Tensor]:
        self.watch.check()
        average_running_statistics(self.network, self.ranks)
        return self.network.state_dict()

    def rolled_back(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    def state_dict(self) -> dict[str, Any]:
        """All that the training goes on from; the record is not in it."""
        return {
            "step": self.step,
            "seconds": self.seconds + time.perf_counter() - self._epoch_began,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "stream": self.stream.state_dict(),
            "randomness": self.randomness.state_dict(),
            "means": self.means.state_dict(),
            **({} if self.averaging is None else {"averaging": self.averaging.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.network.load_state_dict(state["network"])
        if self.averaging is not None:
            self.averaging.load_state_dict(state["averaging"])
            self.optimiser = self.averaging.optimiser
        else:
            self.optimiser.load_state_dict(state["optimiser"])
        self.stream.load_state_dict(state["stream"])
        self.randomness.load_state_dict(state["randomness"])
        self.means.load_state_dict(state["means"])
