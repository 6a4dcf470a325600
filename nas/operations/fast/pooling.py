"""Maximum and average pooling of one tensor, 3x3 with a margin of one, as every edge of a cell reads it."""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.derivatives import differentiable_gradients

Known = tuple[Tensor, Tensor] | None  # mean and biased variance (planes, C), where they have been computed already


class _Pooling(library.Settings):
    _fields_ = (
        *library.numbers("n", "c", "h", "w", "ho", "wo", "stride", "threads"),
        *library.addresses("x", "maximum", "mean", "argument", "gmaximum", "gmean", "gx"),
        ("statistics", ctypes.c_void_p * 4),
    )


def poolings(x: Tensor, stride: int) -> tuple[tuple[Tensor, Known], tuple[Tensor, Known]]:
    """The maximum and the average, each with its batch mean and biased variance (1, C) where the kernels give them.

    Args:
        x: (batch, 1, H, W, C); the results have ``ceil(side / stride)``. Zeros of the margin count in no average.
    """
    if library.usable(x):
        maximum, average, *statistics = _PoolingFunction.apply(x, stride)
        return (maximum, (statistics[0], statistics[1])), (average, (statistics[2], statistics[3]))
    return tuple((plane, None) for plane in poolings_in_torch(x, stride))  # type: ignore[return-value]


def poolings_in_torch(x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The maximum and the average in PyTorch's operations."""
    flat = x.squeeze(1).permute(0, 3, 1, 2)
    maximum = F.max_pool2d(flat, 3, stride, padding=1)
    average = F.avg_pool2d(flat, 3, stride, padding=1, count_include_pad=False)
    return maximum.permute(0, 2, 3, 1).unsqueeze(1), average.permute(0, 2, 3, 1).unsqueeze(1)


class _PoolingFunction(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> tuple[Tensor, ...]:
        source = x.contiguous()
        batch, _, height, width, channels = x.shape
        shape = (batch, 1, -(-height // stride), -(-width // stride), channels)
        maximum, average = x.new_empty(shape), x.new_empty(shape)
        argument = torch.empty(shape, dtype=torch.uint8)
        statistics = [x.new_empty(1, channels) for _ in range(4)]
        settings = _settings(x.shape, argument, stride, x=source, maximum=maximum, mean=average)
        settings.statistics = (ctypes.c_void_p * 4)(*(one.data_ptr() for one in statistics))
        settings.run("pool_forward", x.dtype)
        ctx.stride = stride
        # The input is kept for a second derivative; it is what the cell keeps anyway.
        ctx.save_for_backward(x, argument)
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        return maximum, average, *statistics

    @staticmethod
    def backward(ctx: Any, gmaximum: Tensor | None, gaverage: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
        x, argument = ctx.saved_tensors
        if gmaximum is None and gaverage is None:
            return None, None
        if torch.is_grad_enabled():
            gradients = [x.new_zeros(argument.shape) if one is None else one for one in (gmaximum, gaverage)]
            return _PoolingGradient.apply(*gradients, x, argument, ctx.stride), None
        return _gradient(gmaximum, gaverage, x, argument, ctx.stride), None


class _PoolingGradient(Function):
    """The gradient as a function of its own: linear in what comes back, and constant in ``x`` almost everywhere."""

    @staticmethod
    def forward(ctx: Any, gmaximum: Tensor, gaverage: Tensor, x: Tensor, argument: Tensor, stride: int) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(gmaximum, gaverage, x, argument)
        return _gradient(gmaximum, gaverage, x, argument, stride)

    @staticmethod
    def backward(ctx: Any, vx: Tensor) -> tuple[Tensor | None, ...]:
        gmaximum, gaverage, x, argument = ctx.saved_tensors
        stride = ctx.stride
        if torch.is_grad_enabled():

            def value(gmaximum: Tensor, gaverage: Tensor) -> list[Tensor]:
                leaf = x.detach().requires_grad_()
                planes = poolings_in_torch(leaf, stride)
                return list(torch.autograd.grad(planes, [leaf], [gmaximum, gaverage], create_graph=True))

            found = differentiable_gradients(value, [gmaximum, gaverage], ctx.needs_input_grad[:2], [vx])
            return *found, None, None, None
        maximum, average = x.new_empty(argument.shape), x.new_empty(argument.shape)
        planes = {"x": vx.contiguous(), "maximum": maximum, "mean": average}
        _settings(x.shape, argument, stride, **planes).run("pool_tangent", x.dtype)
        return maximum, average, None, None, None


def _gradient(gmaximum: Tensor | None, gaverage: Tensor | None, x: Tensor, argument: Tensor, stride: int) -> Tensor:
    gmaximum = None if gmaximum is None else gmaximum.contiguous()
    gaverage = None if gaverage is None else gaverage.contiguous()
    gx = x.new_empty(x.shape)
    planes = {"gmaximum": gmaximum, "gmean": gaverage, "gx": gx}
    _settings(x.shape, argument, stride, **planes).run("pool_backward", x.dtype)
    return gx


def _settings(shape: torch.Size, argument: Tensor, stride: int, **planes: Tensor | None) -> _Pooling:
    """The settings of an input of ``shape`` (batch, 1, H, W, C)."""
    return _Pooling(
        n=shape[0],
        c=shape[4],
        h=shape[2],
        w=shape[3],
        ho=argument.shape[2],
        wo=argument.shape[3],
        stride=stride,
        argument=argument,
        **planes,
    )
