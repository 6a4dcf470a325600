"""The weighted sum of poolings of several sizes and kinds, in one pass over what they read.

It is linear in the weights, in the input (where the maxima are stays) and, in its gradients, in what comes back: the
derivatives of each of the three functions below are the other two.
"""

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.derivatives import wanted_inputs

LARGEST = 15  # of the sizes: a byte holds a place in such a window


class Windows(NamedTuple):
    """The windows of every pooling: they begin ``(size - 1) // 2`` before each ``stride``-th pixel.

    ``kinds`` are max and average or one of them; pixels beyond the border count in neither.
    """

    sizes: tuple[int, ...]
    kinds: tuple[str, ...]
    stride: int


class _Pools(library.Settings):
    _fields_ = (
        *library.numbers("n", "c", "h", "w", "ho", "wo", "stride", "sizes", "threads"),
        ("size", ctypes.POINTER(ctypes.c_int64)),
        *library.addresses("maximum", "mean", "argument", "x", "out"),
        *library.addresses("maximum_sums", "mean_sums"),
    )


def can_pool(x: Tensor, windows: Windows) -> bool:
    """Whether :func:`mixed_poolings` can compute ``windows`` of ``x``."""
    return library.usable(x) and max(windows.sizes) <= LARGEST


def mixed_poolings(x: Tensor, weights: Tensor, windows: Windows) -> Tensor:
    """(batch, C, H, W) to (batch, C, ceil(H / stride), ceil(W / stride)), in memory with the channels innermost.

    Args:
        weights: (kinds, sizes).
    """
    batch, channels, height, width = x.shape
    sides = (-(-height // windows.stride), -(-width // windows.stride))
    places = torch.empty((len(windows.sizes), batch, *sides, channels), dtype=torch.uint8)
    return _Pooled.apply(x, weights.to(x.dtype), places, windows, True)


class _Pooled(Function):
    """The sum for ``x`` (batch, C, H, W); ``places`` of the maxima (sizes, batch, H', W', C) are found or given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, places: Tensor, windows: Windows, search: bool) -> Tensor:
        ctx.save_for_backward(x, weights, places)
        ctx.windows = windows
        _, batch, height, width, channels = places.shape
        # No view: a view that a function returns may not be changed in place.
        out = torch.empty((batch, channels, height, width), dtype=x.dtype, memory_format=torch.channels_last)
        _run("pools_search" if search else "pools_value", _nhwc(x), _nhwc(out), weights, places, windows)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, places = ctx.saved_tensors
        of_x, of_weights = wanted_inputs(ctx, 2)
        gx = _PooledInputGradient.apply(g, weights, places, ctx.windows, x.shape) if of_x else None
        gw = _PooledWeightGradient.apply(x, g, places, ctx.windows) if of_weights else None
        return gx, gw, None, None, None


class _PooledInputGradient(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, weights: Tensor, places: Tensor, windows: Windows, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(g, weights, places)
        ctx.windows = windows
        batch, channels, height, width = shape
        gx = g.new_empty(batch, height, width, channels)
        _run("pools_adjoint", gx, _nhwc(g), weights, places, windows)
        return gx.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, weights, places = ctx.saved_tensors
        of_g, of_weights = wanted_inputs(ctx, 2)
        gg = _Pooled.apply(v, weights, places, ctx.windows, False) if of_g else None
        gw = _PooledWeightGradient.apply(v, g, places, ctx.windows) if of_weights else None
        return gg, gw, None, None, None


class _PooledWeightGradient(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, places: Tensor, windows: Windows) -> Tensor:
        ctx.save_for_backward(x, g, places)
        ctx.windows = windows
        sums = x.new_empty(len(windows.kinds), x.shape[0], len(windows.sizes))
        _run("pools_products", _nhwc(x), _nhwc(g), sums, places, windows)
        return sums.sum(1)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        x, g, places = ctx.saved_tensors
        of_x, of_g = wanted_inputs(ctx, 2)
        gx = _PooledInputGradient.apply(g, v, places, ctx.windows, x.shape) if of_x else None
        gg = _Pooled.apply(x, v, places, ctx.windows, False) if of_g else None
        return gx, gg, None, None


def _nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _run(name: str, x: Tensor, out: Tensor, by_kind: Tensor, places: Tensor, windows: Windows) -> None:
    """``x`` and ``out`` channels-last, ``by_kind`` the weights (kinds, sizes) or their sums (kinds, batch, sizes)."""
    _, batch, height, width, channels = places.shape
    settings = _Pools(
        n=batch,
        c=channels,
        h=x.shape[1],
        w=x.shape[2],
        ho=height,
        wo=width,
        stride=windows.stride,
        sizes=len(windows.sizes),
        size=(ctypes.c_int64 * len(windows.sizes))(*windows.sizes),
        argument=places if "max" in windows.kinds else None,
        x=x,
        out=out,
    )
    by_kind = by_kind.contiguous()
    rows = {"max": "maximum", "average": "mean"}
    for kind, row in zip(windows.kinds, by_kind, strict=True):
        settings.fill(**{rows[kind] + ("_sums" if by_kind.dim() == 3 else ""): row})
    settings.run(name, x.dtype)
