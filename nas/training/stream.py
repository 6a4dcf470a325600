"""The batches that weights are trained on, in the order and with the augmentation that the run's generators draw."""

from typing import Protocol

from nas.data.augmentation import Augmentation
from nas.data.batches import Stream
from nas.data.dataset import Dataset
from nas.run.randomness import Randomness


class Prepared(Protocol):
    """How a data set's samples are normalised, and how many make an epoch: a ``DataSplits`` or a ``TrainingSetup``."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def epoch_samples(self) -> int: ...


def training_stream(
    dataset: Dataset, prepared: Prepared, batch_size: int, augmentation: Augmentation | None, randomness: Randomness
) -> Stream:
    """Endless batches of ``dataset``, which is on the run's device, for all ranks together.

    Raises:
        InvalidValue: ``batch_size`` is below 1.
    """
    return dataset.stream(
        batch_size,
        prepared.mean,
        prepared.std,
        randomness.on_cpu("training order"),
        augmentation,
        randomness.on_device("augmentation"),
        prepared.epoch_samples,
    )
