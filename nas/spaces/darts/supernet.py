"""The search network of the DARTS space (Liu et al., 2019, section 2): cells of mixed operations, stacked.

A cell has two input states, the outputs of the two cells before it, and ``steps`` nodes. Each node is the sum of a
mixed operation (eq. 2) from every state before it, ``x_j = sum over i < j of o_ij(x_i)`` (eq. 1).
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import require
from nas.operations.cell_operations import MixedEdge, ReLUConvBN
from nas.operations.fast.edges import bundles, node_states
from nas.operations.stochastic import Dropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.darts.choices import CELLS, DartsChoices, cell_edges, edge_name
from nas.spaces.darts.genotype import Edge
from nas.spaces.darts.network import CellShape, older_input, stacked_shapes
from nas.spaces.supernet import Supernet


class SearchCell(nn.Module):
    """A cell with a mixed operation on every edge; its arguments are those of a stand-alone cell."""

    def __init__(self, operations: Sequence[str], steps: int, concat: Sequence[int], shape: CellShape) -> None:
        super().__init__()
        self.preprocess0 = older_input(shape.before, shape.channels, shape.halve_before, affine=False)
        self.preprocess1 = ReLUConvBN(shape.last, shape.channels, 1, 1, affine=False)
        self.edges = nn.ModuleList(
            MixedEdge(operations, shape.channels, 2 if shape.reduction and source < 2 else 1, normalise_pooling=True)
            for _, source in cell_edges(steps)
        )
        self.steps = steps
        self.concat = tuple(concat)
        self.width = len(self.concat) * shape.channels

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """``weights`` (edges, operations), the rows in the order of :func:`cell_edges`."""
        states = [self.preprocess0(before), self.preprocess1(last)]
        offset = 0
        for _ in range(self.steps):
            terms = [
                self.edges[offset + source](state, weights[offset + source]) for source, state in enumerate(states)
            ]
            offset += len(terms)
            states.append(reduce(add, terms))
        return torch.cat([states[index] for index in self.concat], dim=1)


class FastSearchCell(SearchCell):
    """The same cell with the edges that leave one state computed together."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.bundles = bundles(self.edges, cell_edges(self.steps))

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        inputs = [self.preprocess0(before), self.preprocess1(last)]
        states = node_states(inputs, self.edges, self.bundles, cell_edges(self.steps), weights)
        return torch.cat([states[index] for index in self.concat], dim=1)


class DartsSupernet(Supernet):
    """The search network; the plain implementation computes one operation after the other, as the paper has it.

    ``alpha["normal"]`` and ``alpha["reduce"]`` are (edges, operations), shared by all cells of their type; the
    relaxation says where they begin. Batch norms have no affine parameters except the stem's.
    """

    def __init__(self, space: DartsChoices, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        self.space = space
        width = space.stem_multiplier * space.channels
        self.stem = nn.Sequential(
            nn.Conv2d(space.input_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        cell_class = FastSearchCell if space.implementation == "fast" else SearchCell
        shapes = list(stacked_shapes(space.cells, space.channels, width, False, space.concat))
        made = [cell_class(space.operations, space.steps, space.concat[shape.kind], shape) for shape in shapes]
        self.cells = nn.ModuleList(made)
        self.cell_types = [shape.kind for shape in shapes]
        self._sample_edges()
        self.dropout = Dropout()
        self.classifier = nn.Linear(made[-1].width, space.classes)
        for kind in CELLS:
            rows = len(cell_edges(space.steps))
            self.alpha[kind] = nn.Parameter(relaxation.initial((rows, len(space.operations))))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        before = last = self.stem(self.laid_out(x, self.space.implementation))
        for cell, kind in zip(self.cells, self.cell_types, strict=True):
            before, last = last, cell(before, last, weights[kind])
        return self.classifier(self.dropout(F.adaptive_avg_pool2d(last, 1).flatten(1)))

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        edges = cell_edges(self.space.steps)
        return [(edge_name(name, node, source), self.space.operations) for node, source in edges]

    def discretise(self) -> Architecture:
        return self.space.preferred(self.finite_probabilities())

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The weights with which this supernet computes ``architecture``: 1 where it has an edge, 0 elsewhere.

        A node that reads one state twice through one operation has a 2 there.
        """
        weights = self.space.architecture_weights(architecture)
        return {kind: weights[kind].to(self.alpha[kind]) for kind in CELLS}

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """A state dict for the stand-alone network, where it has the size of this one.

        Its batch norms get a scale of 1 and a shift of 0, which is what theirs without affine parameters compute.

        Raises:
            InvalidValue: The stand-alone network is larger, has other parts, or pools: its pooling operations have no
                batch norm. :meth:`architecture_weights` computes such an architecture in the supernet itself.
        """
        space = self.space
        genotype = space.genotype(architecture)
        allowed = "weights can be inherited only where the stand-alone network has the search network's size and parts"
        require(space.final_channels == space.channels, "final_channels", space.final_channels, allowed)
        require(space.final_cells == space.cells, "final_cells", space.final_cells, allowed)
        require(space.final_network == "cifar", "final_network", space.final_network, allowed)
        require(not space.auxiliary, "auxiliary", space.auxiliary, allowed)
        pools = [operation for operation in genotype.operations() if "pool" in operation]
        require(not pools, "architecture", pools, "a stand-alone pooling operation has no batch norm to inherit")
        rows = {edge: row for row, edge in enumerate(cell_edges(space.steps))}
        own = self.state_dict()
        state: dict[str, Tensor] = {}
        for name, fresh in space.network(architecture).state_dict().items():
            parts = name.split(".")
            if parts[0] == "cells" and parts[2] == "edges":
                edges: tuple[Edge, ...] = getattr(genotype, self.cell_types[int(parts[1])])
                operation, source = edges[int(parts[3])]
                row = rows[int(parts[3]) // 2 + 2, source]
                parts[3:4] = [str(row), "operations", str(space.operations.index(operation))]
            # Affine parameters that this network has not are 1 and 0, as freshly made.
            state[name] = own.get(".".join(parts), fresh).detach().clone()
        return state
