"""The search network of the DARTS space (Liu et al., 2019, section 2): cells of mixed operations, stacked.

A cell has two input states, the outputs of the two cells before it, and ``steps`` nodes. Each node is the sum of a
mixed operation (eq. 2) from every state before it, ``x_j = sum over i < j of o_ij(x_i)`` (eq. 1).
"""

from collections.abc import Mapping
from functools import reduce
from itertools import product
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.operations.cell_operations import ReLUConvBN
from nas.operations.fast.cell import bundles, node_states
from nas.operations.stochastic import Dropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.cell_supernet import CellSupernet
from nas.spaces.darts.choices import CELLS, DartsChoices, cell_edges, edge_name, edge_weight_row_of, edges_alpha
from nas.spaces.darts.inheritance import inherited_state
from nas.spaces.darts.network import CellShape, older_input, stacked_shapes


class SearchCell(nn.Module):
    """A cell with a mixed operation on every edge."""

    def __init__(self, space: DartsChoices, shape: CellShape) -> None:
        super().__init__()
        self.preprocess0 = older_input(shape.before, shape.channels, shape.halve_before, affine=False)
        self.preprocess1 = ReLUConvBN(shape.last, shape.channels, 1, 1, affine=False)
        self.edges = nn.ModuleList(
            space.structure.edge(names, shape.channels, shape.stride(source), normalise_pooling=True)
            for (_, source), names in zip(cell_edges(space.steps), space.edge_operations[shape.kind], strict=True)
        )
        self.steps = space.steps
        self.concat = space.concat[shape.kind]
        self.width = len(self.concat) * shape.channels

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """``weights`` (edges, columns), the rows in the order of :func:`cell_edges`; see ``EdgeStructure.weights``."""
        states = [self.preprocess0(before), self.preprocess1(last)]
        offset = 0
        for _ in range(self.steps):
            terms = [
                self.edges[offset + source](state, weights[offset + source]) for source, state in enumerate(states)
            ]
            offset += len(terms)
            states.append(reduce(add, terms))  # sum() would add a zero first
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


class DartsSupernet(CellSupernet):
    """The search network; the plain implementation computes one operation after the other, as the paper has it.

    ``alpha["normal"]`` and ``alpha["reduce"]`` are (edges, operations), shared by all cells of their type; the
    relaxation says where they begin. Batch norms have no affine parameters except the stem's.
    """

    space: DartsChoices

    def __init__(self, space: DartsChoices, relaxation: Relaxation) -> None:
        super().__init__(relaxation, space.structure)
        self.space = space
        width = space.stem_multiplier * space.channels
        self.stem = nn.Sequential(
            nn.Conv2d(space.input_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        cell_class = FastSearchCell if space.implementation == "fast" else SearchCell
        shapes = list(stacked_shapes(space.cells, space.channels, width, halve_first=False, concat=space.concat))
        made = [cell_class(space, shape) for shape in shapes]
        self.cells = nn.ModuleList(made)
        self.cell_types = [shape.kind for shape in shapes]
        self._mark_sampled_edges()
        self.dropout = Dropout()
        self.classifier = nn.Linear(made[-1].width, space.classes)
        for kind in CELLS:
            operations = space.edge_operations[kind]
            self.alpha[kind] = nn.Parameter(relaxation.initial((len(operations), len(operations[0]))))
        if space.structure.edge_normalisation:
            for kind, node in product(CELLS, range(2, space.steps + 2)):
                self.alpha[edges_alpha(kind, node)] = nn.Parameter(relaxation.initial((node,)))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        before = last = self.stem(self.laid_out(x, self.space.implementation))
        for cell, kind in zip(self.cells, self.cell_types, strict=True):
            before, last = last, cell(before, last, self.edge_weights(kind, weights))
        return self.classifier(self.dropout(F.adaptive_avg_pool2d(last, 1).flatten(1)))

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        if name in CELLS:
            edges = zip(cell_edges(self.space.steps), self.space.edge_operations[name], strict=True)
            return [(edge_name(name, *edge), operations) for edge, operations in edges]
        return [edge_weight_row_of(name)]

    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        fresh = self.space.network(architecture).state_dict()
        return inherited_state(self.space, architecture, self.cell_types, self.state_dict(), fresh)
