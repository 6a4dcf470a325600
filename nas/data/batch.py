"""A batch of images, and the seam between what hands batches out and who trains on them."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """What a network is trained and evaluated on."""

    images: Tensor
    """(B, C, H, W) float32, normalised per channel."""
    labels: Tensor
    """(B,) int64, from 0 to classes - 1."""


class Stream(Protocol):
    """An endless stream of training batches, one shuffled epoch after another, that can go on from a checkpoint."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    def next(self) -> Batch:
        """The next batch."""

    def state_dict(self) -> dict[str, Any]:
        """Its place in the epoch as tensors and whole numbers; the generators' states are not in it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a stream over the same data stood, once the generators have their states back.

        Raises:
            UnusableInput: The state is from a stream with another number of images or another batch size.
        """


def first_images(batches: Iterable[Batch], most: int) -> Iterator[Batch]:
    """The first ``most`` images of ``batches``, or all where there are fewer."""
    for batch in batches:
        yield Batch(batch.images[:most], batch.labels[:most])
        most -= len(batch.labels)
        if most <= 0:
            return
