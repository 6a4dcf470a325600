"""Batch norm, the weighted sum of activation functions and a mask of channels in one pass over the images.

A layer of the macro space computes this behind its convolution: ``out = sum over functions f of factor_f * f(z)`` with
``z = weight * (y - mean) * scale + bias`` and factors per channel. Neither ``z`` nor any ``f(z)`` is stored; backward
passes compute them again from ``y``.
"""

import ctypes
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.batch_norm_tangent import BatchNormTangent, combine
from nas.operations.fast.derivatives import Derivatives, KernelGradient, wanted_inputs
from nas.operations.fast.normalisation import RunningAverages, Statistics, channel_statistics, normalised

KNOWN: tuple[type[nn.Module], ...] = (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus)


class _Activation(library.Settings):
    _fields_ = (
        *library.numbers("n", "pixels", "c", "options", "threads"),
        ("function", ctypes.POINTER(ctypes.c_int64)),
        *library.addresses("y", "mean", "gain", "shift", "factors", "out", "g", "sums", "moments"),
        *library.addresses("vy", "along", "tilt", "offset", "vfactors", "weight", "vweight"),
        *library.addresses("tangent", "moving"),
    )


class _Layer(NamedTuple):
    """A layer without its tensors: its statistics (1, C) and activation functions."""

    statistics: Statistics
    functions: tuple[nn.Module, ...]


def can_activate(y: Tensor, functions: Sequence[nn.Module]) -> bool:
    """Whether :func:`activated` can compute ``functions`` of ``y``."""
    return library.usable(y) and all(type(function) in KNOWN for function in functions)


def activated(y: Tensor, norm: nn.BatchNorm2d, factors: Tensor, functions: Sequence[nn.Module]) -> Tensor:
    """``sum over functions of factor * function(norm(y))``, both images (batch, C, H, W), the channels innermost.

    Args:
        factors: (functions, C).
    """
    images = y.permute(0, 2, 3, 1)
    averages = RunningAverages()
    own = norm.training or norm.running_mean is None
    known = channel_statistics(images.detach(), 1) if own else None
    planes, statistics = averages.normalise([norm], images.unsqueeze(1), known)
    averages.update()
    if statistics is None:  # they are normalised already
        nothing = y.new_zeros(1, y.shape[1])
        statistics = Statistics(nothing, nothing + 1, 0.0, of_batch=False)
    layer = _Layer(statistics, tuple(functions))
    return _Activated.apply(layer, planes.squeeze(1), norm.weight, norm.bias, factors.to(y.dtype))


def activated_in_torch(inputs: Sequence[Tensor], layer: _Layer) -> Tensor:
    """The same value of ``y`` (batch, H, W, C) in PyTorch's operations, differentiable as often as its batch norm."""
    y, weight, bias, factors = inputs
    z = normalised(y.unsqueeze(1), layer.statistics).squeeze(1) * weight + bias
    terms = [factor * function(z) for factor, function in zip(factors, layer.functions, strict=True)]
    return torch.stack(terms).sum(0)


