"""ReLU, depthwise and pointwise convolution of several operations at once, optionally behind a batch norm."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.batch_norm_tangent import BatchNormTangent
from nas.operations.fast.depthwise import depthwise_convolution
from nas.operations.fast.derivatives import Derivatives, KernelGradient
from nas.operations.fast.normalisation import Statistics, normalised


@dataclass(frozen=True)
class Kernel:
    """The depthwise convolution of one group."""

    size: int
    dilation: int

    @property
    def padding(self) -> int:
        return self.dilation * (self.size // 2)


class _Group(ctypes.Structure):
    _fields_ = library.numbers("kernel", "dilation", "padding")


class _Separable(library.Settings):
    _fields_ = (
        *library.numbers("n", "c", "h", "w", "ho", "wo", "stride", "inputs", "groups", "threads"),
        ("group", ctypes.POINTER(_Group)),
        *library.addresses("x", "mean", "scale", "depthwise", "pointwise"),
        *library.addresses("y", "y_mean", "y_variance", "gy", "gx", "gdepthwise", "gpointwise"),
        ("batch_statistics", ctypes.c_int64),
        *library.addresses("vx", "vdepthwise", "vpointwise", "along", "across", "shift"),
        *library.addresses("ty", "second", "moments"),
    )


@dataclass(frozen=True)
class Layer:
    """A separable layer: its groups' kernels, its stride, and the statistics that normalise its input."""

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
        (batch, groups, ceil(H / stride), ceil(W / stride), C) and, where the kernels give them, its batch mean and
        biased variance (groups, C), which no gradient goes through: the normalisation accounts for it.
    """
    if library.usable(x) and (layer.statistics is None or layer.statistics.known):
        y, mean, variance = _SeparableFunction.apply(x, layer, *depthwise, *pointwise)
        return y, (mean, variance)
    return separable_in_torch(x, layer, depthwise, pointwise), None


def separable_in_torch(x: Tensor, layer: Layer, depthwise: Sequence[Tensor], pointwise: Sequence[Tensor]) -> Tensor:
    """The same value in PyTorch's operations, differentiable any number of times."""
    z = x if layer.statistics is None else normalised(x, layer.statistics)
    z = F.relu(z).permute(0, 1, 4, 2, 3)
    if x.device.type != "cpu" and len(set(layer.kernels)) == 1:
        return _in_two_convolutions(z, layer, depthwise, pointwise)
    planes = []
    for group, (kernel, weight, mixing) in enumerate(zip(layer.kernels, depthwise, pointwise, strict=True)):
        plane = z[:, group if z.shape[1] > 1 else 0]
        filtered = depthwise_convolution(plane, weight, layer.stride, kernel.padding, kernel.dilation)
        planes.append(F.conv2d(filtered, mixing).permute(0, 2, 3, 1))
    return torch.stack(planes, dim=1)


def _in_two_convolutions(z: Tensor, layer: Layer, depthwise: Sequence[Tensor], pointwise: Sequence[Tensor]) -> Tensor:
    """All groups at once, ``z`` (batch, 1 or groups, C, H, W): for a GPU, where the number of calls counts."""
    batch, _, channels, height, width = z.shape
    groups, kernel = len(layer.kernels), layer.kernels[0]
    flat = z.expand(-1, groups, -1, -1, -1).reshape(batch, groups * channels, height, width)
    weight = torch.cat(list(depthwise))
    flat = F.conv2d(flat, weight, None, layer.stride, kernel.padding, kernel.dilation, groups=groups * channels)
    flat = F.conv2d(flat, torch.cat(list(pointwise)), groups=groups)
    return flat.view(batch, groups, channels, *flat.shape[2:]).permute(0, 1, 3, 4, 2)


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
        settings.fill(y=y, y_mean=mean, y_variance=variance)
        settings.run("separable_forward", x.dtype)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        if gy is None:
            return (None,) * (2 + len(weights))
        of_weights = [any(ctx.needs_input_grad[2:])] * len(weights)
        if torch.is_grad_enabled():
            gx, *found = KernelGradient.apply(_derivatives(ctx.layer), [True, *of_weights], 1, gy, x, *weights)
        else:
            gx, *found = _gradient(ctx.layer, [x, *weights], [gy], [ctx.needs_input_grad[0], *of_weights])
        return gx, None, *found


def _derivatives(layer: Layer) -> Derivatives:
    groups = len(layer.kernels)

    def in_torch(x: Tensor, *weights: Tensor) -> list[Tensor]:
        return [separable_in_torch(x, layer, weights[:groups], weights[groups:])]

    return Derivatives(in_torch, partial(_gradient, layer), partial(_second_gradient, layer))


def _gradient(
    layer: Layer, inputs: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of ``x`` and the weights, of all weights where one is wanted."""
    groups = len(layer.kernels)
    gy, (x, *weights) = gradients[0].contiguous(), [one.contiguous() for one in inputs]
    settings = _settings(x, layer, weights, gy)
    gx = torch.empty_like(x) if wanted[0] else None
    settings.fill(gy=gy, gx=gx)
    found = [torch.empty_like(weight) for weight in weights] if any(wanted[1:]) else []
    if found:
        settings.fill(gdepthwise=found[:groups], gpointwise=found[groups:])
    settings.run("separable_backward", x.dtype)
    return [gx, *(found if found else [None] * len(weights))]


def _second_gradient(
    layer: Layer,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    directions: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of ``<gradient, directions>`` with respect to ``gy``, ``x`` and the weights."""
    groups, statistics = len(layer.kernels), layer.statistics
    gy, (x, *weights) = gradients[0].contiguous(), [one.contiguous() for one in inputs]
    vx, *vweights = [one.contiguous() for one in directions]
    settings = _settings(x, layer, weights, gy)
    settings.fill(gy=gy, vx=vx, vdepthwise=vweights[:groups], vpointwise=vweights[groups:])
    tangent = None if statistics is None else BatchNormTangent.of(x, vx, statistics)
    if tangent is not None:
        settings.fill(along=tangent.scale, across=tangent.across, shift=tangent.shift)
    ty = torch.empty_like(gy) if wanted[0] else None
    gx = torch.empty_like(x) if wanted[1] else None
    second = moments = None
    if gx is not None and tangent is not None:
        second, moments = torch.empty_like(x), x.new_empty(5, x.shape[0], x.shape[1], x.shape[4])
    settings.fill(ty=ty, gx=gx, second=second, moments=moments)
    found = [torch.empty_like(weight) for weight in weights] if any(wanted[2:]) else []
    if found:
        settings.fill(gdepthwise=found[:groups], gpointwise=found[groups:])
    settings.run("separable_second_backward", x.dtype)
    if tangent is not None and gx is not None and second is not None and moments is not None:
        tangent.through_statistics(gx, second, x, vx, moments.sum(1))
    return [ty, gx, *(found if found else [None] * len(weights))]


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
        group=(_Group * groups)(*(_Group(kernel.size, kernel.dilation, kernel.padding) for kernel in layer.kernels)),
        x=x,
        depthwise=weights[:groups],
        pointwise=weights[groups:],
    )
    statistics = layer.statistics
    if statistics is not None:
        settings.fill(mean=statistics.mean, scale=statistics.scale, batch_statistics=statistics.of_batch)
    return settings
