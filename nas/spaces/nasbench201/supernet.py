"""The search network of the NAS-Bench-201 space (Dong and Yang, 2020): its cells with a mixed operation per edge."""

from collections.abc import Mapping
from functools import partial, reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import require
from nas.operations.edge_structure import EdgeStructure
from nas.operations.fast.cell import bundles, node_states
from nas.operations.stochastic import Dropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.cell_supernet import CellSupernet
from nas.spaces.nasbench201.choices import EDGES, OPERATIONS, NasBench201Choices
from nas.spaces.nasbench201.network import last_activation, stages, stem


class SearchCell(nn.Module):
    """A mixed operation per edge: (batch, channels, H, W) to the same shape."""

    def __init__(self, structure: EdgeStructure, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(structure.edge(OPERATIONS, channels, 1, normalise_pooling=False) for _ in EDGES)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``weights`` (edges, columns); see ``EdgeStructure.weights``."""
        states = [x]
        for node in range(1, 4):
            rows = [row for row, (end, _) in enumerate(EDGES) if end == node]
            terms = [self.edges[row](state, weights[row]) for row, state in zip(rows, states, strict=True)]
            states.append(reduce(add, terms))
        return states[-1]


class FastSearchCell(SearchCell):
    """The same cell with the edges that leave one state computed together."""

    def __init__(self, structure: EdgeStructure, channels: int) -> None:
        super().__init__(structure, channels)
        self.bundles = bundles(self.edges, EDGES)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return node_states([x], self.edges, self.bundles, EDGES, weights)[-1]


class NasBench201Supernet(CellSupernet):
    """The search network; the plain implementation computes one operation after the other.

    ``alpha["cell"]`` is (6 edges, 5 operations), shared by all cells; the relaxation says where it begins. Batch norms
    inside the cells have no affine parameters; those of stem, residual blocks and the last activation have.
    """

    space: NasBench201Choices

    def __init__(self, space: NasBench201Choices, relaxation: Relaxation) -> None:
        super().__init__(relaxation, space.structure)
        self.space = space
        self.stem = stem(space)
        cell_class = FastSearchCell if space.implementation == "fast" else SearchCell
        self.cells = stages(space, partial(cell_class, space.structure))
        self._mark_sampled_edges()
        self.last_activation = last_activation(space)
        self.dropout = Dropout()
        self.classifier = nn.Linear(4 * space.channels, space.classes)
        self.alpha["cell"] = nn.Parameter(relaxation.initial((len(EDGES), len(OPERATIONS))))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        of_edges = self.edge_weights("cell", weights)
        x = self.stem(self.laid_out(x, self.space.implementation))
        for cell in self.cells:
            x = cell(x, of_edges) if isinstance(cell, SearchCell) else cell(x)
        x = F.adaptive_avg_pool2d(self.last_activation(x), 1).flatten(1)
        return self.classifier(self.dropout(x))

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(choice.name, choice.options) for choice in self.space.choices]

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        architecture.check(self.space.choices)
        parts_mixed = self.structure.partial_channels
        allowed = "the network's operations see all channels, the search's a part"
        require(parts_mixed == 1, "partial_channels", parts_mixed, allowed)
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
