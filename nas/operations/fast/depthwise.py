"""Depthwise convolution, fast in its value and in both of its gradients, differentiable any number of times.

Value, input gradient and weight gradient are bilinear, and the derivatives of each are the other two. On a CPU
PyTorch is fast at the value, and at the weight gradient of kernels that are not dilated and at most 3 wide, but ten
times slower at the rest; where there are no C++ kernels, everything is therefore made of those two.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn.grad import conv2d_input, conv2d_weight

from nas.operations.fast import library

FAST_WIDTH = 3  # of kernels whose weight gradient PyTorch computes quickly


class Geometry(NamedTuple):
    """The settings of a depthwise convolution; kernels are square, sides are (height, width)."""

    stride: int
    padding: int
    dilation: int
    input_sides: tuple[int, int]
    kernel: int

    @property
    def output_sides(self) -> tuple[int, int]:
        height, width = (
            (side + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
            for side in self.input_sides
        )
        return height, width


class _Convolution(library.Settings):
    _fields_ = (
        *library.numbers("n", "c", "h", "w", "ho", "wo", "stride", "threads"),
        *library.numbers("kernel", "dilation", "padding"),
        *library.addresses("x", "weight", "y"),
    )


def depthwise_convolution(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """``x`` (batch, C, H, W) convolved with ``weight`` (C, 1, k, k), by the C++ kernels where they are usable."""
    square = weight.shape[2] == weight.shape[3] and x.shape[1] == weight.shape[0]
    lowered = torch.is_autocast_enabled(x.device.type)  # to a precision that only PyTorch's own gradients know of
    if not square or x.device.type != "cpu" or (lowered and not library.usable(x)):
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])
    if not library.usable(x):
        if stride > 1 and dilation % stride == 0 and padding % stride == 0:  # most pixels are never looked at
            x, stride, padding, dilation = x[:, :, ::stride, ::stride], 1, padding // stride, dilation // stride
        if stride > 1 or (dilation == 1 and weight.shape[2] <= FAST_WIDTH):  # PyTorch's own gradients are fast
            return F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])
    geometry = Geometry(stride, padding, dilation, (x.shape[2], x.shape[3]), weight.shape[2])
    return _Part.apply(x, None, weight, geometry)


def _run(name: str, x: Tensor, weight: Tensor, y: Tensor, geometry: Geometry) -> None:
    settings = _Convolution(
        n=x.shape[0],
        c=x.shape[1],
        h=x.shape[2],
        w=x.shape[3],
        ho=y.shape[2],
        wo=y.shape[3],
        stride=geometry.stride,
        kernel=geometry.kernel,
        dilation=geometry.dilation,
        padding=geometry.padding,
        x=x,
        weight=weight,
        y=y,
    )
    settings.run(name, x.dtype)


class _Part(Function):
    """One of ``x``, ``y`` and ``weight``, or its gradient, from the two others; what is wanted is given as None.

    Without ``y`` it is the convolution, without ``x`` its input gradient, without ``weight`` its weight gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, y: Tensor | None, weight: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, y, weight)
        ctx.geometry = geometry
        x, y = (None if images is None else _nhwc(images) for images in (x, y))
        weight = None if weight is None else weight.contiguous()
        if weight is None:
            assert x is not None
            assert y is not None
            if not library.usable(x):
                return _weight_gradient(x, y, geometry)
            weight = x.new_empty(x.shape[1], 1, geometry.kernel, geometry.kernel)
            _run("depthwise_backward_weight", x, weight, y, geometry)
            return weight
        if y is None:
            assert x is not None
            if not library.usable(x):
                return F.conv2d(x, weight, None, *geometry[:3], groups=x.shape[1])
            y = x.new_empty(len(x), *geometry.output_sides, x.shape[1]).permute(0, 3, 1, 2)
            _run("depthwise_forward", x, weight, y, geometry)
            return y
        if not library.usable(y):
            return _input_gradient(y, weight, geometry)
        x = y.new_empty(len(y), *geometry.input_sides, y.shape[1]).permute(0, 3, 1, 2)
        _run("depthwise_backward_input", x, weight, y, geometry)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = [gradient if tensor is None else tensor for tensor in ctx.saved_tensors]
        found: list[Tensor | None] = [None] * 4
        for index in range(3):
            if ctx.needs_input_grad[index]:
                others = [None if other == index else tensor for other, tensor in enumerate(tensors)]
                found[index] = _Part.apply(*others, ctx.geometry)
        return tuple(found)


def _nhwc(x: Tensor) -> Tensor:
    """``x`` (batch, C, H, W) with the channels innermost in memory, whatever ``is_contiguous`` says of sides of 1."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _input_gradient(gy: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """In PyTorch's operations; with a stride of 1 it is the convolution with the flipped kernel."""
    stride, padding, dilation, sides, kernel = geometry
    groups = gy.shape[1]
    if stride > 1:
        return conv2d_input([*gy.shape[:2], *sides], weight, gy, stride, padding, dilation, groups)
    return F.conv2d(gy, weight.flip(2, 3), None, 1, dilation * (kernel - 1) - padding, dilation, groups)


def _weight_gradient(x: Tensor, gy: Tensor, geometry: Geometry) -> Tensor:
    """In PyTorch's operations, in strips of kernels that are narrow and not dilated."""
    stride, padding, dilation, _, kernel = geometry
    groups = x.shape[1]
    if stride == 1 and dilation > 1 and padding % dilation == 0 and x.shape == gy.shape:
        x, gy = (_subgrids(one, dilation) for one in (x, gy))
        padding, dilation = padding // dilation, 1
    if kernel <= FAST_WIDTH or dilation > 1:
        return conv2d_weight(x, (groups, 1, kernel, kernel), gy, stride, padding, dilation, groups)
    width = stride * (gy.shape[3] - 1) + FAST_WIDTH  # of what a strip sees of x
    strips = []
    for first in range(0, kernel, FAST_WIDTH):
        start = min(first, kernel - FAST_WIDTH)
        before = padding - start
        seen = F.pad(x, (before, width - x.shape[3] - before))
        strip = conv2d_weight(seen, (groups, 1, kernel, FAST_WIDTH), gy, stride, (padding, 0), 1, groups)
        strips.append(strip[..., first - start :])
    return torch.cat(strips, dim=-1)


def _subgrids(x: Tensor, step: int) -> Tensor:
    """``x`` (batch, C, H, W) as the grids of every ``step``-th pixel, (batch * step^2, C, ceil(H / step), ...)."""
    batch, channels, height, width = x.shape
    x = F.pad(x, (0, -width % step, 0, -height % step))
    parts = x.view(batch, channels, -(-height // step), step, -(-width // step), step)
    grids = parts.permute(0, 3, 5, 2, 4, 1).reshape(batch * step**2, *parts.shape[2:5:2], channels)
    return grids.permute(0, 3, 1, 2)
