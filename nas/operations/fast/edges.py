"""All mixed operations on the edges that leave one state of a cell, computed together.

The shared parts of the edges are computed once: the leading ReLU, the poolings and their batch norms. ``none`` costs
nothing. The modules are those of :class:`~nas.operations.cell_operations.MixedEdge`: same parameters, same state dict,
same random draws.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from nas.operations.cell_operations import (
    NOISE,
    DilatedSeparableConvolution,
    FactorisedReduction,
    MixedEdge,
    ReLUConvBN,
    SeparableConvolution,
    Zero,
)
from nas.operations.edge_structure import PartialEdge
from nas.operations.fast import library
from nas.operations.fast.depthwise import depthwise_convolution
from nas.operations.fast.mixture import Term, mixture
from nas.operations.fast.normalisation import RunningAverages, channel_statistics, normalised
from nas.operations.fast.pooling import Known, poolings
from nas.operations.fast.separable import Kernel, Layer, separable
from nas.operations.sampled import bare, chosen_columns
from nas.operations.stochastic import GaussianNoise, keep_mask


class Alone(NamedTuple):
    """One operation of an edge, in place of the edge."""

    operations: tuple[nn.Module]


class Bundle(nn.Module):
    """The mixed operations on edges that leave one state and choose from the same operations.

    The parameters are and stay those of the edges.
    """

    is_region: ClassVar[bool] = True  # of nas.device.compilation

    def __init__(self, state: int, rows: Sequence[int], edges: Sequence[MixedEdge]) -> None:
        super().__init__()
        self.state = state
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
    for row, (_, state) in sorted(enumerate(pairs), key=lambda pair: pair[1][1]):
        groups.setdefault((state, given[row].names), []).append(row)
    return nn.ModuleList(Bundle(state, rows, [given[row] for row in rows]) for (state, _), rows in groups.items())


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
    partial = Passing(edges, pairs, weights) if isinstance(first, PartialEdge) else None
    weights = weights if partial is None else weights[:, :-1]
    columns = chosen_columns(weights) if first.sampled else None
    mixed: list[Tensor] = []
    states: list[Tensor] = []
    sums = {} if columns is None else _bare_sums(pairs, weights, columns)

    def arrived(state: Tensor) -> None:
        states.append(state)
        mixed.append(state if partial is None else partial.keep(state))

    for state in inputs:
        arrived(state.contiguous(memory_format=torch.channels_last))
    factors = _factors(edges, pairs, weights, mixed, columns)  # type: ignore[arg-type]
    for bundle in bundles:
        source: int = bundle.state  # type: ignore[assignment]
        if source >= len(states):
            arrived(_state(sums[source]) if partial is None else partial.state(source, sums[source]))
        rows: tuple[int, ...] = bundle.rows  # type: ignore[assignment]
        if columns is None:
            outs = bundle(mixed[source], chosen(factors, 1, rows))
        else:
            own = [edges[row] for row in rows]
            outs = _chosen_alone(mixed[source], own, [columns[row] for row in rows], factors[:, list(rows)])  # type: ignore[arg-type]
        for row, out in zip(rows, outs, strict=True):
            node = pairs[row][0]
            sums[node] = sums[node] + out if node in sums else out
    last = pairs[-1][0]
    return [*states, _state(sums[last]) if partial is None else partial.state(last, sums[last])]


class Passing:
    """What passes by the operations of partial channels: pooled once per state, summed and shuffled once per node.

    The shuffle only moves channels, so that it may follow the sum of the edges (:class:`PartialEdge` has it on each).
    """

    def __init__(self, edges: nn.ModuleList, pairs: Sequence[tuple[int, int]], weights: Tensor) -> None:
        self.edges: list[PartialEdge] = list(edges)  # type: ignore[arg-type]
        self.pairs, self.weights = pairs, weights[:, -1]
        self.parts = self.edges[0].parts
        self.rests: list[Tensor] = []  # (batch, 1, H, W, channels), at the resolution of the nodes

    def keep(self, state: Tensor) -> Tensor:
        """Put the channels of ``state`` (batch, channels, H, W) aside that pass; returns those to be mixed."""
        mixed, rest = state.tensor_split((self.edges[0].mixed,), dim=1)
        row = next((row for row, (_, source) in enumerate(self.pairs) if source == len(self.rests)))
        self.rests.append(self.edges[row].passing(rest).permute(0, 2, 3, 1).unsqueeze(1))
        return mixed.contiguous(memory_format=torch.channels_last)

    def state(self, node: int, mixed: Tensor) -> Tensor:
        """The state of ``node`` (batch, channels, H, W), of the sum of what its edges mix, (batch, H, W, channels)."""
        rows = [row for row, (end, _) in enumerate(self.pairs) if end == node]
        factors = chosen(self.weights, 0, rows).view(1, 1, -1)
        (rest,) = mixture(factors, [Term(one) for one in self.rests[: len(rows)]])
        rest = rest.unflatten(-1, (self.parts - 1, -1)).transpose(-1, -2)
        together = torch.cat([mixed.unsqueeze(-1), rest], dim=-1)
        return _state(together.flatten(-2))


def _chosen_alone(state: Tensor, edges: Sequence[MixedEdge], columns: Sequence[int], factors: Tensor) -> list[Tensor]:
    """Per edge the operation of its column alone, (batch, H', W', C); edges with the same one are computed together.

    Args:
        factors: (batch or 1, edges).
    """
    averages = RunningAverages()
    outs: dict[int, Tensor] = {}
    for column in sorted(set(columns)):
        places = [place for place, own in enumerate(columns) if own == column]
        alike = [edges[place].operations[column] for place in places]
        own = factors[:, places]
        if isinstance(alike[0], Zero):  # the layers before stay part of the graph, with a gradient of zero
            nothing = alike[0](state).permute(0, 2, 3, 1)
            found = [nothing * factor[:, None, None, None] for factor in own.unbind(1)]
        else:
            found = mixed_edges(state, [Alone((operation,)) for operation in alike], own.unsqueeze(2), averages)
        outs |= dict(zip(places, found, strict=True))
    averages.update()
    return [outs[place] for place in range(len(columns))]


def _bare_sums(pairs: Sequence[tuple[int, int]], weights: Tensor, columns: list[int]) -> dict[int, Tensor]:
    """Per node what the operations that are not chosen add to it (:func:`nas.operations.sampled.bare`)."""
    if not weights.requires_grad:
        return {}
    rows = {node: [row for row, (end, _) in enumerate(pairs) if end == node] for node, _ in pairs}
    return {node: bare(weights[own], [columns[row] for row in own]) for node, own in rows.items()}


def chosen(tensor: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """Those ``places`` of ``tensor`` along ``dim``."""
    if torch.compiler.is_compiling():
        return torch.stack([tensor.select(dim, place) for place in places], dim)
    return tensor.index_select(dim, _on_device(tuple(places), tensor.device))


@cache
def _on_device(places: tuple[int, ...], device: torch.device) -> Tensor:
    """``places`` as a tensor, made once: a GPU would be waited for at every copy from the processor's memory."""
    return torch.tensor(places, device=device)


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


