"""The recurrent search network of DARTS (Liu et al., 2019, section 3.1 and appendix A.1.2).

Node i mixes a candidate state of every state before it and of every activation,
``s_i = sum over j < i, k of softmax(alpha_ij)_k * (s_j + sigmoid(c_ij) * (f_k(z_ij) - s_j))`` with
``[c_ij, z_ij] = s_j W_i``: all inputs of a node share its weights, and ``none`` adds nothing. One batch norm without
parameters, the same module for all, is applied to the first state and to every node.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import require
from nas.operations.fast.recurrent_pass import RecurrentInputs, recurrent_pass
from nas.operations.locked_dropout import Masks, masked
from nas.operations.memory import Remembered, Remembers
from nas.relaxations.relaxation import Relaxation
from nas.spaces.recurrent.choices import RecurrentChoices, cell_edges, edge_name
from nas.spaces.recurrent.genotype import OPERATIONS
from nas.spaces.recurrent.network import FUNCTIONS, RecurrentCell, RecurrentNetwork, RecurrentReader, gated
from nas.spaces.supernet import Supernet


class SearchCell(RecurrentCell):
    """The cell as the paper has it: one candidate after the other.

    Args:
        width: That of inputs and states.
        nodes: How many there are.
        concat: Those whose mean is the state after a time step.
    """

    def __init__(self, width: int, nodes: int, concat: tuple[int, ...]) -> None:
        super().__init__(width, nodes)
        self.concat = concat
        self.norm = nn.BatchNorm1d(width, affine=False)

    def step(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None) -> Tensor:
        """``weights`` (edges, operations), the rows in the order of :func:`cell_edges`."""
        states = self.states(x, state, masks, weights)
        return torch.stack([states[node] for node in self.concat]).mean(0)

    def states(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None) -> list[Tensor]:
        """State 0 and those of the nodes, each (batch, width)."""
        assert weights is not None
        states, row = [self.norm(self.first_state(x, state, masks))], 0
        for node in self.nodes:
            products = [masked(read, masks.cell_h) @ node for read in states]
            total = torch.zeros_like(state)
            for column, operation in enumerate(OPERATIONS):
                if operation == "none":
                    continue
                candidates = [
                    weights[row + source, column] * gated(read, product, FUNCTIONS[operation])
                    for source, (read, product) in enumerate(zip(states, products, strict=True))
                ]
                total = total + reduce(add, candidates)
            row += len(states)
            states.append(self.norm(total))
        return states


class FastSearchCell(SearchCell):
    """The same cell, whose whole way over time is one function (``nas/operations/fast/recurrent_pass.py``)."""

    def forward(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None = None) -> Tensor:
        assert weights is not None
        (length, batch, width), many = x.shape, len(self.nodes)
        of_input, of_state = self.first.split(width)
        from_input = (masked(x, masks.cell_x).reshape(-1, width) @ of_input).view(length, batch, 2 * width)
        # Of every state: the products of all later nodes side by side, and their rows of the weights without none.
        rows = {edge: row for row, edge in enumerate(cell_edges(many))}
        products = [torch.cat(list(self.nodes)[source:], 1) for source in range(many)]
        mixtures = [weights[[rows[node, source] for node in range(source + 1, many + 1)], 1:] for source in range(many)]
        tanh = weights.new_tensor([[1.0, 0.0, 0.0, 0.0]])
        mask = torch.ones_like(state) if masks.cell_h is None else masks.cell_h
        inputs = RecurrentInputs(from_input, state, mask, [of_state, *products], [tanh, *mixtures])
        return recurrent_pass(inputs, self.concat, self.norm)


class AroundCell(Supernet):
    """A network around the search cell; ``alpha["recurrent"]`` is (edges, operations)."""

    space: RecurrentChoices
    network: nn.Module

    def __init__(self, space: RecurrentChoices, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        self.space = space
        cell_class = FastSearchCell if space.implementation == "fast" else SearchCell
        self.network = self.around(cell_class(space.width, space.nodes, space.concat))
        self.alpha["recurrent"] = nn.Parameter(relaxation.initial((len(cell_edges(space.nodes)), len(OPERATIONS))))

    def around(self, cell: SearchCell) -> nn.Module:
        """The network around ``cell``."""
        raise NotImplementedError

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(edge_name(*edge), OPERATIONS) for edge in cell_edges(self.space.nodes)]

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """The stand-alone cell has no batch norm, so that its states are others with the same weights.

        Raises:
            InvalidValue: The stand-alone network has another width.
        """
        architecture.check(self.space.choices)
        width, final = self.space.width, self.space.final_width
        require(final == width, "final_width", final, f"weights can be inherited at the search network's width {width}")
        own = self.network.state_dict()
        return {name: value.clone() for name, value in own.items() if not name.startswith("cell.norm.")}


class RecurrentSupernet(AroundCell, Remembers):
    """The search network of a language.

    Attributes:
        tied: The name of the weight that is the embedding and the output layer's matrix.
    """

    tied: ClassVar[str] = "network.embedding"
    network: RecurrentNetwork

    def around(self, cell: SearchCell) -> RecurrentNetwork:
        return RecurrentNetwork(self.space.outputs, self.space.width, cell)

    def initial_state(self, batch: int) -> Tensor:
        return self.network.initial_state(batch)

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Tokens (batch, length) to logits (batch, length, vocabulary), from an empty memory.

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        return self.recall(x, None, weights).logits

    def recall(self, x: Tensor, state: Tensor | None, weights: Mapping[str, Tensor] | None = None) -> Remembered:
        """The pass from ``state`` (batch, width), or from an empty memory."""
        weights = self.operation_weights() if weights is None else weights
        return self.network.recall(x, state, weights["recurrent"])


class ReaderSupernet(AroundCell):
    """The search network of texts or series that get one prediction each."""

    def around(self, cell: SearchCell) -> RecurrentReader:
        return RecurrentReader(self.space.signature, self.space.width, cell)

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Tokens (batch, length) or series (batch, channels, length) to (batch, outputs).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        return self.network(x, weights["recurrent"])
