"""Labelled images: what every data set offers, those in memory, and the three parts that one is split into."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.batch import Batch, Stream
from nas.data.batches import BatchStream, evaluation_batches


class Dataset(Protocol):
    """Labelled images, wherever they are kept: all that a run asks of them."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64, from 0 to ``classes - 1``."""

    @property
    def classes(self) -> int:
        """How many classes there are."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as a network gets it."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor) -> Self:
        """The images at ``indices``, (M,) int64, in that order."""

    def joined(self, other: Self) -> Self:
        """These images, then those of ``other``."""

    def to(self, device: torch.device | str) -> Self:
        """The same images with their batches on ``device``."""

    def stream(
        self,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        order_generator: Generator,
        augmentation: Augmentation | None = None,
        augmentation_generator: Generator | None = None,
    ) -> Stream:
        """Endless shuffled batches; the arguments are those of :class:`nas.data.batches.BatchStream`."""

    def evaluation_batches(self, batch_size: int, mean: Sequence[float], std: Sequence[float]) -> Iterator[Batch]:
        """All images once, in order and without augmentation; the last batch may be smaller."""


@dataclass(frozen=True)
class ImageDataset:
    """A :class:`Dataset` in memory, all images of one size and on one device.

    Attributes:
        images: (N, C, H, W), either uint8 from 0 to 255 or float32 from 0 to 1; 0 is black.
        labels: (N,) int64, from 0 to ``classes - 1``.
        classes: How many classes there are.

    Raises:
        ValueError: The tensors do not have these shapes, types and values.
    """

    images: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"images are {self._shown(self.images)}, not (N, C, H, W) uint8 or float32")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(f"labels are {self._shown(self.labels)}, not ({len(self.images)},) int64")
        if len(self) and not (self.labels.min() >= 0 and self.labels.max() < self.classes):
            raise ValueError(f"a label is outside 0..{self.classes - 1}")

    @staticmethod
    def _shown(tensor: Tensor) -> str:
        return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def largest_value(self) -> float:
        """The value of a white pixel."""
        return 255.0 if self.images.dtype == torch.uint8 else 1.0

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def select(self, indices: Tensor) -> "ImageDataset":
        indices = indices.to(self.labels.device)
        return ImageDataset(self.images[indices], self.labels[indices], self.classes)

    def joined(self, other: "ImageDataset") -> "ImageDataset":
        images, labels = torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        return ImageDataset(images, labels, self.classes)

    def to(self, device: torch.device | str) -> "ImageDataset":
        return ImageDataset(self.images.to(device), self.labels.to(device), self.classes)

    def stream(
        self,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        order_generator: Generator,
        augmentation: Augmentation | None = None,
        augmentation_generator: Generator | None = None,
    ) -> BatchStream:
        return BatchStream(self, batch_size, mean, std, order_generator, augmentation, augmentation_generator)

    def evaluation_batches(self, batch_size: int, mean: Sequence[float], std: Sequence[float]) -> Iterator[Batch]:
        return evaluation_batches(self, batch_size, mean, std)

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel, C numbers each, with white at 1."""
        values = self.images.double() / self.largest_value
        deviation, mean = torch.std_mean(values, dim=(0, 2, 3), correction=0)
        return tuple(mean.tolist()), tuple(deviation.tolist())


@dataclass(frozen=True)
class DataSplits:
    """The parts of the data set ``name``, and the channel statistics that normalise all of them.

    ``mean`` and ``std`` have one number per channel and are measured with black at 0 and white at 1.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.train.input_shape

    @property
    def classes(self) -> int:
        return self.train.classes

    def train_and_validation(self) -> Dataset:
        """Everything that a search has seen, as one data set: what the retraining trains on."""
        return self.train.joined(self.validation)


class DataSource(Protocol):
    """A data set that can be loaded, with the augmentation that its training images get."""

    @property
    def name(self) -> str:
        """The data set's name, as in ``conf/data/<name>.yaml``."""

    @property
    def augmentation(self) -> Augmentation:
        """What is done to the training images of every batch."""

    def load(self) -> DataSplits:
        """Read the images into memory, or the list of their files, and split them; all on the CPU.

        Raises:
            UnusableInput: The data are not there or cannot be read.
            InvalidValue: The split or the augmentation does not fit the data; keys start with ``split.`` or
                ``augmentation.``.
        """