class _Activated(Function):
    """The value from ``layer`` and its tensors: ``y``, the batch norm's weight and bias, the factors."""

    @staticmethod
    def forward(ctx: Any, layer: _Layer, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.layer = layer
        batch, height, width, channels = inputs[0].shape
        # No view: a view that a function returns may not be changed in place.
        out = torch.empty((batch, channels, height, width), dtype=inputs[0].dtype, memory_format=torch.channels_last)
        _run("activation_forward", layer, inputs, out=out.permute(0, 2, 3, 1))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs, g = ctx.saved_tensors, g.permute(0, 2, 3, 1)
        wanted = wanted_inputs(ctx, len(inputs))
        if torch.is_grad_enabled():
            return None, *KernelGradient.apply(_derivatives(ctx.layer), wanted, 1, g, *inputs)
        return None, *_gradient(ctx.layer, inputs, [g], wanted)


def _derivatives(layer: _Layer) -> Derivatives:
    def in_torch(*inputs: Tensor) -> list[Tensor]:
        return [activated_in_torch(inputs, layer)]

    return Derivatives(in_torch, partial(_gradient, layer), partial(_second_gradient, layer))


def _gradient(
    layer: _Layer, inputs: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs, those of weight and bias in any case."""
    (g,), (y, weight, _, factors) = gradients, inputs
    samples, channels = len(y), y.shape[-1]
    gy = _like(y) if wanted[0] else None
    sums = y.new_empty(samples, *factors.shape) if wanted[3] else None
    moments = y.new_empty(2, samples, channels)
    _run("activation_backward", layer, inputs, g=g, out=gy, sums=sums, moments=moments)
    total, product = moments.sum(1)
    statistics = layer.statistics
    scale = statistics.scale[0]
    if gy is not None:
        gain, nothing = weight * scale, torch.zeros_like(weight)
        share = gain * (channels / y.numel()) if statistics.of_batch else nothing
        coefficients = [-share * total, gain, nothing, -share * scale**2 * product, nothing]
        combine(gy.unsqueeze(1), y.contiguous().unsqueeze(1), statistics.mean, coefficients)
    return gy, scale * product, total, None if sums is None else sums.sum(0)


def _second_gradient(
    layer: _Layer,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    directions: Sequence[Tensor],
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The gradients of ``<gradient, directions>`` with respect to ``g`` and the inputs.

    It is the sum of ``g`` times the value's tangent along the directions. The tangent of ``z`` is a weighted sum of
    ``vy`` and ``y``, by that of the batch norm (:mod:`nas.operations.fast.batch_norm_tangent`).
    """
    (g,), (y, weight, _, factors) = gradients, inputs
    y = y.contiguous()
    vy, vweight, vbias, vfactors = (direction.contiguous() for direction in directions)
    tangent = BatchNormTangent.of(y.unsqueeze(1), vy.unsqueeze(1), layer.statistics)
    scale, across, shift = tangent.scale[0], tangent.across[0], tangent.shift[0]
    moved, gy, moving = (_like(y) if needed else None for needed in (wanted[0], wanted[1], wanted[1]))
    sums = y.new_empty(len(y), *factors.shape) if wanted[4] else None
    moments = y.new_empty(5, len(y), y.shape[-1])
    of_z = {"along": weight * scale, "tilt": weight * across + vweight * scale, "offset": weight * shift + vbias}
    given = {"g": g, "vy": vy, "vweight": vweight, "vfactors": vfactors, **of_z}
    results = {"tangent": moved, "out": gy, "moving": moving, "sums": sums, "moments": moments}
    _run("activation_second_backward", layer, inputs, **given, **results)
    h1, h1_centred, h2, h2_centred, h2_vy = moments.sum(1)
    gweight = scale * h1_centred + scale * h2_vy + across * h2_centred + shift * h2
    if gy is not None and moving is not None:
        of_value = [weight * h1 + vweight * h2, weight * h1_centred + vweight * h2_centred]
        of_tangent = [weight * h2, weight * h2_centred, weight * h2_vy]
        gx, moving_gx, x, vx = (one.unsqueeze(1) for one in (gy, moving, y, vy))
        tangent.through_statistics(gx, moving_gx, x, vx, torch.stack([*of_value, *of_tangent]).unsqueeze(1))
    return moved, gy, gweight, h1, None if sums is None else sums.sum(0)


def _like(y: Tensor) -> Tensor:
    return torch.empty_like(y, memory_format=torch.contiguous_format)


def _run(name: str, layer: _Layer, inputs: Sequence[Tensor], **others: Tensor | None) -> None:
    y, weight, bias, factors = inputs
    batch, height, width, channels = y.shape
    statistics, functions = layer
    numbers = [KNOWN.index(type(function)) for function in functions]
    settings = _Activation(
        n=batch,
        pixels=height * width,
        c=channels,
        options=len(functions),
        function=(ctypes.c_int64 * len(numbers))(*numbers),
    )
    own = {"y": y, "mean": statistics.mean, "gain": weight * statistics.scale[0], "shift": bias, "factors": factors}
    given = {**own, "weight": weight, **others}
    settings.fill(**{key: None if one is None else one.contiguous() for key, one in given.items()})
    settings.run(name, y.dtype)
