"""Labelled images in memory, batches of them, and the three parts that a data set is split into."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """What a network is trained and evaluated on."""

    images: Tensor
    """(B, C, H, W) float32, normalised per channel."""
    labels: Tensor
    """(B,) int64, from 0 to classes - 1."""


@dataclass(frozen=True)
class ImageDataset:
    """Labelled images, all of one size and on one device.

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

    def select(self, indices: Tensor) -> "ImageDataset":
        """The images at ``indices``, (M,) int64, in that order."""
        indices = indices.to(self.labels.device)
        return ImageDataset(self.images[indices], self.labels[indices], self.classes)

    def to(self, device: torch.device | str) -> "ImageDataset":
        return ImageDataset(self.images.to(device), self.labels.to(device), self.classes)

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
    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        return self.train.classes

    def train_and_validation(self) -> ImageDataset:
        """Everything that a search has seen, as one data set: what the retraining trains on."""
        images = torch.cat([self.train.images, self.validation.images])
        labels = torch.cat([self.train.labels, self.validation.labels])
        return ImageDataset(images, labels, self.classes)
