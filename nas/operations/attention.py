"""Attention over places (Vaswani et al., 2017), plain and with its number of heads open.

Inputs are (batch, places, width). Heads have no weights of their own: the number of heads says how queries, keys and
values are cut into pieces, so that all numbers share them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention(
    queries: Tensor, keys: Tensor, values: Tensor, causal: bool, fused: bool, known: Tensor | None = None
) -> Tensor:
    """``softmax(q k^T / sqrt(d) + mask) v``, all (..., places, d).

    Args:
        causal: Whether a place sees itself and those before it only.
        fused: Whether PyTorch's one kernel computes it: faster in training, but it has no second derivative, and on
            processors PyTorch's counter of multiply-adds does not see it.
        known: (batch, places), where a text has tokens: no place sees the others; for what is not causal.
    """
    there = None if known is None else known[:, None, None]
    if fused:
        return F.scaled_dot_product_attention(queries, keys, values, there, is_causal=causal)
    scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    if there is not None:
        scores = scores.masked_fill(~there, float("-inf"))
    return scores.softmax(-1) @ values


class Attention(nn.Module):
    """Self-attention with so many heads.

    Attributes:
        once: Whether it is differentiated at most once; only then the fused kernel may train it.
    """

    def __init__(self, width: int, heads: int, causal: bool, once: bool = True) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 3 * width, bias=False)  # a bias of keys would have a gradient of zero
        self.outer = nn.Linear(width, width)
        self.heads, self.causal, self.once = heads, causal, once

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        return self.outer(self.attended(self.inner(x), self.heads, known))

    def attended(self, x: Tensor, heads: int, known: Tensor | None) -> Tensor:
        """Queries, keys and values side by side (batch, places, 3 width) to (batch, places, width)."""
        pieces = x.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (3, batch, heads, places, width / heads)
        queries, keys, values = pieces.unbind(0)
        found = attention(queries, keys, values, self.causal, self.once and self.training, known)
        return found.transpose(1, 2).flatten(2)


class MixedAttention(Attention):
    """The weighted sum over numbers of heads, in front of the last matrix."""

    def __init__(self, width: int, options: Sequence[int], causal: bool) -> None:
        super().__init__(width, max(options), causal, once=False)
        self.options = tuple(options)

    def forward(self, x: Tensor, known: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """``weights`` (options,), or None where there is one."""
        x = self.inner(x)
        found = [self.attended(x, heads, known) for heads in self.options]
        if weights is None:
            return self.outer(found[0])
        return self.outer(sum((weight * one for weight, one in zip(weights, found, strict=True)), x.new_zeros(())))
