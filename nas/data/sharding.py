"""Each rank's share of the batches of a data-parallel run."""

from typing import Any

from nas.data.batch import Batch, Stream
from nas.distributed import Ranks
from nas.errors import InvalidValue


class ShardedStream:
    """A :class:`nas.data.batch.Stream` of this rank's share of every batch of ``stream``.

    All ranks draw the same joint batches, augmented alike, so that the data do not depend on how many there are.
    """

    def __init__(self, stream: Stream, ranks: Ranks) -> None:
        self._stream, self._ranks = stream, ranks

    @property
    def steps_per_epoch(self) -> int:
        return self._stream.steps_per_epoch

    def next(self) -> Batch:
        batch = self._stream.next()
        share, rest = divmod(len(batch.labels), self._ranks.count)
        if rest or share < 2:
            allowed = f"it must be a multiple of the {self._ranks.count} processes, with 2 samples for each at least"
            raise InvalidValue("training.batch_size", len(batch.labels), allowed)
        own = slice(self._ranks.rank * share, (self._ranks.rank + 1) * share)
        return Batch(batch.images[own], batch.labels[own])

    def state_dict(self) -> dict[str, Any]:
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.load_state_dict(state)


def sharded(stream: Stream, ranks: Ranks) -> Stream:
    """This rank's share of ``stream``."""
    return stream if ranks.count == 1 else ShardedStream(stream, ranks)
