"""Categorical columns of a table as vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
