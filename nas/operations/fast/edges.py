"""All mixed operations on the edges that leave one state of a cell, computed together.

The shared parts of the edges are computed once: the leading ReLU, the poolings and their batch norms. ``none`` costs
nothing. :mod:`nas.operations.fast.cell` puts the edges together to a cell.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.cell_operations import (
    DilatedSeparableConvolution,
    FactorisedReduction,
    MixedEdge,
    ReLUConvBN,
    SeparableConvolution,
    Zero,
)
from nas.operations.fast import library
from nas.operations.fast.depthwise import depthwise_convolution
from nas.operations.fast.mixture import Term, mixture
from nas.operations.fast.normalisation import RunningAverages, channel_statistics, normalised
from nas.operations.fast.pooling import Known, poolings
from nas.operations.fast.separable import Kernel, Layer, separable


class SingleOperation(NamedTuple):
    """An operation in the place of an edge that has it alone, as a sampled one does."""

    operations: tuple[nn.Module]


def mixed_edges(
    state: Tensor, edges: Sequence[MixedEdge | SingleOperation], factors: Tensor, averages: RunningAverages
) -> list[Tensor]:
    """Per edge its mixed operation on ``state`` (batch, C, H, W), as (batch, H', W', C).

    Args:
        factors: (batch or 1, edges, operations).
        averages: Collects the batch norms' statistics.
    """
    if state.device.type == "cpu" and not library.usable(state):
        return _edge_by_edge(state, edges, factors, averages)
    return _all_at_once(state, edges, factors, averages)


def _all_at_once(
    state: Tensor, edges: Sequence[MixedEdge | SingleOperation], factors: Tensor, averages: RunningAverages
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
    return mixture(selected(factors, 2, columns), terms)


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


def _edge_by_edge(
    state: Tensor, edges: Sequence[MixedEdge | SingleOperation], factors: Tensor, averages: RunningAverages
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


def selected(tensor: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """Those ``places`` of ``tensor`` along ``dim``."""
    if torch.compiler.is_compiling():
        return torch.stack([tensor.select(dim, place) for place in places], dim)
    return tensor.index_select(dim, _on_device(tuple(places), tensor.device))


@cache
def _on_device(places: tuple[int, ...], device: torch.device) -> Tensor:
    """``places`` as a tensor, made once: a GPU would be waited for at every copy from the processor's memory."""
    return torch.tensor(places, device=device)
