"""What candidates are trained on and how: a space, training and validation images, and the settings of a training."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.data.augmentation import Augmentation
from nas.data.batches import Batch
from nas.data.data_splits import DataSource, loaded
from nas.data.dataset import Dataset
from nas.evaluation.budget import MEASURED_AT_ONCE
from nas.evaluation.evaluation import Cost
from nas.evaluation.network_cost import count_multiply_adds, count_parameters
from nas.spaces.space import SearchSpace
from nas.tasks import Task, TaskChoice
from nas.training.metrics import Measured
from nas.training.retraining import FinalSettings
from nas.training.settings import TrainingSettings


class Bound(Protocol):
    """A hyperparameter as a network sees it."""

    def bind(self, network: nn.Module, value: float) -> None:
        """Make ``network`` compute with ``value``, if it depends on this hyperparameter."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """Everything that the training of a candidate needs beside the candidate. It holds no test images.

    Attributes:
        space: The search space, bound to the images' shape and classes.
        task: What the outputs of networks mean.
        train: Images on which weights are trained, on ``device``.
        validation: Images on which candidates are compared, on ``device``.
        mean, std: Mean and standard deviation of each channel, in units in which white is 1.
        augmentation: How training images are augmented.
        training: The weight step and the learning rate's schedule.
        final: Label smoothing and other settings that the retraining has, too.
        held: Values of the hyperparameters that a candidate does not carry.
        bound: By name, the hyperparameters that reach into a network.
        seed: The run's seed.
        device: The device of networks and images.
        epoch_samples: Samples of an epoch, about.
    """

    space: SearchSpace
    task: Task
    train: Dataset
    validation: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    training: TrainingSettings
    final: FinalSettings
    held: Hyperparameters
    bound: Mapping[str, Bound]
    seed: int
    device: torch.device
    epoch_samples: int = 0

    def on(self, source: DataSource, chosen: TaskChoice | None = None) -> "TrainingSetup":
        """The same space and settings with other data, whose shape and outputs may differ.

        Args:
            source: The data.
            chosen: Their task; by default this one, for these data.
        """
        task, splits = (chosen or self.task).fitted(loaded(source))
        return replace(
            self,
            space=self.space.fitted(task.signature),
            task=task,
            train=splits.train.to(self.device),
            validation=splits.validation.to(self.device),
            mean=splits.mean,
            std=splits.std,
            augmentation=source.augmentation,
            epoch_samples=splits.epoch_samples,
        )

    def hyperparameters(self, candidate: Candidate) -> Hyperparameters:
        """Every hyperparameter of a training: the candidate's, and the held values of the others."""
        return Hyperparameters({**self.held, **candidate.hyperparameters})

    def bind(self, network: nn.Module, hyperparameters: Mapping[str, float]) -> None:
        """Make ``network`` compute with ``hyperparameters``, a user's own included."""
        for name, entry in self.bound.items():
            if name in hyperparameters:
                entry.bind(network, hyperparameters[name])

    def seed_for(self, candidate: Candidate) -> int:
        """The seed of a candidate's own training: the same whenever and wherever it is evaluated."""
        text = f"{self.seed}/{candidate.fingerprint()}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def validation_batches(self) -> Iterator[Batch]:
        """The validation images, normalised, in their order."""
        return self.validation.evaluation_batches(MEASURED_AT_ONCE, self.mean, self.std)

    def multiply_adds(self, architecture: Architecture) -> float:
        """Multiply-adds of one image's forward pass through the network of ``architecture``."""
        return self._counted(architecture)["multiply_adds"]

    def price(self, candidate: Candidate, epochs: int, measurements: int) -> Cost:
        """What it costs to train ``candidate`` and to measure it so many times on the validation images."""
        batch_size = self.training.chosen_by(self.hyperparameters(candidate)).batch_size
        trained = epochs * self.train.samples_of_epoch(self.epoch_samples, batch_size)
        measured = measurements * len(self.validation)
        return Cost.of_passes(self.multiply_adds(candidate.architecture), trained, measured, evaluations=1)

    def size(self, architecture: Architecture) -> dict[str, float]:
        """The ``parameters`` and ``multiply_adds`` of the network of ``architecture``."""
        return dict(self._counted(architecture))

    def metrics(self, architecture: Architecture, measured: Measured) -> dict[str, float]:
        """An evaluation's metrics: those that were measured, and the size of the network of ``architecture``."""
        numbers = measured.numbers()
        loss = measured.loss if math.isfinite(measured.loss) else math.inf
        return {**numbers, "loss": loss, **self._counted(architecture)}

    def _counted(self, architecture: Architecture) -> dict[str, float]:
        known = _COUNTED.setdefault(self.space, {})
        if architecture not in known:
            with torch.device("meta"):  # shapes are enough to count with, and no weight is drawn
                network = self.space.network(architecture)
            signature = self.space.signature
            counts = {"parameters": count_parameters, "multiply_adds": count_multiply_adds}
            known[architecture] = {name: count(network, signature) for name, count in counts.items()}
        return known[architecture]


# Sizes of networks by space, as long as the space is in use. A worker process gets its own space with each setup.
_COUNTED: WeakKeyDictionary[SearchSpace, dict[Architecture, dict[str, float]]] = WeakKeyDictionary()
