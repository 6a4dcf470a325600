"""Categorical columns of a table as vectors, and where the tokens of a padded text end."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.signature import PADDING


def embedding_size(codes: int) -> int:
    """How many numbers stand for one of so many ``codes``: half of them, 16 at most."""
    return min(16, (codes + 1) // 2)


class ColumnEmbedding(nn.Module):
    """Rows (batch, columns) to (batch, features): the last columns are codes, and each becomes a vector.

    Args:
        sizes: How many codes each of the last columns has; they count from 0 and ride as numbers.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.columns = nn.ModuleList(nn.Embedding(size, embedding_size(size)) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        numeric = x.shape[1] - len(self.columns)
        codes = x[:, numeric:].long().unbind(1)
        vectors = [column(code).to(x.dtype) for column, code in zip(self.columns, codes, strict=True)]
        return torch.cat([x[:, :numeric], *vectors], dim=1)


def known_tokens(tokens: Tensor) -> Tensor:
    """Which of ``tokens`` (batch, length) belong to their text, bool; the first one always does."""
    first = torch.arange(tokens.shape[1], device=tokens.device) == 0
    return first | (tokens != PADDING)  # a slice would be of length - 1: an export would refuse lengths of 1 and 2


def mean_over(x: Tensor, known: Tensor | None) -> Tensor:
    """The mean of ``x`` (batch, places, width) over the places that are ``known`` (batch, places), or over all."""
    if known is None:
        return x.mean(1)
    there = known[..., None].to(x.dtype)
    return (x * there).sum(1) / there.sum(1)
