"""Text to token numbers, with torch only: the file of a found network for other programs has these functions, too."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PAD = "<pad>"
UNKNOWN = "<unk>"
END = "<eos>"


def tokens_of(text: str, level: str) -> list[str]:
    """The characters of ``text``, or its words between blanks with ``<eos>`` at the end of every line."""
    if level == "character":
        return list(text)
    return [token for line in text.splitlines() for token in (*line.split(), END)]


def numbered(tokens: Sequence[str], numbers: Mapping[str, int]) -> Tensor:
    """``tokens`` by their numbers, (N,) int64; those that have none get that of ``<unk>``."""
    return torch.tensor([numbers.get(token, numbers[UNKNOWN]) for token in tokens], dtype=torch.int64)


def prepared_text(text: str, preparation: Mapping[str, Any]) -> Tensor:
    """A running text as a network reads it, (1, tokens) int64."""
    numbers = {token: number for number, token in enumerate(preparation["vocabulary"])}
    return numbered(tokens_of(text, preparation["level"]), numbers)[None]


def prepared_texts(texts: Sequence[str], preparation: Mapping[str, Any]) -> Tensor:
    """Texts to be classified, (N, length) int64: longer ones are cut, shorter ones padded.

    An empty text is one unknown token.
    """
    numbers = {token: number for number, token in enumerate(preparation["vocabulary"])}
    rows = torch.full((len(texts), preparation["length"]), numbers[PAD])
    for row, text in zip(rows, texts, strict=True):
        tokens = tokens_of(text, preparation["level"])[: len(row)] or [UNKNOWN]
        row[: len(tokens)] = numbered(tokens, numbers)
    return rows
