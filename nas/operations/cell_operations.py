"""The operations of cell spaces (DARTS, Liu et al., 2019, section 3.1.1; NAS-Bench-201, Dong and Yang, 2020).

Every operation maps (batch, channels, H, W) to (batch, channels, ceil(H / stride), ceil(W / stride)). ``affine`` says
whether its batch norms have a learned scale and shift: the search networks of DARTS have none, because they could
undo the architecture's weights. :class:`MixedEdge` is the weighted sum of several operations (DARTS, eq. 2).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.sampled import chosen_columns, unchosen_sum
from nas.operations.stochastic import DropPath, GaussianNoise


class Zero(nn.Module):
    """The operation ``none``: no connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # A product, not fresh zeros: the layers before stay part of the graph, with a gradient of zero.
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class SeparableConvolution(nn.Sequential):
    """ReLU, depthwise convolution, pointwise convolution, batch norm, applied twice; the first one has the stride."""

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool) -> None:
        layers: list[nn.Module] = []
        for step in (stride, 1):
            layers += [
                nn.ReLU(),
                nn.Conv2d(channels, channels, kernel_size, step, kernel_size // 2, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels, affine=affine),
            ]
        super().__init__(*layers)


class DilatedSeparableConvolution(nn.Sequential):
    """ReLU, depthwise convolution with dilation 2, pointwise convolution, batch norm."""

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool) -> None:
        padding = kernel_size - 1
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation=2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorisedConvolution(nn.Sequential):
    """ReLU, a 1x7 and a 7x1 convolution, batch norm."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorisedReduction(nn.Module):
    """Halves the resolution without losing pixels: pointwise convolutions of the even and of the odd positions.

    A side of odd length is continued by a zero, so that both halves have ``ceil(side / 2)`` positions.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.normalisation = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        return self.normalisation(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def skip_connection(channels: int, stride: int, affine: bool) -> nn.Module:
    """The identity, or at stride 2 what comes closest to it."""
    return nn.Identity() if stride == 1 else FactorisedReduction(channels, channels, affine)


NOISE = "noise"
CELL_OPERATIONS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": lambda channels, stride, affine: Zero(stride),
    NOISE: lambda channels, stride, affine: GaussianNoise(stride),
    "max_pool_3x3": lambda channels, stride, affine: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda channels, stride, affine: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "skip_connect": skip_connection,
    "sep_conv_3x3": lambda channels, stride, affine: SeparableConvolution(channels, 3, stride, affine),
    "sep_conv_5x5": lambda channels, stride, affine: SeparableConvolution(channels, 5, stride, affine),
    "sep_conv_7x7": lambda channels, stride, affine: SeparableConvolution(channels, 7, stride, affine),
    "dil_conv_3x3": lambda channels, stride, affine: DilatedSeparableConvolution(channels, 3, stride, affine),
    "dil_conv_5x5": lambda channels, stride, affine: DilatedSeparableConvolution(channels, 5, stride, affine),
    "conv_7x1_1x7": FactorisedConvolution,
    "nor_conv_1x1": lambda channels, stride, affine: ReLUConvBN(channels, channels, 1, stride, affine),
    "nor_conv_3x3": lambda channels, stride, affine: ReLUConvBN(channels, channels, 3, stride, affine),
}
"""The name of an operation to its constructor, which is called with (channels, stride, affine)."""


class MixedEdge(nn.Module):
    """``sum over k of weight_k * operation_k(x)`` (DARTS, Liu et al., 2019, eq. 2).

    Args:
        names: The operations, in the order of their weights.
        channels: Channels of input and output.
        stride: The stride of every operation.
        normalise_pooling: Whether a batch norm without affine parameters follows each pooling operation, as in the
            search network of DARTS; without one a pooling operation would outweigh the normalised ones.

    Attributes:
        sampled: Whether the operation of a one-hot weight is computed alone (:mod:`nas.operations.sampled`).
    """

    sampled = False

    def __init__(self, names: Sequence[str], channels: int, stride: int, normalise_pooling: bool) -> None:
        super().__init__()
        self.names, self.stride = tuple(names), stride
        self.operations = nn.ModuleList()
        for name in names:
            operation = CELL_OPERATIONS[name](channels, stride, False)  # not affine
            if normalise_pooling and "pool" in name:
                operation = nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
            self.operations.append(operation)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``x`` (batch, channels, H, W), ``weights`` (operations,)."""
        columns = chosen_columns(weights[None]) if self.sampled else None
        if columns is not None:
            alone = weights[columns[0]] * self._path(self.operations[columns[0]], x)
            return alone + unchosen_sum(weights[None], columns) if weights.requires_grad else alone
        return reduce(
            add, (w * self._path(operation, x) for w, operation in zip(weights, self.operations, strict=True))
        )

    def _path(self, operation: nn.Module, x: Tensor) -> Tensor:
        return x if isinstance(operation, nn.Identity) else self.drop_path(operation(x))
