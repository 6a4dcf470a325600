"""Streams of normalised batches: endless and shuffled for training, in order and complete for evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.batch import Batch
from nas.errors import UnusableInput, require


class ImagesInMemory(Protocol):
    """What batches are made of here; see :class:`nas.data.dataset.ImageDataset`."""

    @property
    def images(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...

    @property
    def largest_value(self) -> float: ...

    def __len__(self) -> int: ...


class Normalisation:
    """``(value / white - mean) / std`` per channel.

    Args:
        mean: C numbers, with white at 1.
        std: C numbers, with white at 1.
        channels: C.
        white: The value of a white pixel in the images to come.
        device: Where these are.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], channels: int, white: float, device: torch.device
    ) -> None:
        if not len(mean) == len(std) == channels:
            raise ValueError(f"{channels} channels need as many means and deviations, not {len(mean)} and {len(std)}")
        deviation = torch.tensor(std, dtype=torch.float64).view(1, -1, 1, 1)
        centre = torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1)
        self._scale = (1 / (white * deviation)).to(device, torch.float32)
        self._shift = (-centre / deviation).to(device, torch.float32)

    @classmethod
    def of(cls, dataset: ImagesInMemory, mean: Sequence[float], std: Sequence[float]) -> "Normalisation":
        return cls(mean, std, dataset.images.shape[1], dataset.largest_value, dataset.images.device)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) as the data set holds them to (B, C, H, W) float32."""
        return torch.addcmul(self._shift, images.float(), self._scale)


class Preparation:
    """What is done to the images of a training batch: crop and flip, normalisation, cutout.

    Args:
        normalisation: Of the images to come.
        augmentation: None if there is none.
        generator: Where its draws come from, on the images' device.

    Raises:
        ValueError: The augmentation is on and has no generator.
    """

    def __init__(
        self, normalisation: Normalisation, augmentation: Augmentation | None, generator: Generator | None
    ) -> None:
        self._normalisation, self._generator = normalisation, generator
        self._augmentation = augmentation if augmentation is not None and augmentation.is_active else None
        if self._augmentation is not None and generator is None:
            raise ValueError("an augmentation needs a generator")

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) as the data set holds them to (B, C, H, W) float32."""
        if self._augmentation is None or self._generator is None:
            return self._normalisation(images)
        images = self._augmentation.crop_and_flip(images, self._generator)
        return self._augmentation.cut_out(self._normalisation(images), self._generator)


class BatchStream:
    """An endless stream of batches: one shuffled epoch after another, all batches of one size.

    The last, partial batch of an epoch is dropped. A data set smaller than ``batch_size`` is one batch.

    Args:
        dataset: The images, on any device; the batches are on the same one.
        batch_size: Images in a batch.
        mean: Per channel, with white at 1.
        std: Per channel, with white at 1.
        order_generator: A CPU generator, drawn from once per epoch, when its first batch is asked for.
        augmentation: What is done to the images of each batch; none by default.
        augmentation_generator: A generator on the data set's device; needed if an augmentation is on.

    Raises:
        InvalidValue: ``batch_size`` is below 1.
        ValueError: The data set is empty, or an augmentation is on and has no generator.
    """

    def __init__(
        self,
        dataset: ImagesInMemory,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        order_generator: Generator,
        augmentation: Augmentation | None = None,
        augmentation_generator: Generator | None = None,
    ) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "it must be at least 1")
        if len(dataset) == 0:
            raise ValueError("a stream of batches needs at least one image")
        self._dataset = dataset
        self._batch_size = min(batch_size, len(dataset))
        self._prepared = Preparation(Normalisation.of(dataset, mean, std), augmentation, augmentation_generator)
        self._order_generator = order_generator
        self._order = torch.empty(0, dtype=torch.int64, device=dataset.images.device)
        self._position = self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self._dataset) // self._batch_size

    def next(self) -> Batch:
        """The next batch; starts a new epoch when the last one is through."""
        if self._position == self.steps_per_epoch:
            order = torch.randperm(len(self._dataset), generator=self._order_generator)
            self._order = order.to(self._dataset.images.device)
            self._position = 0
        start = self._position * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        self._position += 1
        images = self._dataset.images.index_select(0, chosen)
        return Batch(self._prepared(images), self._dataset.labels.index_select(0, chosen))

    def state_dict(self) -> dict[str, Any]:
        """The epoch's order and the place in it, as tensors and whole numbers; the generators' states are not in it."""
        return {"order": self._order.cpu(), "position": self._position, "batch_size": self._batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream over the same data stood, once the generators have their states back.

        Raises:
            UnusableInput: The state is from a stream with another number of images or another batch size.
        """
        order = state["order"]
        if len(order) not in (0, len(self._dataset)) or state["batch_size"] != self._batch_size:
            raise UnusableInput(
                f"The saved stream of batches ({len(order)} images in batches of {state['batch_size']}) "
                f"does not fit this run's ({len(self._dataset)} images in batches of {self._batch_size})."
            )
        self._order = order.to(self._dataset.images.device)
        self._position = state["position"]


def evaluation_batches(
    dataset: ImagesInMemory, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Batch]:
    """All images once, in order and without augmentation; the last batch may be smaller.

    Raises:
        InvalidValue: ``batch_size`` is below 1.
    """
    require(batch_size >= 1, "batch_size", batch_size, "it must be at least 1")
    normalisation = Normalisation.of(dataset, mean, std)
    pairs = zip(dataset.images.split(batch_size), dataset.labels.split(batch_size), strict=True)
    return (Batch(normalisation(images), labels) for images, labels in pairs if len(labels))
