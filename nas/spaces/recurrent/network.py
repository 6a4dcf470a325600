"""The recurrent networks: embedding, cell, output layer; and the stand-alone cell of a genotype (Liu et al., 2019).

A candidate state is ``s + sigmoid(c) * (f(z) - s)`` with ``[c, z] = s W``: a highway that carries ``s`` on where the
gate is closed. The first state has the input beside the hidden state in its product; no product has a bias.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.embedding import known_tokens, mean_over
from nas.operations.locked_dropout import LockedDropouts, Masks, masked
from nas.operations.memory import Remembered, Remembers
from nas.signature import Signature
from nas.spaces.recurrent.genotype import RecurrentGenotype

INITIAL_RANGE = 0.04  # of the weights at the start, as in the original


def identity(x: Tensor) -> Tensor:
    return x


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": identity,
}


def uniform(*shape: int) -> nn.Parameter:
    """A weight that the global generator draws, from -0.04 to 0.04."""
    return nn.Parameter(torch.empty(shape).uniform_(-INITIAL_RANGE, INITIAL_RANGE))


def gated(state: Tensor, product: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``s + sigmoid(c) * (f(z) - s)`` for ``product`` = [c, z], (..., 2 width)."""
    gate, z = product.chunk(2, -1)
    return state + gate.sigmoid() * (function(z) - state)


class RecurrentCell(nn.Module):
    """What all cells share: their weights, and the way over time.

    Attributes:
        first: (2 width, 2 width), what input and hidden state are multiplied with.
        nodes: (width, 2 width) per node, what the state is multiplied with that it reads.
    """

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.first = uniform(2 * width, 2 * width)
        self.nodes = nn.ParameterList(uniform(width, 2 * width) for _ in range(nodes))

    def forward(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None = None) -> Tensor:
        """Inputs (length, batch, width) and the state before them (batch, width) to the states (length, batch, width).

        Args:
            masks: Those of ``cell_x`` and ``cell_h`` act in here, the same ones at every time step.
            weights: What a search cell mixes with.
        """
        states = []
        for one in x:
            state = self.step(one, state, masks, weights)
            states.append(state)
        return torch.stack(states)

    def first_state(self, x: Tensor, state: Tensor, masks: Masks) -> Tensor:
        """State 0 of a time step, from its input and the state before it, all (batch, width)."""
        both = torch.cat([masked(x, masks.cell_x), masked(state, masks.cell_h)], -1)
        return gated(state, both @ self.first, torch.tanh)

    def step(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None) -> Tensor:
        """One time step, all (batch, width)."""
        raise NotImplementedError


class Cell(RecurrentCell):
    """The cell of a genotype, without the search cell's batch norm."""

    def __init__(self, genotype: RecurrentGenotype, width: int) -> None:
        super().__init__(width, len(genotype.recurrent))
        self.genotype = genotype

    def step(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None = None) -> Tensor:
        states = [self.first_state(x, state, masks)]
        for (activation, source), node in zip(self.genotype.recurrent, self.nodes, strict=True):
            read = states[source]
            states.append(gated(read, masked(read, masks.cell_h) @ node, FUNCTIONS[activation]))
        return torch.stack([states[node] for node in self.genotype.concat]).mean(0)


class RecurrentNetwork(nn.Module, Remembers):
    """A language model around a cell; the embedding is the output layer's matrix, too (Press and Wolf, 2017).

    Args:
        vocabulary: The number of tokens.
        width: That of embedding and states.
        cell: Made for this width.
    """

    def __init__(self, vocabulary: int, width: int, cell: RecurrentCell) -> None:
        super().__init__()
        self.embedding = uniform(vocabulary, width)
        self.cell = cell
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        self.noise = LockedDropouts()

    def initial_state(self, batch: int) -> Tensor:
        return self.embedding.new_zeros(batch, self.embedding.shape[1])

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, length) to the logits of the next ones (batch, length, vocabulary)."""
        return self.recall(tokens).logits

    def recall(self, tokens: Tensor, state: Tensor | None = None, weights: Tensor | None = None) -> Remembered:
        """The pass from ``state`` (batch, width), or from an empty memory.

        Args:
            weights: What a search cell mixes with.
        """
        table, order = self.embedding, tokens.t()  # time first: a step's rows lie side by side
        many = tokens.shape[0]  # and not len, which an export takes for a constant
        state = self.initial_state(many) if state is None else state
        masks = self.noise.masks(len(table), many, table)
        x = F.embedding(order, table)
        if masks.words is not None:
            x = x * masks.words[order]
        hidden = self.cell(masked(x, masks.embedding), state, masks, weights)
        dropped = masked(hidden, masks.output)
        logits = F.linear(dropped, table, self.output_bias)
        return Remembered(logits.transpose(0, 1), hidden[-1], hidden.transpose(0, 1), dropped.transpose(0, 1))


class CellNetwork(RecurrentNetwork):
    """A language model around the cell of a genotype."""

    def __init__(self, vocabulary: int, width: int, genotype: RecurrentGenotype) -> None:
        super().__init__(vocabulary, width, Cell(genotype, width))


class RecurrentReader(nn.Module):
    """One prediction of a text or a series: the cell reads it, and the mean of its states is classified.

    Args:
        signature: What goes in and what comes out.
        width: That of inputs and states inside.
        cell: Made for this width.

    Attributes:
        dynamic: Axes of the inputs, beside the batch, that may be shorter in an export: name and largest size.
    """

    def __init__(self, signature: Signature, width: int, cell: RecurrentCell) -> None:
        super().__init__()
        self.reads_tokens, self.width = signature.is_tokens, width
        self.dynamic = {1: ("length", signature.input_shape[0])} if signature.is_tokens else {}
        if self.reads_tokens:
            self.embedding: nn.Embedding | nn.Linear = nn.Embedding(signature.categories[0], width)
        else:
            self.embedding = nn.Linear(signature.input_shape[0], width)
        self.cell = cell
        self.classifier = nn.Linear(width, signature.outputs)
        self.noise = LockedDropouts()

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Tokens (batch, length) or series (batch, channels, length) to (batch, outputs).

        Args:
            weights: What a search cell mixes with.
        """
        known = known_tokens(x) if self.reads_tokens else None
        order = x.t() if self.reads_tokens else x.permute(2, 0, 1)  # time first
        read = self.embedding(order)
        masks = self.noise.masks(len(self.embedding.weight), x.shape[0], read)
        if masks.words is not None and self.reads_tokens:
            read = read * masks.words[order]
        state = read.new_zeros(x.shape[0], self.width)
        hidden = self.cell(masked(read, masks.embedding), state, masks, weights)
        return self.classifier(masked(mean_over(hidden.transpose(0, 1), known), masks.output))


class CellReader(RecurrentReader):
    """A reader around the cell of a genotype."""

    def __init__(self, signature: Signature, width: int, genotype: RecurrentGenotype) -> None:
        super().__init__(signature, width, Cell(genotype, width))
