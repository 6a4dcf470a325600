"""Depthwise convolution with kernels for its value and for both of its gradients, differentiable as often as one likes.

Value, input gradient and weight gradient are each bilinear, and the derivatives of each are the other two.
"""

import ctypes
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from nas.operations.batched import library


class Geometry(NamedTuple):
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


class _Convolution(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("n", "c", "h", "w", "ho", "wo", "stride", "threads")],
        *[(name, ctypes.c_int64) for name in ("kernel", "dilation", "padding")],
        *[(name, ctypes.c_void_p) for name in ("x", "weight", "y")],
    ]


def depthwise_convolution(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """``x`` (batch, C, H, W) with ``weight`` (C, 1, k, k); the kernels are used where they can be."""
    square = weight.shape[2] == weight.shape[3] and x.shape[1] == weight.shape[0]
    if not (square and library.usable(x)):
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])
    geometry = Geometry(stride, padding, dilation, (x.shape[2], x.shape[3]), weight.shape[2])
    return _Value.apply(x, weight, geometry)


def _run(name: str, x: Tensor, weight: Tensor, y: Tensor, geometry: Geometry) -> None:
    settings = _Convolution(
        n=x.shape[0],
        c=x.shape[1],
        h=x.shape[2],
        w=x.shape[3],
        ho=y.shape[2],
        wo=y.shape[3],
        stride=geometry.stride,
        threads=torch.get_num_threads(),
        kernel=geometry.kernel,
        dilation=geometry.dilation,
        padding=geometry.padding,
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        y=y.data_ptr(),
    )
    library.call(name, settings, x.dtype)


def _empty(like: Tensor, batch: int, channels: int, sides: tuple[int, int]) -> Tensor:
    return like.new_empty(batch, *sides, channels).permute(0, 3, 1, 2)


class _Value(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        x, weight = _nhwc(x), weight.contiguous()
        y = _empty(x, x.shape[0], x.shape[1], geometry.output_sides)
        _run("depthwise_forward", x, weight, y, geometry)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gx = _InputGradient.apply(gy, weight, ctx.geometry) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(x, gy, ctx.geometry) if ctx.needs_input_grad[1] else None
        return gx, gw, None


class _InputGradient(Function):
    @staticmethod
    def forward(ctx: Any, gy: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(gy, weight)
        ctx.geometry = geometry
        gy, weight = _nhwc(gy), weight.contiguous()
        gx = _empty(gy, gy.shape[0], gy.shape[1], geometry.input_sides)
        _run("depthwise_backward_input", gx, weight, gy, geometry)
        return gx

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        gy, weight = ctx.saved_tensors
        ggy = _Value.apply(ggx, weight, ctx.geometry) if ctx.needs_input_grad[0] else None
        gw = _WeightGradient.apply(ggx, gy, ctx.geometry) if ctx.needs_input_grad[1] else None
        return ggy, gw, None


class _WeightGradient(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gy: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, gy)
        ctx.geometry = geometry
        x, gy = _nhwc(x), _nhwc(gy)
        gw = x.new_empty(x.shape[1], 1, geometry.kernel, geometry.kernel)
        _run("depthwise_backward_weight", x, gw, gy, geometry)
        return gw

    @staticmethod
    def backward(ctx: Any, ggw: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, gy = ctx.saved_tensors
        gx = _InputGradient.apply(gy, ggw, ctx.geometry) if ctx.needs_input_grad[0] else None
        ggy = _Value.apply(x, ggw, ctx.geometry) if ctx.needs_input_grad[1] else None
        return gx, ggy, None


def _nhwc(x: Tensor) -> Tensor:
    """``x`` (batch, C, H, W) with the channels innermost in memory, whatever ``is_contiguous`` says of sides of 1."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
