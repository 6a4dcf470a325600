"""ReLU, depthwise and pointwise convolution of several operations at once, optionally behind a batch norm."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from nas.operations.batched import library
from nas.operations.batched.depthwise import depthwise_convolution
from nas.operations.batched.derivatives import differentiable_gradients
from nas.operations.batched.normalisation import Statistics, normalised


@dataclass(frozen=True)
class Kernel:
    """The depthwise convolution of one group."""

    size: int
    dilation: int

    @property
    def padding(self) -> int:
        return self.dilation * (self.size // 2)


class _Group(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("kernel", "dilation", "padding")]


class _Separable(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("n", "c", "h", "w", "ho", "wo", "stride", "inputs", "groups", "threads")],
        ("group", ctypes.POINTER(_Group)),
        *[(name, ctypes.c_void_p) for name in ("x", "mean", "scale", "depthwise", "pointwise")],
        *[(name, ctypes.c_void_p) for name in ("y", "y_mean", "y_variance", "gy", "gx", "gdepthwise", "gpointwise")],
        ("batch_statistics", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Layer:
    """What a separable layer computes: its groups' kernels, its stride, and the statistics that normalise its input."""

    kernels: tuple[Kernel, ...]
    stride: int
    statistics: Statistics | None


def separable(
    x: Tensor, layer: Layer, depthwise: Sequence[Tensor], pointwise: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """The convolutions of ``relu(x)``, or of ``relu(normalised x)`` where ``layer`` has statistics.

    Args:
        x: (batch, 1 or groups, H, W, C); a single plane is read by every group.
        depthwise: Per group (C, 1, k, k).
        pointwise: Per group (C, C, 1, 1).

    Returns:
        (batch, groups, ceil(H / stride), ceil(W / stride), C) and, where they are at hand, its batch mean and biased
        variance (groups, C), which no gradient goes through: whoever normalises with them accounts for it.
    """
    if library.usable(x) and (layer.statistics is None or layer.statistics.known):
        y, mean, variance = _SeparableFunction.apply(x, layer, *depthwise, *pointwise)
        return y, (mean, variance)
    return separable_in_torch(x, layer, depthwise, pointwise), None


def separable_in_torch(x: Tensor, layer: Layer, depthwise: Sequence[Tensor], pointwise: Sequence[Tensor]) -> Tensor:
    """The same value in PyTorch's operations, differentiable as often as one likes."""
    z = x if layer.statistics is None else normalised(x, layer.statistics)
    z = F.relu(z).permute(0, 1, 4, 2, 3)
    planes = []
    for group, (kernel, weight, mixing) in enumerate(zip(layer.kernels, depthwise, pointwise, strict=True)):
        plane = z[:, group if z.shape[1] > 1 else 0]
        filtered = depthwise_convolution(plane, weight, layer.stride, kernel.padding, kernel.dilation)
        planes.append(F.conv2d(filtered, mixing).permute(0, 2, 3, 1))
    return torch.stack(planes, dim=1)


class _SeparableFunction(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.layer = layer
        ctx.save_for_backward(x, *weights)  # as they came: a copy would be no part of the graph
        x, weights = x.contiguous(), tuple(weight.contiguous() for weight in weights)
        groups = len(layer.kernels)
        sides = [-(-side // layer.stride) for side in x.shape[2:4]]
        y = x.new_empty(x.shape[0], groups, *sides, x.shape[4])
        mean, variance = x.new_empty(groups, x.shape[4]), x.new_empty(groups, x.shape[4])
        settings = _settings(x, layer, weights, y)
        settings.y, settings.y_mean, settings.y_variance = map(library.pointer, (y, mean, variance))
        library.call("separable_forward", settings, x.dtype)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        groups = len(ctx.layer.kernels)
        wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:]]
        if gy is None:
            return (None,) * (2 + 2 * groups)
        if torch.is_grad_enabled():
            layer = ctx.layer

            def value(x: Tensor, *weights: Tensor) -> list[Tensor]:
                return [separable_in_torch(x, layer, weights[:groups], weights[groups:])]

            gx, *gradients = differentiable_gradients(value, [x, *weights], wanted, [gy])
            return gx, None, *gradients
        x, gy, weights = x.contiguous(), gy.contiguous(), [weight.contiguous() for weight in weights]
        settings = _settings(x, ctx.layer, weights, gy)
        settings.gy = gy.data_ptr()
        gx = torch.empty_like(x) if wanted[0] else None
        settings.gx = library.pointer(gx)
        found = [torch.empty_like(weight) for weight in weights] if any(wanted[1:]) else []
        if found:
            arrays = [library.pointers(found[:groups]), library.pointers(found[groups:])]
            settings.gdepthwise, settings.gpointwise = (ctypes.cast(array, ctypes.c_void_p) for array in arrays)
        library.call("separable_backward", settings, x.dtype)
        return gx, None, *(found if found else (None,) * len(weights))


def _settings(x: Tensor, layer: Layer, weights: Sequence[Tensor], y: Tensor) -> _Separable:
    groups = len(layer.kernels)
    batch, inputs, height, width, channels = x.shape
    settings = _Separable(
        n=batch,
        c=channels,
        h=height,
        w=width,
        ho=y.shape[2],
        wo=y.shape[3],
        stride=layer.stride,
        inputs=inputs,
        groups=groups,
        threads=torch.get_num_threads(),
        group=(_Group * groups)(*(_Group(kernel.size, kernel.dilation, kernel.padding) for kernel in layer.kernels)),
        x=x.data_ptr(),
    )
    # A structure holds addresses only: what they lead to is kept alive by attributes.
    settings.arrays = [library.pointers(list(weights[:groups])), library.pointers(list(weights[groups:]))]
    settings.depthwise, settings.pointwise = (ctypes.cast(array, ctypes.c_void_p) for array in settings.arrays)
    if layer.statistics is not None:
        settings.scale_tensor = layer.statistics.scale
        settings.mean, settings.scale = layer.statistics.mean.data_ptr(), settings.scale_tensor.data_ptr()
        settings.batch_statistics = layer.statistics.of_batch
    return settings
