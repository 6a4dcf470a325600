"""Mixed operations of the macro space: convolution, pooling, dense, activation, each a weighted sum of its options.

Weights come as a mapping from an attribute's name (``filters``, ``kernel_size``, ...) to its relaxed weights
(options,); an attribute with a single option has no entry. Widths share one tensor of the largest width and are mixed
by channel masks; an unused channel is exactly zero, whatever the activation, because the mask comes last.

A ``rank`` is the number of dimensions of a place: 2 of images (batch, channels, H, W), 1 of series (batch, channels,
L).
"""

import itertools
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


CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d}
CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
NORMALISATIONS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
MAXIMA: dict[int, type[nn.MaxPool1d | nn.MaxPool2d]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVERAGES: dict[int, type[nn.AvgPool1d | nn.AvgPool2d]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


def pooling(kind: str, size: int, stride: int, rank: int = 2) -> nn.Module:
    """A pooling layer that gives ``ceil(side / stride)`` for every size; zero padding is not counted in averages."""
    padding, ceil_mode = (size - 1) // 2, size % 2 == 0
    if kind == "max":
        return MAXIMA[rank](size, stride, padding, ceil_mode=ceil_mode)
    return AVERAGES[rank](size, stride, padding, ceil_mode=ceil_mode, count_include_pad=False)


def span(kernel_size: int, dilation: int) -> int:
    """How many places a kernel reaches over along each side."""
    return (kernel_size - 1) * dilation + 1


def kernel_name(size: int, dilation: int) -> str:
    """What the kernel of an option is called in a state dict."""
    return str(size) if dilation == 1 else f"{size}_dilated_{dilation}"


def spread(kernel: Tensor, dilation: int, side: int) -> Tensor:
    """``kernel`` (out, in, k, ...) with ``dilation - 1`` zeros between its entries, centred in (out, in, side, ...)."""
    rank = kernel.dim() - 2
    for axis in range(2, 2 + rank if dilation > 1 else 2):
        apart = F.pad(kernel.unsqueeze(axis + 1), [0, 0] * (1 + rank - axis) + [0, dilation - 1])
        kernel = apart.flatten(axis, axis + 1).narrow(axis, 0, span(kernel.shape[axis], dilation))
    return F.pad(kernel, [(side - kernel.shape[-1]) // 2] * (2 * rank))


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

    Convolution is linear in its kernel, so the weighted sum over kernel sizes and dilations is one convolution with the
    weighted sum of the centred kernels, each with the zeros of its dilation (DASH, Shen et al., 2022).
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
        self.options = list(itertools.product(kernel_sizes, dilations))
        self.kernels = nn.ModuleDict()
        for size, dilation in self.options:
            padding = span(size, dilation) // 2
            made = CONVOLUTIONS[rank](in_channels, width, size, stride, padding, dilation, bias=False)
            self.kernels[kernel_name(size, dilation)] = made
        self.stride, self.largest = stride, span(max(kernel_sizes), max(dilations))
        self.normalisation = NORMALISATIONS[rank](width)
        self.activation = MixedActivation(activations)
        self.mask = WidthMask(filters)
        self.dropout = LayerDropout()

    def mixed_kernel(self, weights: Tensor) -> Tensor:
        """(out, in, k, ...) with k the largest reach of a kernel, for the ``weights`` (options,)."""
        kernels = []
        for convolution, (_, dilation) in zip(self.kernels.values(), self.options, strict=True):
            assert isinstance(convolution.weight, Tensor)
            kernels.append(spread(convolution.weight, dilation, self.largest))
        return torch.einsum("k,k...->...", weights, torch.stack(kernels))

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        decided = [weights[name] for name in ("kernel_size", "dilation") if name in weights]
        if decided:
            own = decided[0] if len(decided) == 1 else torch.outer(*decided).flatten()
            y = CONVOLVE[x.dim() - 2](x, self.mixed_kernel(own), stride=self.stride, padding=self.largest // 2)
        else:
            y = next(iter(self.kernels.values()))(x)
        return self.dropout(self.activated(y, weights))

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
