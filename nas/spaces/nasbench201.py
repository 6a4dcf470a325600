"""The NAS-Bench-201 space (Dong and Yang, 2020): one cell of four states and six edges with five operations each.

The network has three stages of ``cells_per_stage`` cells with a residual block of stride 2 between them.
State 0 is the cell's input, state ``n`` the sum of one edge from every state before it, state 3 the output. Decisions
are named after their edge: ``node2.from0``.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import add
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.candidate import Architecture, Choice, Domain
from nas.configuration import InvalidValue, require
from nas.operations.batched.edges import bundles, node_states
from nas.operations.cell_operations import CELL_OPERATIONS, ReLUConvBN
from nas.operations.mixed_edge import MixedEdge
from nas.operations.stochastic import Dropout, DropPath
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import BlockCost, LayerDescription, SearchSpace
from nas.spaces.supernet import Implementation, Supernet, checked_implementation

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((node, source) for node in range(1, 4) for source in range(node))
LARGEST = {"channels": 1024, "cells_per_stage": 100}
LONGEST_TEXT = 1000


def edge_name(node: int, source: int) -> str:
    return f"node{node}.from{source}"


def architecture_text(architecture: Architecture) -> str:
    """``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``: nodes joined by ``+``, each edge as operation ``~`` state."""
    nodes = []
    for node in range(1, 4):
        edges = [f"{architecture[edge_name(node, source)]}~{source}" for source in range(node)]
        nodes.append(f"|{'|'.join(edges)}|")
    return "+".join(nodes)


def parse_architecture(text: object) -> Architecture:
    """The inverse of :func:`architecture_text`.

    Raises:
        InvalidValue: ``text`` is anything else.
    """
    allowed = "it must read |operation~0|+|operation~0|operation~1|+|operation~0|operation~1|operation~2|"
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise InvalidValue("architecture", text, allowed)
    nodes = text.strip().split("+")
    require(len(nodes) == 3, "architecture", text, allowed)
    options = {}
    for node, written in enumerate(nodes, start=1):
        edges = written.split("|")
        require(len(edges) == node + 2 and edges[0] == edges[-1] == "", "architecture", text, allowed)
        for source, edge in enumerate(edges[1:-1]):
            operation, _, index = edge.partition("~")
            require(index == str(source), "architecture", text, allowed)
            known = f"the operation of {edge_name(node, source)} must be one of {', '.join(OPERATIONS)}"
            require(operation in OPERATIONS, "architecture", text, known)
            options[edge_name(node, source)] = operation
    return Architecture(NasBench201.name, options)


class NasBench201(SearchSpace):
    """The cells of NAS-Bench-201; the search network and the stand-alone network have one size.

    Args:
        channels: Of the first stage.
        cells_per_stage: How many cells each of the three stages has.
        implementation: How the supernet computes: ``plain``, one operation after the other, or ``fast``, with the work
            that edges share done once. Both have the same parameters and give the same numbers.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds.
    """

    name: ClassVar[str] = "nasbench201"

    def __init__(
        self,
        channels: int = 16,
        cells_per_stage: int = 5,
        implementation: Implementation = "fast",
        *,
        input_shape: Sequence[int],
        classes: int,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(input_shape, classes, ranges)
        for key, value in {"channels": channels, "cells_per_stage": cells_per_stage}.items():
            good = type(value) is int and 1 <= value <= LARGEST[key]
            require(good, key, value, f"it must be a whole number from 1 to {LARGEST[key]}")
        self.channels, self.cells_per_stage = channels, cells_per_stage
        self.implementation = checked_implementation(implementation)
        self._choices = tuple(Choice(edge_name(node, source), OPERATIONS) for node, source in EDGES)

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def settings(self) -> dict[str, Any]:
        return {"channels": self.channels, "cells_per_stage": self.cells_per_stage}

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        """One entry per node of the cell."""
        nodes = architecture_text(architecture).split("+")
        return [LayerDescription("conv", f"node {number}:", text) for number, text in enumerate(nodes, start=1)]

    def supernet(self, relaxation: Relaxation) -> "NasBench201Supernet":
        return NasBench201Supernet(self, relaxation)

    def network(self, architecture: Architecture) -> "NasBench201Network":
        architecture.check(self.choices)
        operations = [architecture[choice.name] for choice in self.choices]
        return NasBench201Network(self, operations)

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        bound = {"input_shape": self.input_shape, "classes": self.classes}
        operations = tuple(architecture[choice.name] for choice in self.choices)
        return {"space": SimpleNamespace(**bound, **self.settings()), "operations": operations}

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        architecture.check(self.choices)
        weights = torch.zeros(len(EDGES), len(OPERATIONS))
        for row, choice in enumerate(self.choices):
            weights[row, choice.options.index(architecture[choice.name])] = 1
        return {"cell": weights}

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        fixed = cost(f"stem {self.channels} {self.input_shape}", partial(_stem, self), self.input_shape)
        of_operations = dict.fromkeys(OPERATIONS, 0.0)
        _, *sides = self.input_shape
        for stage in range(3):
            width = 2**stage * self.channels
            if stage > 0:
                shape = (width // 2, *sides)
                fixed += cost(f"residual {shape}", partial(ResidualBlock, width // 2, width), shape)
                sides = [-(-side // 2) for side in sides]
            for name in OPERATIONS:
                make = partial(CELL_OPERATIONS[name], width, 1, True)
                of_operations[name] += self.cells_per_stage * cost(f"{name} {width} {sides}", make, (width, *sides))
        fixed += cost(f"last {self.channels} {sides}", partial(_last_activation, self), (width, *sides))
        fixed += cost(f"classifier {width} {self.classes}", partial(nn.Linear, width, self.classes), (width,))
        return fixed + weights["cell"].sum(0) @ weights["cell"].new_tensor(list(of_operations.values()))


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


class SearchCell(nn.Module):
    """A mixed operation per edge: (batch, channels, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(MixedEdge(OPERATIONS, channels, 1, normalise_pooling=False) for _ in EDGES)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``weights`` (edges, operations)."""
        states = [x]
        for node in range(1, 4):
            rows = [row for row, (end, _) in enumerate(EDGES) if end == node]
            terms = [self.edges[row](state, weights[row]) for row, state in zip(rows, states, strict=True)]
            states.append(reduce(add, terms))
        return states[-1]


class FastSearchCell(SearchCell):
    """The same cell with the edges that leave one state computed together."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bundles = bundles(self.edges, EDGES)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return node_states([x], self.edges, self.bundles, EDGES, weights)[-1]


def _stem(space: NasBench201) -> nn.Sequential:
    convolution = nn.Conv2d(space.input_shape[0], space.channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(space.channels))


def _last_activation(space: NasBench201) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(4 * space.channels), nn.ReLU())


