"""What candidates are evaluated on: a space bound to training and validation images, and how networks are trained."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.data.augmentation import Augmentation
from nas.data.batches import Batch
from nas.data.dataset import Dataset, DataSource, DataSplits
from nas.evaluation.network_cost import count_multiply_adds
from nas.spaces.space import SearchSpace, space_from_description
from nas.training.retraining import FinalSettings
from nas.training.settings import TrainingSettings


class Bound(Protocol):
    """A hyperparameter as a network sees it."""

    def bind(self, network: nn.Module, value: float) -> None:
        """Make ``network`` compute with ``value``, if it does at all."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """There are no test images in it.

    Attributes:
        space: Bound to the images' shape and classes.
        train: What weights are trained on.
        validation: What candidates are compared on.
        mean, std: Of each channel, with white at 1.
        augmentation: Of the training images.
        training: The weight step and the learning rate's schedule.
        final: Label smoothing and the like, as in the retraining.
        held: The values of the hyperparameters that a candidate does not carry.
        bound: The hyperparameters' ways into a network, by name.
        seed: The run's.
        device: Where networks are trained.
    """

    space: SearchSpace
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

    @staticmethod
    def of(
        space: SearchSpace,
        splits: DataSplits,
        augmentation: Augmentation,
        training: TrainingSettings,
        final: FinalSettings,
        held: Hyperparameters,
        bound: Mapping[str, Bound],
        seed: int,
        device: torch.device,
    ) -> "Task":
        return Task(
            space,
            splits.train.to(device),
            splits.validation.to(device),
            splits.mean,
            splits.std,
            augmentation,
            training,
            final,
            held,
            bound,
            seed,
            device,
        )

    def on(self, source: DataSource) -> "Task":
        """The same space and training on other images, whose shape and classes may differ."""
        splits = source.load()
        description = {**self.space.describe(), "input_shape": list(splits.input_shape), "classes": splits.classes}
        space = space_from_description(description)
        space.ranges = self.space.ranges
        return replace(
            self,
            space=space,
            train=splits.train.to(self.device),
            validation=splits.validation.to(self.device),
            mean=splits.mean,
            std=splits.std,
            augmentation=source.augmentation,
        )

    def hyperparameters(self, candidate: Candidate) -> Hyperparameters:
        """All that a training needs: the candidate's, and the held values of the others."""
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
        return self.validation.evaluation_batches(256, self.mean, self.std)

    def multiply_adds(self, architecture: Architecture) -> float:
        """Of one forward pass of one image through the network of ``architecture``."""
        counted = _COUNTED.setdefault(self.space, {})
        if architecture not in counted:
            with torch.device("meta"):  # shapes are enough to count with, and no weight is drawn
                network = self.space.network(architecture)
            counted[architecture] = count_multiply_adds(network, self.space.input_shape)
        return counted[architecture]


# Of every space that is still in use; in a worker process each task comes with a space of its own.
_COUNTED: WeakKeyDictionary[SearchSpace, dict[Architecture, float]] = WeakKeyDictionary()
