"""What every data set offers; labelled images, and samples of any kind, in memory, and their batches."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.batches import Batch, EpochStream, Normalisation, Preparation, Stream, Transform, repeated
from nas.data.labelled import as_images, as_labels, class_count
from nas.errors import UnusableInput, require

PLACES_AT_ONCE, FEWEST = 2**20, 2  # measured: 256 samples of 64 x 64, 4 of 512 x 512; an export needs two


@dataclass
class Findings:
    """What a look at files has found.

    Attributes:
        unreadable: File and reason of each that cannot be used.
        remarks: What is worth a line, and of how many files.
    """

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)


class Dataset(ABC):
    """Samples, wherever they are kept.

    Attributes:
        dense: Whether targets are of the places of a sample, one or several of each.
    """

    dense: bool = False

    @property
    @abstractmethod
    def targets(self) -> Tensor:
        """(N, ...) what is to be learned of each sample."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample as a network gets it, (C, H, W) of an image."""

    @abstractmethod
    def select(self, indices: Tensor) -> Self:
        """The samples at ``indices``, (M,) int64, in that order."""

    @abstractmethod
    def joined(self, other: Self) -> Self:
        """These samples, then those of ``other``."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same samples with their batches on ``device``."""

    def look(self) -> Findings:
        """Look at every file that is not in memory yet, without decoding it where its header tells enough."""
        return Findings()

    def stream(
        self,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        order_generator: Generator,
        augmentation: Augmentation | None = None,
        augmentation_generator: Generator | None = None,
        epoch_samples: int = 0,
    ) -> Stream:
        """Endless shuffled batches (:class:`nas.data.batches.EpochStream`) on the data set's device.

        Args:
            batch_size: Samples in a batch.
            mean: One number per channel, with white at 1.
            std: One number per channel, with white at 1.
            order_generator: A CPU generator, drawn from once per epoch.
            augmentation: What is done to the inputs of each batch; none by default.
            augmentation_generator: A generator on the data set's device; needed if batches are augmented.
            epoch_samples: An epoch is as many passes over the data as make so many, a pass's dropped rest counted.

        Raises:
            InvalidValue: ``batch_size`` is below 1.
            ValueError: The data set is empty, or an augmentation of batches is on and has no generator.
        """
        prepare = Preparation(self._normalisation(mean, std), augmentation, augmentation_generator, self.dense)
        return repeated(self._stream(batch_size, prepare, order_generator), self._passes(epoch_samples))

    def samples_of_epoch(self, epoch_samples: int, batch_size: int = 1) -> int:
        """Samples that the batches of an epoch of :meth:`stream` have together, its dropped rests left out."""
        size = min(batch_size, len(self))
        return self._passes(epoch_samples) * (len(self) // size) * size

    def _passes(self, epoch_samples: int) -> int:
        """Passes over the data that make an epoch: one where there are samples enough, or ``epoch_samples`` is 0."""
        return max(1, math.ceil(epoch_samples / len(self)))

    def evaluation_batches(self, batch_size: int, mean: Sequence[float], std: Sequence[float]) -> Iterator[Batch]:
        """All samples once, in order and not augmented; the last batch may be smaller.

        Large samples with a target per place come fewer at once: their outputs are as large, and fill a memory.

        Raises:
            InvalidValue: ``batch_size`` is below 1.
        """
        require(batch_size >= 1, "batch_size", batch_size, "it must be at least 1")
        if self.dense:
            batch_size = min(batch_size, max(FEWEST, PLACES_AT_ONCE // math.prod(self.input_shape[1:])))
        return self._in_order(batch_size, self._normalisation(mean, std))

    @abstractmethod
    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Transform: ...

    @abstractmethod
    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> Stream: ...

    @abstractmethod
    def _in_order(self, batch_size: int, normalisation: Transform) -> Iterator[Batch]: ...


class LabelledDataset(Dataset):
    """Samples of one class each.

    Attributes:
        labels: (N,) int64, from 0 to ``classes - 1``.
        classes: The number of classes.
    """

    labels: Tensor
    classes: int

    @property
    def targets(self) -> Tensor:
        return self.labels


@dataclass(frozen=True)
class ImageDataset(LabelledDataset):
    """Labelled images in memory, all of one size and on one device.

    NumPy arrays, other floating-point images and labels of other whole-number types are converted.

    Attributes:
        images: (N, C, H, W), either uint8 from 0 to 255 or float32 from 0 to 1; 0 is black.
        labels: (N,) int64, from 0 to ``classes - 1``.
        classes: The number of classes.

    Raises:
        UnusableInput: Shapes, types or values are others, or a value is not finite.
    """

    images: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", class_count(self.classes))
        object.__setattr__(self, "images", as_images(self.images))
        object.__setattr__(self, "labels", as_labels(self.labels, len(self.images), self.classes))

    @property
    def largest_value(self) -> float:
        """The value of a white pixel."""
        return 255.0 if self.images.dtype == torch.uint8 else 1.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def select(self, indices: Tensor) -> "ImageDataset":
        indices = indices.to(self.labels.device)
        return ImageDataset(self.images[indices], self.labels[indices], self.classes)

    def joined(self, other: "ImageDataset") -> "ImageDataset":
        images, labels = torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        return ImageDataset(images, labels, self.classes)

    def to(self, device: torch.device | str) -> "ImageDataset":
        return ImageDataset(self.images.to(device), self.labels.to(device), self.classes)

    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Normalisation:
        return Normalisation(mean, std, self.images.shape[1], self.largest_value, self.images.device)

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> "BatchStream":
        return BatchStream(self.images, self.labels, batch_size, prepare, order_generator)

    def _in_order(self, batch_size: int, normalisation: Transform) -> Iterator[Batch]:
        pairs = zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)
        return (Batch(normalisation(images), labels) for images, labels in pairs if len(labels))

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel, C numbers each, with white at 1."""
        values = self.images.double() / self.largest_value
        deviation, mean = torch.std_mean(values, dim=(0, 2, 3), correction=0)
        return tuple(mean.tolist()), tuple(deviation.tolist())


class TargetDataset(Dataset):
    """Samples with targets of any kind, as they were read or as a task takes them."""

    @abstractmethod
    def with_targets(self, targets: Tensor) -> Self:
        """The same inputs, of which other things are to be learned."""


class ArrayDataset(TargetDataset):
    """Samples in memory on one device: images, series, rows or tokens, with targets of any kind.

    Args:
        inputs: (N, C, H, W), (N, C, L) or (N, F) float32, or uint8 images from 0 to 255; (N, L) int64 token numbers.
            NumPy's arrays will do, too.
        targets: (N, ...), as they were read or as a task takes them.
        dense: Whether targets are of the places of a sample.

    Raises:
        UnusableInput: The numbers of inputs and targets differ, or an input is not finite.
    """

    def __init__(
        self, inputs: Tensor | np.ndarray[Any, Any], targets: Tensor | np.ndarray[Any, Any], dense: bool = False
    ) -> None:
        inputs = torch.as_tensor(inputs, dtype=torch.float32 if inputs.dtype == np.float64 else None)  # of NumPy
        self.inputs, self._targets, self.dense = inputs, torch.as_tensor(targets), dense
        if len(inputs) != len(targets):
            raise UnusableInput(f"There are {len(inputs):,} inputs and {len(targets):,} targets.")
        if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
            bad = (~inputs.isfinite()).nonzero()
            first, *place = bad[0].tolist()
            raise UnusableInput(
                f"{len(bad):,} input values are not finite, in {len(bad[:, 0].unique()):,} of {len(inputs):,} samples: "
                f"the first is {inputs[tuple(bad[0].tolist())].item()} in sample {first}, at {tuple(place)}."
            )

    @property
    def targets(self) -> Tensor:
        return self._targets

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])

    @property
    def is_tokens(self) -> bool:
        return self.inputs.dtype == torch.int64

    @property
    def largest_value(self) -> float:
        return 255.0 if self.inputs.dtype == torch.uint8 else 1.0

    def with_targets(self, targets: Tensor) -> "ArrayDataset":
        return ArrayDataset(self.inputs, targets.to(self.inputs.device), self.dense)

    def select(self, indices: Tensor) -> "ArrayDataset":
        indices = indices.to(self.inputs.device)
        return ArrayDataset(self.inputs[indices], self.targets[indices], self.dense)

    def joined(self, other: "ArrayDataset") -> "ArrayDataset":
        inputs, targets = torch.cat([self.inputs, other.inputs]), torch.cat([self.targets, other.targets])
        return ArrayDataset(inputs, targets, self.dense)

    def to(self, device: torch.device | str) -> "ArrayDataset":
        return ArrayDataset(self.inputs.to(device), self.targets.to(device), self.dense)

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel (of every column of a table), with white at 1."""
        values = self.inputs.double() / self.largest_value
        deviation, mean = torch.std_mean(values, dim=[0, *range(2, values.dim())], correction=0)
        return tuple(mean.tolist()), tuple(deviation.tolist())

    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Transform:
        if self.is_tokens:
            return torch.Tensor.clone
        channels, rank = self.inputs.shape[1], self.inputs.dim() - 2
        return Normalisation(mean, std, channels, self.largest_value, self.inputs.device, rank)

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> "BatchStream":
        return BatchStream(self.inputs, self.targets, batch_size, prepare, order_generator)

    def _in_order(self, batch_size: int, normalisation: Transform) -> Iterator[Batch]:
        pairs = zip(self.inputs.split(batch_size), self.targets.split(batch_size), strict=True)
        return (Batch(normalisation(inputs), targets) for inputs, targets in pairs if len(targets))


class BatchStream(EpochStream):
    """Batches of samples in memory, on their device.

    Args:
        inputs: (N, ...).
        targets: (N, ...).
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, batch_size: int, prepare: Preparation, order_generator: Generator
    ) -> None:
        super().__init__(len(inputs), batch_size, order_generator)
        self._inputs, self._targets, self._prepare = inputs, targets, prepare
        self._order = torch.empty(0, dtype=torch.int64, device=inputs.device)

    def _begin_epoch(self) -> None:
        order = torch.randperm(self._count, generator=self._order_generator)
        self._order = order.to(self._inputs.device)

    def _batch(self, start: int) -> Batch:
        chosen = self._order[start : start + self._batch_size]
        return self._prepare(self._inputs.index_select(0, chosen), self._targets.index_select(0, chosen))

    def state_dict(self) -> dict[str, Any]:
        return {"order": self._order.cpu(), "position": self._position, "batch_size": self._batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        order = state["order"]
        self._check_fits(len(order) in (0, self._count), len(order), state["batch_size"])
        self._order = order.to(self._inputs.device)
        self._position = state["position"]
