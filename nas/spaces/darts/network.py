"""The stand-alone networks of DARTS cells for CIFAR and ImageNet (Liu et al., 2019, section 3.2 and appendix A)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.cell_operations import CELL_OPERATIONS, FactorisedReduction, ReLUConvBN
from nas.operations.stochastic import Dropout, DropPath
from nas.spaces.darts.genotype import Edge, Genotype

NetworkKind = Literal["cifar", "imagenet"]


class CellShape(NamedTuple):
    """The size of a cell at its place in the stack.

    Attributes:
        before: Channels of the older input, the output of the cell before the last one.
        last: Channels of the newer input, the output of the last cell.
        channels: Channels of every node.
        reduction: Whether the cell halves the resolution.
        halve_before: Whether the older input has twice the resolution of the newer one.
    """

    before: int
    last: int
    channels: int
    reduction: bool
    halve_before: bool

    @property
    def kind(self) -> str:
        return "reduce" if self.reduction else "normal"

    def stride(self, source: int) -> int:
        """That of the edges from the state ``source``; 0 and 1 are the cell's inputs."""
        return 2 if self.reduction and source < 2 else 1


def stacked_shapes(
    cells: int, channels: int, width: int, halve_first: bool, concat: Mapping[str, Sequence[int]]
) -> Iterator[CellShape]:
    """The shapes of ``cells`` cells, the first of ``channels``, behind a stem of ``width`` channels.

    The cells at one and at two thirds of the depth halve the resolution and double the channels.
    """
    before, last, halve_before = width, width, halve_first
    for index in range(cells):
        reduction = index in (cells // 3, 2 * cells // 3)
        channels = 2 * channels if reduction else channels
        shape = CellShape(before, last, channels, reduction, halve_before)
        yield shape
        before, last, halve_before = last, len(concat[shape.kind]) * channels, reduction


def older_input(channels: int, width: int, halve: bool, affine: bool) -> nn.Module:
    """The first layer on a cell's older input state: ``channels`` to ``width``, at half the resolution if ``halve``."""
    if halve:
        return FactorisedReduction(channels, width, affine)
    return ReLUConvBN(channels, width, 1, 1, affine)


class Cell(nn.Module):
    """One cell of a genotype: two states of the cells before to (batch, width, H, W), ``width = channels * concat``.

    Args:
        edges: Two per node, in the genotype's order.
        concat: The states that make up the output.
        shape: The cell's size.
    """

    def __init__(self, edges: Sequence[Edge], concat: Sequence[int], shape: CellShape) -> None:
        super().__init__()
        self.preprocess0 = older_input(shape.before, shape.channels, shape.halve_before, affine=True)
        self.preprocess1 = ReLUConvBN(shape.last, shape.channels, 1, 1, affine=True)
        self.sources = tuple(source for _, source in edges)
        self.edges = nn.ModuleList(
            CELL_OPERATIONS[operation](shape.channels, shape.stride(source), True)  # affine
            for operation, source in edges
        )
        self.concat = tuple(concat)
        self.width = len(self.concat) * shape.channels
        self.drop_path = DropPath()

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for first in range(0, len(self.edges), 2):
            states.append(self._edge(first, states) + self._edge(first + 1, states))
        return torch.cat([states[index] for index in self.concat], dim=1)

    def _edge(self, index: int, states: Sequence[Tensor]) -> Tensor:
        operation, x = self.edges[index], states[self.sources[index]]
        return x if isinstance(operation, nn.Identity) else self.drop_path(operation(x))


class CifarStem(nn.Sequential):
    """Convolution and batch norm at full resolution; both input states of the first cell are its output."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = super().forward(x)
        return x, x


class ImageNetStem(nn.Module):
    """Three convolutions of stride 2: the states at a quarter and at an eighth of the resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.quarter = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.eighth = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.quarter(x)
        return quarter, self.eighth(quarter)


class AuxiliaryPooling(nn.Module):
    """Average pooling to 2x2: windows of 5 at the original's resolution (8x8 or 7x7), adaptive ones at any other."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if all((side - 5) // self.stride == 1 for side in x.shape[2:]):
            return F.avg_pool2d(x, 5, self.stride)
        return F.adaptive_avg_pool2d(x, 2)


class AuxiliaryHead(nn.Module):
    """The classifier at two thirds of the depth; its loss is added while training.

    The ImageNet head of the published results has no batch norm before its last ReLU.
    """

    def __init__(self, channels: int, classes: int, kind: NetworkKind) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            AuxiliaryPooling(stride=3 if kind == "cifar" else 2),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *([nn.BatchNorm2d(768)] if kind == "cifar" else []),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class DartsNetwork(nn.Module):
    """The stack of the cells of ``genotype``.

    Every edge but an identity goes through a :class:`~nas.operations.stochastic.DropPath`, and a
    :class:`~nas.operations.stochastic.Dropout` stands before the classifier; both have rate 0 until told otherwise.

    Args:
        genotype: The cells.
        in_channels: Channels of the images.
        channels: Channels of every node in the first cells.
        cells: The number of cells.
        classes: The number of classes.
        kind: ``cifar`` starts at full resolution, ``imagenet`` at an eighth of it.
        auxiliary: Whether there is an auxiliary head.
        stem_multiplier: Channels of the CIFAR stem in units of ``channels``.
    """

    def __init__(
        self,
        genotype: Genotype,
        *,
        in_channels: int,
        channels: int,
        cells: int,
        classes: int,
        kind: NetworkKind = "cifar",
        auxiliary: bool = False,
        stem_multiplier: int = 3,
    ) -> None:
        super().__init__()
        cifar = kind == "cifar"
        width = stem_multiplier * channels if cifar else channels
        self.stem: nn.Module = CifarStem(in_channels, width) if cifar else ImageNetStem(in_channels, width)
        self.kind = kind
        edges = {"normal": genotype.normal, "reduce": genotype.reduce}
        concat = {"normal": genotype.normal_concat, "reduce": genotype.reduce_concat}
        shapes = stacked_shapes(cells, channels, width, not cifar, concat)
        made = [Cell(edges[shape.kind], concat[shape.kind], shape) for shape in shapes]
        self.cells = nn.ModuleList(made)
        self.auxiliary_index = 2 * cells // 3
        self.auxiliary_head = AuxiliaryHead(made[self.auxiliary_index].width, classes, kind) if auxiliary else None
        self.dropout = Dropout()
        self.classifier = nn.Linear(made[-1].width, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images (batch, channels, H, W) to logits (batch, classes).

        In training mode, with an auxiliary head: the pair (logits, auxiliary logits).
        """
        before, last = self.stem(x)
        auxiliary_logits: Tensor | None = None
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if self.auxiliary_head is not None and self.training and index == self.auxiliary_index:
                auxiliary_logits = self.auxiliary_head(last)
        logits = self.classifier(self.dropout(self._pooled(last)))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def _pooled(self, x: Tensor) -> Tensor:
        """The mean over all positions: (batch, channels, H, W) to (batch, channels)."""
        if self.kind == "imagenet" and all(7 <= side < 14 for side in x.shape[2:]):
            # The original's window of 7 is all there is of 224 pixels, and the first corner of somewhat larger images.
            return F.avg_pool2d(x, 7).flatten(1)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
