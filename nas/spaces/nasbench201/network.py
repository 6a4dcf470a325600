"""The stand-alone network of a NAS-Bench-201 cell (Dong and Yang, 2020, section 2.1).

Between a stem and a classifier it has three stages of ``cells_per_stage`` cells, with a residual block of stride 2
between the stages.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.cell_operations import CELL_OPERATIONS, ReLUConvBN
from nas.operations.stochastic import Dropout, DropPath
from nas.spaces.nasbench201.choices import EDGES, NasBench201Choices


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an average pooling with a pointwise convolution; halves the resolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ReLUConvBN(in_channels, out_channels, 3, 2, affine=True)
        self.second = ReLUConvBN(out_channels, out_channels, 3, 1, affine=True)
        # Rounding up matters at odd sides only, where the original's two paths would not fit each other.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class Cell(nn.Module):
    """One operation per edge: (batch, channels, H, W) to the same shape."""

    def __init__(self, operations: Sequence[str], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(CELL_OPERATIONS[name](channels, 1, True) for name in operations)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for node in range(1, 4):
            rows = [row for row, (end, _) in enumerate(EDGES) if end == node]
            terms = [self._edge(row, state) for row, state in zip(rows, states, strict=True)]
            states.append(reduce(add, terms))
        return states[-1]

    def _edge(self, row: int, x: Tensor) -> Tensor:
        operation = self.edges[row]
        return x if isinstance(operation, nn.Identity) else self.drop_path(operation(x))


def stem(space: NasBench201Choices) -> nn.Sequential:
    """Images to (batch, channels, H, W) at full resolution."""
    convolution = nn.Conv2d(space.input_shape[0], space.channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(space.channels))


def last_activation(space: NasBench201Choices) -> nn.Sequential:
    """Batch norm and ReLU behind the last stage, in front of global pooling."""
    return nn.Sequential(nn.BatchNorm2d(4 * space.channels), nn.ReLU())


def stages(space: NasBench201Choices, cell: Callable[[int], nn.Module]) -> nn.ModuleList:
    """The cells of three stages with residual blocks between them; ``cell`` is called with its number of channels."""
    cells = nn.ModuleList()
    for stage in range(3):
        width = 2**stage * space.channels
        if stage > 0:
            cells.append(ResidualBlock(width // 2, width))
        cells.extend(cell(width) for _ in range(space.cells_per_stage))
    return cells


class NasBench201Network(nn.Module):
    """The stand-alone network of a cell; ``operations`` in the order of :data:`EDGES`.

    Every edge but an identity goes through a :class:`~nas.operations.stochastic.DropPath`, and a
    :class:`~nas.operations.stochastic.Dropout` stands before the classifier; both have rate 0 until told otherwise.
    """

    def __init__(self, space: NasBench201Choices, operations: Sequence[str]) -> None:
        super().__init__()
        self.stem = stem(space)
        self.cells = stages(space, partial(Cell, operations))
        self.last_activation = last_activation(space)
        self.dropout = Dropout()
        self.classifier = nn.Linear(4 * space.channels, space.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes)."""
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        x = F.adaptive_avg_pool2d(self.last_activation(x), 1).flatten(1)
        return self.classifier(self.dropout(x))