def mixed_edges(
    state: Tensor, edges: Sequence[MixedEdge | Alone], factors: Tensor, averages: RunningAverages
) -> list[Tensor]:
    """Per edge its mixed operation on ``state`` (batch, C, H, W), as (batch, H', W', C).

    Args:
        factors: (batch or 1, edges, operations).
        averages: Collects the batch norms' statistics.
    """
    stock = state.device.type == "cpu" and not library.usable(state)
    return (_edge_by_edge if stock else _all_at_once)(state, edges, factors, averages)


def _all_at_once(
    state: Tensor, edges: Sequence[MixedEdge | Alone], factors: Tensor, averages: RunningAverages
) -> list[Tensor]:
    """:func:`mixed_edges` with each kind of operation computed for all edges at a time."""
    x = state.permute(0, 2, 3, 1).unsqueeze(1)
    pooled: dict[type[nn.Module], tuple[Tensor, Known]] = {}
    terms: list[Term] = []
    columns: list[int] = []
    for column, alike in enumerate(zip(*(edge.operations for edge in edges), strict=True)):
        first = alike[0]
        if isinstance(first, Zero):
            continue
        pooling = first[0] if isinstance(first, nn.Sequential) else first
        if isinstance(pooling, nn.MaxPool2d | nn.AvgPool2d):
            if not pooled:
                stride = pooling.stride
                assert isinstance(stride, int)
                pooled[nn.MaxPool2d], pooled[nn.AvgPool2d] = poolings(x, stride)
            plane, known = pooled[type(pooling)]
            norms = [operation[1] for operation in alike] if isinstance(first, nn.Sequential) else []
            terms.append(Term(*averages.normalise(norms, plane, known)) if norms else Term(plane))
        elif isinstance(first, nn.Identity):
            terms.append(Term(x))
        else:
            batched = BATCHED.get(type(first), _one_by_one)
            terms.append(batched(state, alike, averages))
        columns.append(column)
    return mixture(chosen(factors, 2, columns), terms)


