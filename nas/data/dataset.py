"""Labelled images: what every data set offers, images in memory, the parts of a split, and where data come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.batches import Batch, EpochStream, Normalisation, Preparation, Stream
from nas.errors import require


class Dataset(ABC):
    """Labelled images, wherever they are kept.

    Attributes:
        labels: (N,) int64, from 0 to ``classes - 1``.
        classes: The number of classes.
    """

    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as a network gets it."""

    @abstractmethod
    def select(self, indices: Tensor) -> Self:
        """The images at ``indices``, (M,) int64, in that order."""

    @abstractmethod
    def joined(self, other: Self) -> Self:
        """These images, then those of ``other``."""

    @abstractmethod
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
        """Endless shuffled batches (:class:`nas.data.batches.EpochStream`) on the data set's device.

        Args:
            batch_size: Images in a batch.
            mean: One number per channel, with white at 1.
            std: One number per channel, with white at 1.
            order_generator: A CPU generator, drawn from once per epoch.
            augmentation: What is done to the images of each batch; none by default.
            augmentation_generator: A generator on the data set's device; needed if batches are augmented.

        Raises:
            InvalidValue: ``batch_size`` is below 1.
            ValueError: The data set is empty, or an augmentation of batches is on and has no generator.
        """
        prepare = Preparation(self._normalisation(mean, std), augmentation, augmentation_generator)
        return self._stream(batch_size, prepare, order_generator)

    def evaluation_batches(self, batch_size: int, mean: Sequence[float], std: Sequence[float]) -> Iterator[Batch]:
        """All images once, in order and not augmented; the last batch may be smaller.

        Raises:
            InvalidValue: ``batch_size`` is below 1.
        """
        require(batch_size >= 1, "batch_size", batch_size, "it must be at least 1")
        return self._in_order(batch_size, self._normalisation(mean, std))

    @abstractmethod
    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Normalisation: ...

    @abstractmethod
    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> Stream: ...

    @abstractmethod
    def _in_order(self, batch_size: int, normalisation: Normalisation) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """A data set in memory, all images of one size and on one device.

    Attributes:
        images: (N, C, H, W), either uint8 from 0 to 255 or float32 from 0 to 1; 0 is black.
        labels: (N,) int64, from 0 to ``classes - 1``.
        classes: The number of classes.

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

    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Normalisation:
        return Normalisation(mean, std, self.images.shape[1], self.largest_value, self.images.device)

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> "BatchStream":
        return BatchStream(self, batch_size, prepare, order_generator)

    def _in_order(self, batch_size: int, normalisation: Normalisation) -> Iterator[Batch]:
        pairs = zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)
        return (Batch(normalisation(images), labels) for images, labels in pairs if len(labels))

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel, C numbers each, with white at 1."""
        values = self.images.double() / self.largest_value
        deviation, mean = torch.std_mean(values, dim=(0, 2, 3), correction=0)
        return tuple(mean.tolist()), tuple(deviation.tolist())


class BatchStream(EpochStream):
    """Batches of images in memory, on the device of their data set."""

    def __init__(
        self, dataset: ImageDataset, batch_size: int, prepare: Preparation, order_generator: Generator
    ) -> None:
        super().__init__(len(dataset), batch_size, order_generator)
        self._dataset, self._prepare = dataset, prepare
        self._order = torch.empty(0, dtype=torch.int64, device=dataset.images.device)

    def _begin_epoch(self) -> None:
        order = torch.randperm(self._count, generator=self._order_generator)
        self._order = order.to(self._dataset.images.device)

    def _batch(self, start: int) -> Batch:
        chosen = self._order[start : start + self._batch_size]
        images = self._dataset.images.index_select(0, chosen)
        return Batch(self._prepare(images), self._dataset.labels.index_select(0, chosen))

    def state_dict(self) -> dict[str, Any]:
        return {"order": self._order.cpu(), "position": self._position, "batch_size": self._batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        order = state["order"]
        self._check_fits(len(order) in (0, self._count), len(order), state["batch_size"])
        self._order = order.to(self._dataset.images.device)
        self._position = state["position"]


@dataclass(frozen=True)
class DataSplits:
    """The parts of the data set ``name``, and the channel statistics that normalise all of them.

    ``mean`` and ``std`` have one number per channel, with black at 0 and white at 1.
    ``class_names`` has one name per class, where the source has names.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.train.input_shape

    @property
    def classes(self) -> int:
        return self.train.classes

    def train_and_validation(self) -> Dataset:
        """All images of the search as one data set: the training data of the retraining."""
        return self.train.joined(self.validation)


class DataSource(Protocol):
    """A data set that can be loaded, with the augmentation of its training images."""

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
