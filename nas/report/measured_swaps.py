"""``python -m nas.report why``: measure each choice of a finished search against its runner-up."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig

from nas.candidate import Architecture
from nas.configuration import build
from nas.data.class_names import require_same_classes
from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue, UnusableInput
from nas.report.explanation import SCHEMA, runner_ups, swap_effects, validation_batches
from nas.report.outcome import samples_in_words
from nas.report.recorded_run import RecordedRun
from nas.run.candidate_file import CandidateFile
from nas.run.checkpoint import loading, write_atomically
from nas.run.environment import checked_device
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.recorded import resumed_configuration
from nas.run.tracking import TrackingSettings
from nas.spaces.recorded import space_from_description
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.tasks import Task, data_and_task
from nas.training.metrics import measure
from nas.training.retraining import Retraining
from nas.training.stream import training_stream


@dataclass(frozen=True)
class SwapSettings:
    """The extent of the measurement.

    Args:
        images: The largest number of validation images per measurement in the supernet.
        retrain: Whether the architecture of each swap is also retrained from scratch on the training split.
        epochs: The epochs of each retraining.
        seeds: The number of seeds (0, 1, ...) over which each retraining is averaged.
    """

    images: int = 2000
    retrain: bool = False
    epochs: int = 3
    seeds: int = 1

    def __post_init__(self) -> None:
        for name, value in {"--images": self.images, "--epochs": self.epochs, "--seeds": self.seeds}.items():
            if value < 1:
                raise InvalidValue(name, value, "it must be at least 1")


def measure_swaps(folder: Path, settings: SwapSettings, say: Callable[[str], None] = print) -> Path:
    """Measure the swaps of the run in ``folder`` and return the path of ``explanation.json``, which grows meanwhile.

    Raises:
        InvalidValue: ``folder`` holds no finished gradient search.
        UnusableInput: The run's configuration, data or checkpoint cannot be used.
    """
    run = RecordedRun.read(folder)
    history = list(run.probability_history())
    if run.found is None or not history or run.evaluations:
        allowed = "it must hold a finished search by gradient: only that has a supernet and probabilities"
        raise InvalidValue("run folder", folder, allowed)
    found, config = run.found, resumed_configuration([], folder)
    source, splits, task = data_and_task(config)
    require_same_classes("data", splits.name, "the candidate", found.class_names, splits.class_names)
    supernet, step = _supernet(config, folder, run, found.space)
    alternatives = runner_ups(found.space, found.candidate.architecture, history[-1][1])

    def begin(choice: str) -> None:
        other = alternatives[choice].option
        say(f"{choice}: {found.candidate.architecture[choice]} against {other}")

    device = next(supernet.parameters()).device
    effects = swap_effects(
        supernet,
        found.candidate.architecture,
        alternatives,
        lambda: validation_batches(splits, settings.images, device),
        task,
        begin,
    )
    count, main = min(settings.images, len(splits.validation)), task.measures[0]
    measured_on = f"{count} validation {samples_in_words(task.signature)}"
    about = f"Measured in the supernet of step {step} on {measured_on}, all other choices relaxed."
    path = _write(folder, effects, about)
    if settings.retrain:
        about += (
            f" Retrained for {settings.epochs} epochs from scratch on the training split, "
            f"mean of {settings.seeds} seed{'s' if settings.seeds > 1 else ''}, same validation split."
        )
        train = _Trainer(config, found, splits, task, source.augmentation, settings)
        value = train.value(found.candidate.architecture)
        say(f"retrained as found: validation {main.words} {main.told(value)}")
        for choice, other in alternatives.items():
            swapped = train.value(other.architecture)
            say(f"retrained with {choice} {other.option}: {main.told(swapped)}")
            effects[choice][f"retrained_{main.name}_effect"] = swapped - value
            path = _write(folder, effects, about)
    return path


def _write(folder: Path, effects: Mapping[str, Mapping[str, Any]], about: str) -> Path:
    path = folder / "explanation.json"
    content = {"schema": SCHEMA, "about": about, "choices": effects}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def _supernet(config: DictConfig, folder: Path, run: RecordedRun, space: SearchSpace) -> tuple[Supernet, int]:
    """The supernet and the step of the newest checkpoint; its relaxation is as far as the search was.

    Args:
        space: The run's, in which a search ended whose checkpoint is from before checkpoints named their own.
    """
    state, complaints = RunFolder(folder).checkpoints.newest()
    if state is None:
        allowed = complaints[-1] if complaints else "it must have a checkpoint: the supernet's weights are in it"
        raise InvalidValue("run folder", folder, allowed)
    relaxation = build(config.relaxation, "relaxation")
    searched = space_from_description(json.loads(state["space"])) if "space" in state else space
    supernet: Supernet = searched.supernet(relaxation).to(checked_device(config.device))
    with loading(state):
        try:
            supernet.load_state_dict(state["supernet"])
        except RuntimeError as error:
            problem = f"The checkpoint in {folder} does not fit the space of the run"
            older = "" if "space" in state else ": a search in stages has one of its own, which older runs do not name"
            raise UnusableInput(f"{problem}{older}.") from error
    epochs = run.setting("search.epochs")
    if run.steps_per_epoch and isinstance(epochs, int):
        relaxation.advance(min(state["step"] / (run.steps_per_epoch * epochs), 1.0))
    return supernet, int(state["step"])


class _Trainer:
    """Short retrainings with the run's own settings and the candidate's hyperparameters."""

    def __init__(
        self,
        config: DictConfig,
        found: CandidateFile,
        splits: DataSplits,
        task: Task,
        augmentation: Any,
        settings: SwapSettings,
    ) -> None:
        self.config, self.found, self.splits, self.task = config, found, splits, task
        self.augmentation, self.settings = augmentation, settings
        self.final = replace(build(config.final, "final"), epochs=settings.epochs, checkpoint=None)
        self.training = build(config.training, "training")

    def value(self, architecture: Architecture) -> float:
        """The main measure of ``architecture`` on the validation split after training; the mean over the seeds."""
        return fmean(self._value(architecture, seed) for seed in range(self.settings.seeds))

    def _value(self, architecture: Architecture, seed: int) -> float:
        randomness, splits, training = Randomness(seed, checked_device(self.config.device)), self.splits, self.training
        known = splits.train.to(randomness.device)
        network = self.found.space.network(architecture)
        with tempfile.TemporaryDirectory() as folder:
            retraining = Retraining(
                network=network,
                task=self.task,
                stream=training_stream(known, splits, training.batch_size, self.augmentation, randomness),
                hyperparameters=self.found.candidate.hyperparameters,
                schedule=self.found.schedule,
                schedule_end=self.found.schedule_end,
                final=self.final,
                training=training,
                tracking=TrackingSettings(tensorboard=False, console="quiet"),
                randomness=randomness,
                folder=RunFolder(Path(folder)),
            )
            retraining.train()
        batches = splits.validation.to(randomness.device).evaluation_batches(256, splits.mean, splits.std)
        return measure(network, batches, self.task, randomness.device)[self.task.measures[0].name]
