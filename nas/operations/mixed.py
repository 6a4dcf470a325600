"""Mixed operations of the macro space: convolution, pooling, dense, activation, each a weighted sum of its options.

Weights come as a mapping from an attribute's name (``filters``, ``kernel_size``, ...) to its relaxed weights
(options,); an attribute with a single option has no entry. Widths share one tensor of the largest width and are mixed
by channel masks; an unused channel is exactly zero, whatever the activation, because the mask comes last.

A ``rank`` is the number of dimensions of a place: 2 of images (batch, channels, H, W), 1 of series (batch, channels,
L).
"""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.stochastic import LayerDropout

Weights = Mapping[str, Tensor]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}

# By rank.
CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d}
CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
NORMALISATIONS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
MAX_POOLS: dict[int, type[nn.MaxPool1d | nn.MaxPool2d]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVERAGE_POOLS: dict[int, type[nn.AvgPool1d | nn.AvgPool2d]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
GLOBAL_MAX_POOLS: dict[int, type[nn.Module]] = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d}
GLOBAL_AVERAGE_POOLS: dict[int, type[nn.Module]] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}


def pooling(kind: str, size: int, stride: int, rank: int = 2) -> nn.Module:
    """A pooling layer that gives ``ceil(side / stride)`` for every size; zero padding is not counted in averages."""
    padding, ceil_mode = (size - 1) // 2, size % 2 == 0
    if kind == "max":
        return MAX_POOLS[rank](size, stride, padding, ceil_mode=ceil_mode)
    return AVERAGE_POOLS[rank](size, stride, padding, ceil_mode=ceil_mode, count_include_pad=False)


def convolution(
    in_channels: int, filters: int, size: int, stride: int, dilation: int, rank: int
) -> nn.Conv1d | nn.Conv2d:
    """A convolution without bias that gives ``ceil(side / stride)`` for every odd size."""
    padding = size // 2 * dilation
    return CONVOLUTIONS[rank](in_channels, filters, size, stride, padding, dilation, bias=False)


def kernel_name(size: int, dilation: int) -> str:
    """What the kernel of an option is called in a state dict."""
    return str(size) if dilation == 1 else f"{size}_dilated_{dilation}"


def global_pooling(kind: str, rank: int) -> nn.Sequential:
    """(batch, channels, ...) to (batch, channels)."""
    pool = {"max": GLOBAL_MAX_POOLS, "average": GLOBAL_AVERAGE_POOLS}[kind][rank](1)
    return nn.Sequential(OrderedDict(pooling=pool, flatten=nn.Flatten()))


def padded_width(x: Tensor, width: int) -> Tensor:
    """``x`` (batch, channels, ...) with zero channels appended up to ``width``."""
    missing = width - x.shape[1]
    return x if missing == 0 else torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], dim=1)


class WidthMask(nn.Module):
    """``sum over widths of weight * mask``, where a width's mask is one up to that width and zero behind it."""

    masks: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        positions = torch.arange(max(widths))
        masks = torch.stack([(positions < width).to(torch.get_default_dtype()) for width in widths])
        self.register_buffer("masks", masks, persistent=False)  # (widths, channels)

    def forward(self, x: Tensor, weights: Tensor | None) -> Tensor:
        if weights is None:
            return x
        return x * (weights @ self.masks).view(1, -1, *([1] * (x.dim() - 2)))


