"""Mixed operations of the macro space: convolution, pooling, dense, activation, each a weighted sum of its options.

Weights come as a mapping from an attribute's name (``filters``, ``kernel_size``, ...) to its relaxed weights
(options,); an attribute with a single option has no entry. Widths share one tensor of the largest width and are mixed
by channel masks; an unused channel is exactly zero, whatever the activation, because the mask comes last.
"""

from collections.abc import Mapping, Sequence
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


def pooling(kind: str, size: int, stride: int) -> nn.Module:
    """A pooling layer that gives ``ceil(H / stride)`` for every size; zero padding is not counted in averages."""
    padding, ceil_mode = (size - 1) // 2, size % 2 == 0
    if kind == "max":
        return nn.MaxPool2d(size, stride, padding, ceil_mode=ceil_mode)
    return nn.AvgPool2d(size, stride, padding, ceil_mode=ceil_mode, count_include_pad=False)


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
    """Convolution over (filters x kernel size x activation), output (batch, max(filters), ceil(H / s), ceil(W / s)).

    Convolution is linear in its kernel, so the weighted sum over kernel sizes is one convolution with the weighted sum
    of the centred kernels.
    """

    scales: ClassVar[str] = "filters"  # the attribute in whose weights the output is linear

    def __init__(
        self,
        in_channels: int,
        filters: Sequence[int],
        kernel_sizes: Sequence[int],
        stride: int,
        activations: Sequence[str],
    ) -> None:
        super().__init__()
        width = max(filters)
        self.kernels = nn.ModuleDict(
            {str(size): nn.Conv2d(in_channels, width, size, stride, size // 2, bias=False) for size in kernel_sizes}
        )
        self.stride, self.largest = stride, max(kernel_sizes)
        self.normalisation = nn.BatchNorm2d(width)
        self.activation = MixedActivation(activations)
        self.mask = WidthMask(filters)
        self.dropout = LayerDropout()

    def mixed_kernel(self, weights: Tensor | None) -> Tensor:
        """(out, in, k, k) with k the largest kernel size."""
        kernels = []
        for size, convolution in self.kernels.items():
            assert isinstance(convolution, nn.Conv2d)
            kernels.append(F.pad(convolution.weight, [(self.largest - int(size)) // 2] * 4))
        if weights is None:
            return kernels[0]
        return torch.einsum("k,koihw->oihw", weights, torch.stack(kernels))

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        kernel = self.mixed_kernel(weights.get("kernel_size"))
        y = F.conv2d(x, kernel, stride=self.stride, padding=self.largest // 2)
        return self.dropout(self.activated(y, weights))

    def activated(self, y: Tensor, weights: Weights) -> Tensor:
        """Batch norm, activation and mask of the convolution's output ``y`` (batch, filters, H, W)."""
        y = self.activation(self.normalisation(y), weights.get("activation"))
        return self.mask(y, weights.get("filters"))


class MixedPooling(nn.Module):
    """Pooling over (size x kind), output (batch, channels, ceil(H / s), ceil(W / s))."""

    scales: ClassVar[str] = "pool_size"  # the attribute in whose weights the output is linear

    def __init__(self, sizes: Sequence[int], kinds: Sequence[str], stride: int) -> None:
        super().__init__()
        self.poolings = nn.ModuleList(pooling(kind, size, stride) for kind in kinds for size in sizes)
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
