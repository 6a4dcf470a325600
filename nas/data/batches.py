"""Batches: what a stream of them is, their normalisation and augmentation, and each rank's share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.distributed import Ranks
from nas.errors import InvalidValue, UnusableInput, require


class Batch(NamedTuple):
    """Samples that a network is trained or evaluated on."""

    inputs: Tensor
    """(B, C, H, W) images, (B, C, L) series or (B, F) rows, float32 and normalised, or (B, L) int64 tokens."""
    targets: Tensor
    """(B, ...) as the task has them: (B,) int64 class numbers, for example."""
    state: Tensor | None = None
    """(B, width), what a network with a memory begins from; None begins with an empty one."""


class Stream(Protocol):
    """An endless stream of training batches, one shuffled epoch after another, which a checkpoint can continue."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    def next(self) -> Batch:
        """The next batch."""

    def carry(self, state: Tensor | None) -> None:
        """Let the next batch begin from ``state``, that after the last one, where it goes on with the same texts."""

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch as tensors and whole numbers, without the states of the generators."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a stream over the same data stood, once the generators have their states back.

        Raises:
            UnusableInput: The state is from a stream with another number of images or another batch size.
        """


def first_images(batches: Iterable[Batch], most: int) -> Iterator[Batch]:
    """The first ``most`` images of ``batches``, or all where there are fewer."""
    for batch in batches:
        yield Batch(batch.inputs[:most], batch.targets[:most])
        most -= len(batch.targets)
        if most <= 0:
            return


class Normalisation:
    """``(value / white - mean) / std`` per channel, (B, C, ...) of any type to (B, C, ...) float32.

    Args:
        mean: C numbers, with white at 1.
        std: C numbers, with white at 1.
        channels: C.
        white: The value of a white pixel in the images to come.
        device: Where these are.
        rank: How many dimensions follow the channels.

    Raises:
        ValueError: There are not C means and deviations.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        channels: int,
        white: float,
        device: torch.device,
        rank: int = 2,
    ) -> None:
        if not len(mean) == len(std) == channels:
            raise ValueError(f"{channels} channels need as many means and deviations, not {len(mean)} and {len(std)}")
        deviation = torch.tensor(std, dtype=torch.float64).view(1, -1, *[1] * rank)
        centre = torch.tensor(mean, dtype=torch.float64).view(1, -1, *[1] * rank)
        self._scale = (1 / (white * deviation)).to(device, torch.float32)
        self._shift = (-centre / deviation).to(device, torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.addcmul(self._shift, images.float(), self._scale)


Transform = Callable[[Tensor], Tensor]


class Preparation:
    """What is done to the images of a training batch: crop and flip, normalisation, cutout.

    Args:
        normalisation: The one of the data set.
        augmentation: None augments nothing.
        generator: The source of its draws, on the images' device.
        dense: Whether targets are of places, so that they move with these.

    Raises:
        ValueError: The augmentation is on and has no generator.
    """

    def __init__(
        self,
        normalisation: Transform,
        augmentation: Augmentation | None,
        generator: Generator | None,
        dense: bool = False,
    ) -> None:
        self.augmentation = augmentation
        self._normalisation, self._dense = normalisation, dense
        self._generator = generator if augmentation is not None and augmentation.is_active else None
        if augmentation is not None and augmentation.is_active and generator is None:
            raise ValueError("an augmentation needs a generator")

    def __call__(self, images: Tensor, targets: Tensor) -> Batch:
        """Images (B, C, H, W) as the data set holds them as float32, with their targets."""
        if self.augmentation is None or self._generator is None:
            return Batch(self._normalisation(images), targets)
        images, moved = self.augmentation.crop_and_flip(images, targets if self._dense else None, self._generator)
        images = self.augmentation.cut_out(self._normalisation(images), self._generator)
        return Batch(images, targets if moved is None else moved)


class EpochStream(ABC):
    """A :class:`Stream` of one shuffled epoch after another, all batches of one size.

    The last, partial batch of an epoch is dropped. A data set smaller than ``batch_size`` is one batch.

    Args:
        samples: The number of samples in the data set.
        batch_size: Samples in a batch.
        order_generator: A CPU generator, drawn from once per epoch, when its first batch is asked for.

    Raises:
        InvalidValue: ``batch_size`` is below 1.
        ValueError: There are no samples.
    """

    def __init__(self, samples: int, batch_size: int, order_generator: Generator) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "it must be at least 1")
        if samples == 0:
            raise ValueError("a stream of batches needs at least one sample")
        self._count = samples
        self._batch_size = min(batch_size, samples)
        self._order_generator = order_generator
        self._position = self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return self._count // self._batch_size

    def next(self) -> Batch:
        """The next batch; a new epoch begins when the last one is through.

        Raises:
            UnusableInput: A file cannot be read.
        """
        if self._position == self.steps_per_epoch:
            self._begin_epoch()
            self._position = 0
        batch = self._batch(self._position * self._batch_size)
        self._position += 1
        return batch

    def carry(self, state: Tensor | None) -> None:  # noqa: B027 - texts have something to do
        """Nothing: samples of a shuffled epoch do not go on with each other."""

    @abstractmethod
    def _begin_epoch(self) -> None:
        """Draw the order of a new epoch."""

    @abstractmethod
    def _batch(self, start: int) -> Batch:
        """The batch that begins at place ``start`` of the epoch's order."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def _check_fits(self, fits: bool, images: object, batch_size: int) -> None:
        if not fits or batch_size != self._batch_size:
            raise UnusableInput(
                f"The saved stream of batches ({images} images in batches of {batch_size}) "
                f"does not fit this run's ({self._count} images in batches of {self._batch_size})."
            )


class StreamAround:
    """A :class:`Stream` that changes something of another one, and is that one in all else."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def steps_per_epoch(self) -> int:
        return self._stream.steps_per_epoch

    def next(self) -> Batch:
        return self._stream.next()

    def carry(self, state: Tensor | None) -> None:
        self._stream.carry(state)

    def state_dict(self) -> dict[str, Any]:
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.load_state_dict(state)