class MixedActivation(nn.Module):
    """The weighted sum of activation functions."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.options = nn.ModuleList(ACTIVATIONS[name]() for name in names)

    def forward(self, x: Tensor, weights: Tensor | None) -> Tensor:
        if weights is None:
            return self.options[0](x)
        return sum((weight * option(x) for weight, option in zip(weights, self.options, strict=True)), x.new_zeros(()))


class MixedConvolution(nn.Module):
    """Convolution over (filters x kernel size x dilation x activation), (batch, max(filters), ceil(side / s), ...).

    Convolution is linear in its kernel, so the weighted sum over kernel sizes is one convolution with the weighted sum
    of the centred kernels. Each dilation has kernels and a convolution of its own, whose outputs are added: all kernels
    in one, with the zeros of their dilations (DASH, Shen et al., 2022), took up to 7 times as long on the CPU.
    """

    scales: ClassVar[str] = "filters"  # the attribute in whose weights the output is linear

    def __init__(
        self,
        in_channels: int,
        filters: Sequence[int],
        kernel_sizes: Sequence[int],
        stride: int,
        activations: Sequence[str],
        dilations: Sequence[int] = (1,),
        rank: int = 2,
    ) -> None:
        super().__init__()
        width = max(filters)
        self.kernels = nn.ModuleDict()
        for dilation, size in itertools.product(dilations, kernel_sizes):
            self.kernels[kernel_name(size, dilation)] = convolution(in_channels, width, size, stride, dilation, rank)
        self.stride, self.sizes, self.dilations = stride, tuple(kernel_sizes), tuple(dilations)
        self.convolve = CONVOLVE[rank]
        self.normalisation = NORMALISATIONS[rank](width)
        self.activation = MixedActivation(activations)
        self.mask = WidthMask(filters)
        self.dropout = LayerDropout()

    def mixed_kernel(self, dilation: int, weights: Tensor | None) -> Tensor:
        """(out, in, k, ...) with k the largest kernel size."""
        kernels = []
        for size in self.sizes:
            kernel = self.kernels[kernel_name(size, dilation)].weight
            assert isinstance(kernel, Tensor)
            kernels.append(F.pad(kernel, [(max(self.sizes) - size) // 2] * 2 * (kernel.dim() - 2)))
        if weights is None:
            return kernels[0]
        return torch.einsum("k,k...->...", weights, torch.stack(kernels))

    def convolved(self, x: Tensor, dilation: int, kernel: Tensor) -> Tensor:
        padding = max(self.sizes) // 2 * dilation
        return self.convolve(x, kernel, stride=self.stride, padding=padding, dilation=dilation)

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        kernels = [self.mixed_kernel(dilation, weights.get("kernel_size")) for dilation in self.dilations]
        if "dilation" in weights:
            kernels = [weight * kernel for weight, kernel in zip(weights["dilation"], kernels, strict=True)]
        y, *others = [self.convolved(x, *one) for one in zip(self.dilations, kernels, strict=True)]
        return self.dropout(self.activated(sum(others, y), weights))

    def activated(self, y: Tensor, weights: Weights) -> Tensor:
        """Batch norm, activation and mask of the convolution's output ``y`` (batch, filters, ...)."""
        y = self.activation(self.normalisation(y), weights.get("activation"))
        return self.mask(y, weights.get("filters"))


class MixedPooling(nn.Module):
    """Pooling over (size x kind), output (batch, channels, ceil(side / s), ...)."""

    scales: ClassVar[str] = "pool_size"  # the attribute in whose weights the output is linear

    def __init__(self, sizes: Sequence[int], kinds: Sequence[str], stride: int, rank: int = 2) -> None:
        super().__init__()
        self.poolings = nn.ModuleList(pooling(kind, size, stride, rank) for kind in kinds for size in sizes)
        self.sizes, self.kinds = len(sizes), len(kinds)

    def joint(self, weights: Weights, like: Tensor) -> Tensor:
        """The weight of every pooling, (kinds, sizes)."""
        by_kind = weights["kind"] if "kind" in weights else like.new_ones(self.kinds)
        by_size = weights["pool_size"] if "pool_size" in weights else like.new_ones(self.sizes)
        return torch.outer(by_kind, by_size)

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        joint = self.joint(weights, x).flatten()
        return sum((weight * pool(x) for weight, pool in zip(joint, self.poolings, strict=True)), x.new_zeros(()))


class MixedGlobalPooling(nn.Module):
    """Pooling of all places over kinds, (batch, channels, ...) to (batch, channels)."""

    scales: ClassVar[str] = "kind"  # the attribute in whose weights the output is linear

    def __init__(self, kinds: Sequence[str], rank: int) -> None:
        super().__init__()
        self.poolings = nn.ModuleList(global_pooling(kind, rank) for kind in kinds)

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        by_kind = weights["kind"] if "kind" in weights else x.new_ones(1)
        return sum((weight * pool(x) for weight, pool in zip(by_kind, self.poolings, strict=True)), x.new_zeros(()))


class MixedDense(nn.Module):
    """Dense layer over (units x activation) with batch norm, (batch, features) to (batch, max(units))."""

    scales: ClassVar[str] = "units"  # the attribute in whose weights the output is linear

    def __init__(self, in_features: int, units: Sequence[int], activations: Sequence[str]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, max(units), bias=False)
        self.normalisation = nn.BatchNorm1d(max(units))
        self.activation = MixedActivation(activations)
        self.mask = WidthMask(units)
        self.dropout = LayerDropout()

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        x = self.activation(self.normalisation(self.linear(x)), weights.get("activation"))
        return self.dropout(self.mask(x, weights.get("units")))


class MixedSlot(nn.ModuleDict):
    """The weighted sum of alternative layers, by label; a layer narrower than ``width`` is filled up with zeros.

    In an ``optional`` slot the input itself is the last alternative.
    """

    is_region: ClassVar[bool] = True  # of nas.device.compilation

    def __init__(self, layers: Mapping[str, nn.Module], width: int, optional: bool) -> None:
        super().__init__(layers)
        self.width, self.optional = width, optional

    def forward(self, x: Tensor, by_type: Tensor | None, weights: Mapping[str, Weights]) -> Tensor:
        """``x`` (batch, ...), ``by_type`` (alternatives,) or None where there is one, and the weights of each layer."""
        terms = [padded_width(layer(x, weights[label]), self.width) for label, layer in self.items()]
        if self.optional:
            terms.append(padded_width(x, self.width))
        if by_type is None:
            return terms[0]
        return sum((weight * term for weight, term in zip(by_type, terms, strict=True)), x.new_zeros(()))