class NasBench201Network(nn.Module):
    """The stand-alone network of a cell; ``operations`` in the order of :data:`EDGES`.

    Every edge but an identity goes through a :class:`~nas.operations.stochastic.DropPath`, and a
    :class:`~nas.operations.stochastic.Dropout` stands before the classifier; both have rate 0 until told otherwise.
    """

    def __init__(self, space: NasBench201, operations: Sequence[str]) -> None:
        super().__init__()
        self.stem = _stem(space)
        self.cells = nn.ModuleList()
        for stage in range(3):
            width = 2**stage * space.channels
            if stage > 0:
                self.cells.append(ResidualBlock(width // 2, width))
            self.cells.extend(Cell(operations, width) for _ in range(space.cells_per_stage))
        self.last_activation = _last_activation(space)
        self.dropout = Dropout()
        self.classifier = nn.Linear(4 * space.channels, space.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes)."""
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        x = F.adaptive_avg_pool2d(self.last_activation(x), 1).flatten(1)
        return self.classifier(self.dropout(x))


class NasBench201Supernet(Supernet):
    """The search network; the plain implementation computes one operation after the other.

    ``alpha["cell"]`` is (6 edges, 5 operations), shared by all cells and drawn from a normal distribution with standard
    deviation 1e-3. Batch norms inside the cells have no affine parameters; those of stem, residual blocks and the last
    activation have.
    """

    def __init__(self, space: NasBench201, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        self.space = space
        self.stem = _stem(space)
        self.cells = nn.ModuleList()
        cell_class = FastSearchCell if space.implementation == "fast" else SearchCell
        for stage in range(3):
            width = 2**stage * space.channels
            if stage > 0:
                self.cells.append(ResidualBlock(width // 2, width))
            self.cells.extend(cell_class(width) for _ in range(space.cells_per_stage))
        self.last_activation = _last_activation(space)
        self.dropout = Dropout()
        self.classifier = nn.Linear(4 * space.channels, space.classes)
        self.alpha["cell"] = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(OPERATIONS)))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        x = self.stem(self.laid_out(x, self.space.implementation))
        for cell in self.cells:
            x = cell(x, weights["cell"]) if isinstance(cell, SearchCell) else cell(x)
        x = F.adaptive_avg_pool2d(self.last_activation(x), 1).flatten(1)
        return self.classifier(self.dropout(x))

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(choice.name, choice.options) for choice in self.space.choices]

    @torch.no_grad()
    def discretise(self) -> Architecture:
        """Each edge's strongest operation, ``none`` included; among equals the one named earlier."""
        alpha = self.alpha["cell"]
        for choice, values in zip(self.space.choices, alpha, strict=True):
            if not bool(torch.isfinite(values).all()):
                raise FloatingPointError(f"alpha of {choice.name} is not finite: {values.tolist()}")
        rows = self.relaxation.probabilities(alpha).tolist()
        # list.index gives the first of equals, which argmax does not promise.
        options = {
            choice.name: choice.options[row.index(max(row))]
            for choice, row in zip(self.space.choices, rows, strict=True)
        }
        return Architecture(self.space.name, options)

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The weights with which this supernet computes ``architecture``: one-hot rows."""
        return {"cell": self.space.architecture_weights(architecture)["cell"].to(self.alpha["cell"])}

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        architecture.check(self.space.choices)
        own = self.state_dict()
        columns = [choice.options.index(architecture[choice.name]) for choice in self.space.choices]
        state = {}
        for name, fresh in self.space.network(architecture).state_dict().items():
            parts = name.split(".")
            if len(parts) > 3 and parts[2] == "edges":
                parts[4:4] = ["operations", str(columns[int(parts[3])])]
            # Affine parameters that this network has not are 1 and 0, as freshly made.
            state[name] = own.get(".".join(parts), fresh).detach().clone()
        return state


def from_description(settings: object, input_shape: Sequence[int], classes: int) -> NasBench201:
    """The space whose :meth:`NasBench201.settings` were ``settings``; see ``space_from_description``.

    Raises:
        InvalidValue: ``settings`` are not exactly those of a space.
    """
    if not isinstance(settings, Mapping):
        raise InvalidValue("", settings, "it must be an object")
    require(set(settings) == set(LARGEST), "", sorted(map(str, settings)), f"it must hold {', '.join(LARGEST)}")
    return NasBench201(**settings, input_shape=input_shape, classes=classes)
