"""The mixed layers of a chain (:mod:`nas.operations.mixed`), each weighted sum in one pass over the images.

Parameters, state dict, random draws and numbers are those of the plain layers, which take over without the kernels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.activation import activated, can_activate
from nas.operations.fast.derivatives import wanted_inputs
from nas.operations.fast.mixed_pooling import Windows, can_pool, mixed_poolings
from nas.operations.mixed import MixedConvolution, MixedPooling, MixedSlot, Weights


class FastConvolution(MixedConvolution):
    """Batch norm, activations and mask behind the convolution at once."""

    def activated(self, y: Tensor, weights: Weights) -> Tensor:
        functions = list(self.activation.options)
        if not can_activate(y, functions):
            return super().activated(y, weights)
        by_width, by_function = weights.get("filters"), weights.get("activation")
        mask = y.new_ones(y.shape[1]) if by_width is None else by_width @ self.mask.masks
        factors = mask[None] if by_function is None else torch.outer(by_function, mask)
        return activated(y, cast(nn.BatchNorm2d, self.normalisation), factors, functions)


class FastPooling(MixedPooling):
    """All poolings at once."""

    def __init__(self, sizes: Sequence[int], kinds: Sequence[str], stride: int, rank: int = 2) -> None:
        super().__init__(sizes, kinds, stride, rank)
        self.windows = Windows(tuple(sizes), tuple(kinds), stride)

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        if not can_pool(x, self.windows):
            return super().forward(x, weights)
        return mixed_poolings(x, self.joint(weights, x), self.windows)


class FastSlot(MixedSlot):
    """The layers added up in place, none of them multiplied by its type's weight or filled up with zeros.

    A layer's output is linear in the weights of its widths or pool sizes, so that the type's weight goes into them.
    """

    def forward(self, x: Tensor, by_type: Tensor | None, weights: Mapping[str, Weights]) -> Tensor:
        if by_type is None or not library.usable(x):
            return super().forward(x, by_type, weights)
        terms = []
        for weight, (label, layer) in zip(by_type, self.items(), strict=False):
            own = weights[label]
            terms.append(layer(x, {**own, layer.scales: weight * own.get(layer.scales, x.new_ones(1))}))  # type: ignore[call-overload]
        widest = next((place for place, term in enumerate(terms) if term.shape[1] == self.width), None)
        total = by_type[-1] * x if widest is None else terms.pop(widest)
        for term in terms:
            total = _Added.apply(total, term, None)
        return total if widest is None or not self.optional else _Added.apply(total, x, by_type[-1])


class _Added(Function):
    """``total`` (batch, C, H, W) with ``weight * x`` added to its first channels, in place; no weight is a 1."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.mark_dirty(total)
        part = total[:, : x.shape[1]]
        part.add_(x) if weight is None else part.addcmul_(x, weight)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        part = g[:, : x.shape[1]]
        if weight is None:
            return g, part, None
        of_x, of_weight = wanted_inputs(ctx, 3)[1:]
        return g, part * weight if of_x else None, (part * x).sum() if of_weight else None