def _edge_by_edge(
    state: Tensor, edges: Sequence[MixedEdge | Alone], factors: Tensor, averages: RunningAverages
) -> list[Tensor]:
    """:func:`mixed_edges` as PyTorch is fastest without the kernels on a CPU, whose grouped convolutions are slow.

    What edges have in common is computed once; an operation's weight is that of its last batch norm.
    """
    activated = F.relu(state)
    common: list[list[tuple[Tensor, Tensor]]] = [[] for _ in edges]  # per edge its factors and planes
    totals: list[Tensor | None] = [None] * len(edges)
    pooled: dict[type[nn.Module], Tensor] = {}
    for column, alike in enumerate(zip(*(edge.operations for edge in edges), strict=True)):
        first = alike[0]
        pooling = first[0] if isinstance(first, nn.Sequential) else first
        if isinstance(first, Zero):
            continue
        if isinstance(pooling, nn.MaxPool2d | nn.AvgPool2d | nn.Identity):
            if type(pooling) not in pooled:
                pooled[type(pooling)] = pooling(state)
            planes = pooled[type(pooling)].permute(0, 2, 3, 1).unsqueeze(1)
            if isinstance(first, nn.Sequential):
                norms = [operation[1] for operation in alike]
                planes, statistics = averages.normalise(norms, planes, None)
                planes = planes if statistics is None else normalised(planes, statistics)
            for edge, plane in enumerate(planes.expand(-1, len(edges), -1, -1, -1).unbind(1)):
                common[edge].append((factors[:, edge, column, None, None, None], plane.permute(0, 3, 1, 2)))
            continue
        for edge, operation in enumerate(alike):
            term = _weighted(operation, state, activated, factors[:, edge, column])
            before = totals[edge]
            totals[edge] = term if before is None else before + term
    outs = []
    for total, pairs in zip(totals, common, strict=True):
        for factor, plane in pairs:
            total = factor * plane if total is None else torch.addcmul(total, plane, factor)
        assert total is not None
        outs.append(total.permute(0, 2, 3, 1))
    return outs


def _weighted(operation: nn.Module, state: Tensor, activated: Tensor, factor: Tensor) -> Tensor:
    """``operation(state) * factor`` for a factor (batch or 1,); ``activated`` is the state after the ReLU."""
    if not isinstance(operation, SeparableConvolution | DilatedSeparableConvolution | ReLUConvBN):
        return factor[:, None, None, None] * operation(state)
    _, *layers, norm = operation.children()
    y = activated
    for layer in layers:
        y = _convolved(y, layer) if isinstance(layer, nn.Conv2d) else layer(y)
    if len(factor) > 1 or not isinstance(norm, nn.BatchNorm2d):  # it may be synchronised
        return factor[:, None, None, None] * norm(y)
    tracked = norm.training and norm.track_running_stats
    if tracked and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    running = (norm.running_mean, norm.running_var) if tracked or not norm.training else (None, None)
    weight = factor.repeat(y.shape[1])
    momentum = 0.0 if norm.momentum is None else norm.momentum
    return F.batch_norm(y, running[0], running[1], weight, None, norm.training, momentum, norm.eps)


