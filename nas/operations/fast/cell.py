"""A cell with the edges that leave one state computed together (:mod:`nas.operations.fast.edges`).

:func:`node_states` goes through the states in order. What the operations of a state's edges give is added to the nodes
that these edges enter, so that a node's sum is complete before the edges that leave it are computed. Sampled edges,
partial channels and drop path are dealt with here.

The modules are those of :class:`~nas.operations.cell_operations.MixedEdge`: same parameters, same state dict, same
random draws.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nas.operations.cell_operations import NOISE, MixedEdge, Zero
from nas.operations.edge_structure import PartialEdge
from nas.operations.fast.edges import SingleOperation, mixed_edges, selected
from nas.operations.fast.mixture import Term, mixture
from nas.operations.fast.normalisation import RunningAverages
from nas.operations.sampled import chosen_columns, unchosen_sum
from nas.operations.stochastic import GaussianNoise, keep_mask


class Bundle(nn.Module):
    """The mixed operations on edges that leave one state and choose from the same operations.

    The parameters are and stay those of the edges.

    Args:
        source: The number of the state.
        rows: Which edges of the cell they are.
        edges: The edges themselves.
    """

    is_region: ClassVar[bool] = True  # of nas.device.compilation

    def __init__(self, source: int, rows: Sequence[int], edges: Sequence[MixedEdge]) -> None:
        super().__init__()
        self.source = source
        self.rows, self.edges = tuple(rows), tuple(edges)  # a tuple's modules are not registered again

    def extra_repr(self) -> str:
        return "\n".join(map(repr, self.edges))

    def forward(self, state: Tensor, factors: Tensor) -> list[Tensor]:
        """Per edge its mixed operation on ``state`` (batch, C, H, W), as (batch, H', W', C).

        Args:
            state: The state that the edges leave.
            factors: (batch or 1, edges, operations).
        """
        averages = RunningAverages()
        outs = mixed_edges(state, self.edges, factors, averages)
        averages.update()
        return outs


def bundles(edges: nn.ModuleList, pairs: Sequence[tuple[int, int]]) -> nn.ModuleList:
    """The edges of a cell by the state they leave and by their operations, in the states' order.

    Args:
        edges: One :class:`~nas.operations.cell_operations.MixedEdge` per pair.
        pairs: Per edge its node and the state it reads, nodes in order.
    """
    given: list[MixedEdge] = list(edges)  # type: ignore[arg-type]
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for row, (_, source) in sorted(enumerate(pairs), key=lambda pair: pair[1][1]):
        groups.setdefault((source, given[row].names), []).append(row)
    return nn.ModuleList(Bundle(source, rows, [given[row] for row in rows]) for (source, _), rows in groups.items())


def node_states(
    inputs: Sequence[Tensor],
    edges: nn.ModuleList,
    bundles: nn.ModuleList,
    pairs: Sequence[tuple[int, int]],
    weights: Tensor,
) -> list[Tensor]:
    """The states of a cell, inputs included; each node is the sum of its edges.

    Args:
        inputs: The input states, (batch, channels, H, W).
        edges: One :class:`~nas.operations.cell_operations.MixedEdge` per edge, or one with partial channels.
        bundles: The same edges as :func:`bundles`.
        pairs: Per edge its node and the state it reads, nodes in order.
        weights: (edges, columns), as the edges take them.
    """
    first = edges[0]
    unmixed = UnmixedChannels(edges, pairs, weights) if isinstance(first, PartialEdge) else None
    weights = weights if unmixed is None else weights[:, :-1]
    columns = chosen_columns(weights) if first.sampled else None
    states: list[Tensor] = []
    mixed: list[Tensor] = []  # what the operations see of each state: the channels that are mixed
    sums = {} if columns is None else _unchosen_sums(pairs, weights, columns)  # per node, of its edges so far

    def add(state: Tensor) -> None:
        states.append(state)
        mixed.append(state if unmixed is None else unmixed.split_off(state))

    def complete(node: int) -> Tensor:
        return _state(sums[node]) if unmixed is None else unmixed.state(node, sums[node])

    for state in inputs:
        add(state.contiguous(memory_format=torch.channels_last))
    factors = _factors(edges, pairs, weights, mixed, columns)  # type: ignore[arg-type]
    for bundle in bundles:
        source: int = bundle.source  # type: ignore[assignment]
        if source >= len(states):
            add(complete(source))  # the bundles of all states before it are done, and so are its edges
        rows: tuple[int, ...] = bundle.rows  # type: ignore[assignment]
        if columns is None:
            outs = bundle(mixed[source], selected(factors, 1, rows))
        else:
            own = [edges[row] for row in rows]
            outs = _sampled_edges(mixed[source], own, [columns[row] for row in rows], factors[:, list(rows)])  # type: ignore[arg-type]
        for row, out in zip(rows, outs, strict=True):
            node = pairs[row][0]
            sums[node] = sums[node] + out if node in sums else out
    return [*states, complete(pairs[-1][0])]  # no edge leaves the last node


class UnmixedChannels:
    """The channels that pass by the operations (PC-DARTS): pooled once per state, summed and shuffled once per node.

    The shuffle only moves channels, so that it may follow the sum of the edges (:class:`PartialEdge` has it on each).
    """

    def __init__(self, edges: nn.ModuleList, pairs: Sequence[tuple[int, int]], weights: Tensor) -> None:
        self.edges: list[PartialEdge] = list(edges)  # type: ignore[arg-type]
        self.pairs, self.weights = pairs, weights[:, -1]
        self.parts = self.edges[0].parts
        self.rests: list[Tensor] = []  # (batch, 1, H, W, channels), at the resolution of the nodes

    def split_off(self, state: Tensor) -> Tensor:
        """Keep those channels of ``state`` (batch, channels, H, W) that pass; returns those that are mixed."""
        mixed, rest = state.tensor_split((self.edges[0].mixed,), dim=1)
        row = next((row for row, (_, source) in enumerate(self.pairs) if source == len(self.rests)))
        self.rests.append(self.edges[row].passing(rest).permute(0, 2, 3, 1).unsqueeze(1))
        return mixed.contiguous(memory_format=torch.channels_last)

    def state(self, node: int, mixed: Tensor) -> Tensor:
        """The state of ``node`` (batch, channels, H, W), of the sum of what its edges mix, (batch, H, W, channels)."""
        rows = [row for row, (end, _) in enumerate(self.pairs) if end == node]
        factors = selected(self.weights, 0, rows).view(1, 1, -1)
        (rest,) = mixture(factors, [Term(one) for one in self.rests[: len(rows)]])
        rest = rest.unflatten(-1, (self.parts - 1, -1)).transpose(-1, -2)
        together = torch.cat([mixed.unsqueeze(-1), rest], dim=-1)
        return _state(together.flatten(-2))


def _sampled_edges(state: Tensor, edges: Sequence[MixedEdge], columns: Sequence[int], factors: Tensor) -> list[Tensor]:
    """Per edge the operation of its column alone, (batch, H', W', C); edges with the same one are computed together.

    Args:
        factors: (batch or 1, edges).
    """
    averages = RunningAverages()
    outs: dict[int, Tensor] = {}
    for column in sorted(set(columns)):
        places = [place for place, own in enumerate(columns) if own == column]
        alike = [edges[place].operations[column] for place in places]
        of_alike = factors[:, places]
        if isinstance(alike[0], Zero):  # the layers before stay part of the graph, with a gradient of zero
            nothing = alike[0](state).permute(0, 2, 3, 1)
            found = [nothing * factor[:, None, None, None] for factor in of_alike.unbind(1)]
        else:
            single = [SingleOperation((operation,)) for operation in alike]
            found = mixed_edges(state, single, of_alike.unsqueeze(2), averages)
        outs |= dict(zip(places, found, strict=True))
    averages.update()
    return [outs[place] for place in range(len(columns))]


def _unchosen_sums(pairs: Sequence[tuple[int, int]], weights: Tensor, columns: list[int]) -> dict[int, Tensor]:
    """Per node what the operations that are not chosen add to it (:func:`nas.operations.sampled.unchosen_sum`)."""
    if not weights.requires_grad:
        return {}
    rows = {node: [row for row, (end, _) in enumerate(pairs) if end == node] for node, _ in pairs}
    return {node: unchosen_sum(weights[own], [columns[row] for row in own]) for node, own in rows.items()}


def _factors(
    edges: Sequence[MixedEdge],
    pairs: Sequence[tuple[int, int]],
    weights: Tensor,
    inputs: Sequence[Tensor],
    columns: list[int] | None,
) -> Tensor:
    """``weights`` (1, edges, operations), or times the drop-path masks (batch, edges, operations).

    With ``columns`` those of the chosen operations alone, (1 or batch, edges). Masks and noise are drawn here, in the
    order in which one operation after the other would draw them.
    """
    like, whole = inputs[0], edges[0].drop_path.is_identity()
    if columns is not None:
        weights = weights[range(len(columns)), columns]
    if whole and not any(NOISE in edge.names for edge in edges):
        return weights.unsqueeze(0)
    sides = [-(-side // edges[0].stride) for side in like.shape[2:]]  # of the nodes
    node, ones = like[:, :, : sides[0], : sides[1]], like.new_ones(like.shape[0])
    masks = []
    for row, (edge, (_, source)) in enumerate(zip(edges, pairs, strict=True)):
        for operation in edge.operations if columns is None else [edge.operations[columns[row]]]:
            if isinstance(operation, GaussianNoise):
                operation.drawn = operation.draw(inputs[source] if source < len(inputs) else node)
            masks.append(ones if whole or isinstance(operation, nn.Identity) else _mask(edge, like))
    return weights.unsqueeze(0) if whole else weights * torch.stack(masks, 1).view(like.shape[0], *weights.shape)


def _mask(edge: MixedEdge, like: Tensor) -> Tensor:
    drop_path = edge.drop_path
    return keep_mask((like.shape[0], 1, 1, 1), drop_path.rate, like, drop_path.generator).flatten()


def _state(total: Tensor) -> Tensor:
    """A node's sum (batch, H, W, C) as the state that later edges read, (batch, C, H, W)."""
    state: Tensor = _DenseGradient.apply(total)
    return state.permute(0, 3, 1, 2)


class _DenseGradient(Function):
    """The identity. A cell concatenates its nodes, so that a gradient may be a slice of a larger tensor, with which
    PyTorch's batch norm takes twenty times as long as with a copy of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()
