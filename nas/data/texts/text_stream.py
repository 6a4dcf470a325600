"""A running text as a data set: rows of it side by side, piece after piece, each going on where the last one ended."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from nas.data.batches import Batch, Preparation, Stream, Transform
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue, UnusableInput, require

EVALUATED_ROWS = 10  # side by side: each begins with an empty memory
SHORT = 0.05  # the share of batches with half the length, where lengths vary


class TextDataset(ArrayDataset):
    """Tokens in their order. A sample is a piece of ``length`` tokens, its targets the tokens one place further.

    Args:
        tokens: (M,) int64.
        length: Tokens in a piece.
        varied: Whether some training batches have pieces of half the length.
    """

    def __init__(self, tokens: Tensor, length: int, varied: bool = False) -> None:
        self.tokens, self.length, self.varied = tokens, length, varied
        pieces = (len(tokens) - 1) // length
        inputs, targets = tokens[: pieces * length], tokens[1 : pieces * length + 1]
        super().__init__(inputs.view(pieces, length), targets.view(pieces, length))

    def select(self, indices: Tensor) -> "TextDataset":
        raise InvalidValue("data", "text", "a running text has no samples that could be chosen: it goes on")

    def joined(self, other: ArrayDataset) -> "TextDataset":
        assert isinstance(other, TextDataset)
        return TextDataset(torch.cat([self.tokens, other.tokens]), self.length, self.varied)

    def to(self, device: torch.device | str) -> "TextDataset":
        return TextDataset(self.tokens.to(device), self.length, self.varied)

    def samples_of_epoch(self, epoch_samples: int, batch_size: int = 1) -> int:
        """As of any data: a piece of half the length is a sample, too, so there are more of them where some are."""
        stream = TextStream(self, batch_size, Generator())
        return self._passes(epoch_samples) * stream.steps_per_epoch * stream.batch_size

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> Stream:  # type: ignore[override]
        return TextStream(self, batch_size, order_generator)

    def _in_order(self, batch_size: int, normalisation: Transform) -> Iterator[Batch]:
        rows = rows_of(self.tokens, min(batch_size, EVALUATED_ROWS), self.length)
        for start in range(0, rows.shape[1] - 1, self.length):
            yield _piece(rows, start, self.length)


class TextStream(Stream):
    """Batches of a text in ``batch_size`` rows; after its last whole piece it begins again, with an empty memory.

    Raises:
        InvalidValue: ``batch_size`` is below 1.
    """

    def __init__(self, text: TextDataset, batch_size: int, generator: Generator) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "it must be at least 1")
        self._rows = rows_of(text.tokens, batch_size, text.length)
        self._length, self._varied, self._generator = text.length, text.varied, generator
        self._position = 0
        self._state: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Rows that the text is long enough for."""
        return len(self._rows)

    @property
    def steps_per_epoch(self) -> int:
        mean = self._length * (1 - SHORT / 2) if self._varied else self._length
        return max(1, int((self._rows.shape[1] - 1) / mean))

    def next(self) -> Batch:
        length = self._length
        if self._varied and float(torch.rand((), generator=self._generator)) < SHORT:
            length = max(2, length // 2)
        if self._position + length > self._rows.shape[1] - 1:
            self._position, self._state = 0, None
        batch = _piece(self._rows, self._position, length)._replace(state=self._state)
        self._position += length
        return batch

    def carry(self, state: Tensor | None) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        rows, columns = self._rows.shape
        return {"position": self._position, "memory": self._state, "rows": rows, "columns": columns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved, own = (state.get("rows"), state.get("columns")), tuple(self._rows.shape)
        if saved != own:
            there, here = (f"{rows} rows of {columns} tokens" for rows, columns in (saved, own))
            raise UnusableInput(f"The saved place is in a text of {there}, and this run's has {here}.")
        memory = state["memory"]
        self._position = state["position"]
        self._state = None if memory is None else memory.to(self._rows.device)


def rows_of(tokens: Tensor, most: int, length: int) -> Tensor:
    """``tokens`` (M,) in at most ``most`` rows of consecutive ones, (rows, columns), each longer than ``length``."""
    rows = max(1, min(most, len(tokens) // (length + 1)))
    columns = len(tokens) // rows
    return tokens[: rows * columns].view(rows, columns)


def _piece(rows: Tensor, start: int, length: int) -> Batch:
    end = min(start + length, rows.shape[1] - 1)
    return Batch(rows[:, start:end], rows[:, start + 1 : end + 1])