def _convolved(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """``layer(x)`` as PyTorch is fastest on a CPU; both (batch, C, H, W), the channels innermost in memory."""
    (kernel, width), stride, weight = layer.kernel_size, layer.stride[0], layer.weight
    if layer.groups == layer.in_channels and kernel == width:
        return depthwise_convolution(x, weight, stride, int(layer.padding[0]), layer.dilation[0])
    if kernel == width == stride == layer.groups:  # all 1: a matrix product
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)
    y: Tensor = layer(x)
    return y


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


def _separable(state: Tensor, alike: Sequence[nn.Module], averages: RunningAverages) -> Term:
    """Separable convolutions: one or two rounds of ReLU, depthwise and pointwise convolution and batch norm."""
    x = state.permute(0, 2, 3, 1).unsqueeze(1)
    statistics = None
    rounds: list[list[Any]] = [list(operation.children()) for operation in alike]
    for start in range(0, len(rounds[0]), 4):
        depthwise, pointwise, norms = ([layers[start + place] for layers in rounds] for place in (1, 2, 3))
        kernel = Kernel(depthwise[0].kernel_size[0], depthwise[0].dilation[0])
        layer = Layer((kernel,) * len(rounds), depthwise[0].stride[0], statistics)
        x, known = separable(x, layer, [one.weight for one in depthwise], [one.weight for one in pointwise])
        x, statistics = averages.normalise(norms, x, known)
    return Term(x, statistics)


def _dense(state: Tensor, alike: Sequence[nn.Module], averages: RunningAverages) -> Term:
    """ReLU and one convolution per edge as a single one with all their output channels."""
    convolution = alike[0][1]  # type: ignore[index]
    weight = torch.cat([operation[1].weight for operation in alike])  # type: ignore[index]
    y = F.conv2d(F.relu(state), weight, None, convolution.stride, convolution.padding, convolution.dilation)
    return _normalised_planes(y, [operation[2] for operation in alike], averages)  # type: ignore[index]


def _factorised_reduction(state: Tensor, alike: Sequence[nn.Module], averages: RunningAverages) -> Term:
    """Pointwise convolutions of the even and of the odd positions, as one of 2x2 with zeros at the other places."""
    kernels = []
    for operation in alike:
        assert isinstance(operation, FactorisedReduction)
        even, odd = operation.even.weight, operation.odd.weight
        kernels += [F.pad(even, (0, 1, 0, 1)), F.pad(odd, (1, 0, 1, 0))]
    x = F.pad(F.relu(state), (0, state.shape[3] % 2, 0, state.shape[2] % 2))
    y = F.conv2d(x, torch.cat(kernels), stride=2)
    return _normalised_planes(y, [operation.normalisation for operation in alike], averages)  # type: ignore[misc]


def _normalised_planes(y: Tensor, norms: Sequence[nn.BatchNorm2d], averages: RunningAverages) -> Term:
    """``y`` (batch, edges * C, H, W) as a term."""
    batch, _, height, width = y.shape
    last = y.permute(0, 2, 3, 1)
    planes = last.reshape(batch, height, width, len(norms), -1).permute(0, 3, 1, 2, 4)
    known = channel_statistics(last.detach(), len(norms)) if library.usable(y) else None
    return Term(*averages.normalise(norms, planes, known))


def _one_by_one(state: Tensor, alike: Sequence[nn.Module], averages: RunningAverages) -> Term:
    """Operations without a joint formulation: the modules as they are."""
    return Term(torch.stack([operation(state).permute(0, 2, 3, 1) for operation in alike], dim=1))


BATCHED: dict[type[nn.Module], Callable[[Tensor, Sequence[nn.Module], RunningAverages], Term]] = {
    SeparableConvolution: _separable,
    DilatedSeparableConvolution: _separable,
    FactorisedReduction: _factorised_reduction,
    ReLUConvBN: _dense,
}