class RepeatedStream(StreamAround):
    """Its epochs are several of ``stream``: of a few samples one pass is only a step or two."""

    def __init__(self, stream: Stream, passes: int) -> None:
        super().__init__(stream)
        self._passes = passes

    @property
    def steps_per_epoch(self) -> int:
        return self._passes * self._stream.steps_per_epoch


def repeated(stream: Stream, passes: int) -> Stream:
    """``stream`` with epochs of ``passes`` passes."""
    return stream if passes == 1 else RepeatedStream(stream, passes)


class ShardedStream(StreamAround):
    """This rank's share of every batch of ``stream``.

    All ranks draw the same joint batches, augmented alike, so that the data do not depend on how many there are.
    """

    def __init__(self, stream: Stream, ranks: Ranks) -> None:
        super().__init__(stream)
        self._ranks = ranks

    def next(self) -> Batch:
        batch = self._stream.next()
        share, rest = divmod(len(batch.targets), self._ranks.count)
        if rest or share < 2:
            allowed = f"it must be a multiple of the {self._ranks.count} processes, with 2 samples for each at least"
            raise InvalidValue("training.batch_size", len(batch.targets), allowed)
        own = slice(self._ranks.rank * share, (self._ranks.rank + 1) * share)
        return Batch(batch.inputs[own], batch.targets[own], None if batch.state is None else batch.state[own])

    def carry(self, state: Tensor | None) -> None:
        if state is not None:
            state = torch.cat([one.to(state.device) for one in self._ranks.gather(state)])
        self._stream.carry(state)


def sharded(stream: Stream, ranks: Ranks) -> Stream:
    """This rank's share of ``stream``."""
    return stream if ranks.count == 1 else ShardedStream(stream, ranks)
