"""The weighted sums of all operations on the edges that leave one state, their batch norms folded in.

``out_e = sum over operations k of factor_{e, k} * (term_k - mean_k) * scale_k``: since an operation's weight only
scales its batch norm, no normalised tensor is stored. In the backward pass the sums over pixels of ``g_e`` and of
``g_e * (term_k - mean_k)`` give the gradients of the weights and of the batch norms at once.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.batch_norm_tangent import BatchNormTangent
from nas.operations.fast.derivatives import Derivatives, KernelGradient
from nas.operations.fast.normalisation import Statistics, normalised


@dataclass(frozen=True)
class Term:
    """One operation on every edge: (batch, edges, H, W, C), or with a single plane that all edges share.

    ``statistics`` normalise it; those of a shared plane may have one row per edge. None leaves it as it is.
    """

    planes: Tensor
    statistics: Statistics | None = None


class _Term(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *library.numbers("sample", "group", "pixel"),
        *library.addresses("factor", "mean", "gradient", "slope", "constant"),
        *library.addresses("second", "steepness", "products"),
    )


class _Mixture(library.Settings):
    _fields_ = (
        *library.numbers("n", "edges", "pixels", "c", "terms", "threads"),
        ("term", ctypes.POINTER(_Term)),
        *library.addresses("offset", "out", "gout", "sums"),
    )


def mixture(factors: Tensor, terms: Sequence[Term]) -> list[Tensor]:
    """Per edge the weighted sum of its operations, (batch, H, W, C).

    Args:
        factors: (batch, edges, terms), or with a batch of 1 where samples do not differ.
    """
    first = terms[0].planes
    if library.usable(first) and all(term.statistics is None or term.statistics.known for term in terms):
        statistics = tuple(term.statistics for term in terms)
        return list(_MixtureFunction.apply(factors, statistics, *(term.planes for term in terms)))
    return mixture_in_torch(factors, terms)


def mixture_in_torch(factors: Tensor, terms: Sequence[Term]) -> list[Tensor]:
    """The same value in PyTorch's operations, differentiable any number of times."""
    edges = factors.shape[1]
    sums: list[Tensor | None] = [None] * edges
    for index, term in enumerate(terms):
        planes, weight = term.planes, None
        statistics = term.statistics
        if statistics is not None:
            if factors.shape[0] == 1 and statistics.of_batch and planes.shape[1] == edges:
                weight = factors[0, :, index]
            planes = normalised(planes, statistics, weight)
        for edge in range(edges):
            plane = planes[:, edge if planes.shape[1] > 1 else 0]
            if weight is None:
                plane = factors[:, edge, index, None, None, None] * plane
            before = sums[edge]
            sums[edge] = plane if before is None else before + plane
    return [total for total in sums if total is not None]


class _MixtureFunction(Function):
    @staticmethod
    def forward(
        ctx: Any, factors: Tensor, statistics: tuple[Statistics | None, ...], *planes: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.statistics = statistics
        ctx.save_for_backward(factors, *planes)  # as they came: a copy would be no part of the graph
        planes = tuple(map(_dense, planes))
        means, scales = _stacked(statistics, planes[0], factors.shape[1])
        everywhere = factors.expand(planes[0].shape[0], -1, -1)
        by_channel = (everywhere.permute(2, 0, 1)[..., None] * scales[:, None]).contiguous()  # (terms, batch, edges, C)
        offset = -(by_channel * means[:, None]).sum(0).contiguous()
        return tuple(_mixed(planes, factors.shape[1], by_channel, offset))

    @staticmethod
    def backward(ctx: Any, *gouts: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [True] * len(inputs)
            gfactors, *found = KernelGradient.apply(_derivatives(ctx.statistics), wanted, len(gouts), *gouts, *inputs)
        else:
            wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:]]
            gfactors, *found = _gradient(ctx.statistics, inputs, gouts, wanted)
        return gfactors, None, *found


def _derivatives(statistics: tuple[Statistics | None, ...]) -> Derivatives:
    def in_torch(factors: Tensor, *planes: Tensor) -> list[Tensor]:
        return mixture_in_torch(factors, [Term(*pair) for pair in zip(planes, statistics, strict=True)])

    return Derivatives(in_torch, partial(_gradient, statistics), partial(_second_gradient, statistics))


def _gradient(
    statistics: tuple[Statistics | None, ...],
    inputs: Sequence[Tensor],
    gouts: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the factors and of the terms; those of the factors also where they are not wanted but known."""
    factors, planes, gouts = inputs[0], list(map(_dense, inputs[1:])), [gout.contiguous() for gout in gouts]
    first, edges = planes[0], factors.shape[1]
    batch, _, height, width, _ = first.shape
    _, scales = _stacked(statistics, first, edges)
    by_term = factors.expand(batch, -1, -1).permute(2, 0, 1)[..., None]  # (terms, batch, edges, 1)
    by_channel = (by_term * scales[:, None]).contiguous()
    gfactors = None
    if wanted[0] or any(entry is not None and entry.of_batch for entry in statistics):
        sums, products = _sums(statistics, planes, gouts)
        gfactors = (products * scales[:, None]).sum(-1).permute(1, 2, 0).sum_to_size(factors.shape)
        own_sums, own_products = (by_term * sums).sum(1), (by_term * products).sum(1)  # (terms, edges, C)
    settings = _settings(planes, edges, by_channel)
    settings.fill(gout=gouts)
    gradients: list[Tensor | None] = [None] * len(planes)
    for index, (entry, one) in enumerate(zip(statistics, planes, strict=True)):
        if not wanted[1 + index]:
            continue
        gradient = gradients[index] = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype)
        settings.term[index].gradient = gradient.data_ptr()
        if entry is None or not entry.of_batch:
            continue
        total, product = (_of_planes(one, of_edges[index]) for of_edges in (own_sums, own_products))
        count, scale = batch * height * width, entry.scale
        constant, slope = -scale * total / count, -(scale**3) * product / count
        settings.kept += [constant, slope]
        settings.term[index].mean = entry.mean.data_ptr()
        settings.term[index].constant, settings.term[index].slope = constant.data_ptr(), slope.data_ptr()
    settings.run("mix_backward", first.dtype)
    return [gfactors, *gradients]


def _second_gradient(
    statistics: tuple[Statistics | None, ...],
    inputs: Sequence[Tensor],
    gouts: Sequence[Tensor],
    directions: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of ``<gradient, directions>`` with respect to ``gouts``, the factors and the terms.

    It is the sum over edges of ``<g_e, the tangent of out_e along the directions>``, and that tangent is a mixture of
    the terms and their directions, by those of the batch norms (:mod:`nas.operations.fast.batch_norm_tangent`).
    """
    factors, planes, gouts = inputs[0], list(map(_dense, inputs[1:])), [gout.contiguous() for gout in gouts]
    vfactors, vplanes = directions[0], [_alike(v, one) for v, one in zip(directions[1:], planes, strict=True)]
    first, edges, terms = planes[0], factors.shape[1], len(planes)
    batch, channels = first.shape[0], first.shape[4]
    tangents = [
        None if entry is None or not entry.of_batch else BatchNormTangent.of(one, v, entry)
        for entry, one, v in zip(statistics, planes, vplanes, strict=True)
    ]
    shape = (edges, channels)
    nothing = first.new_zeros(shape)
    means, scales = _stacked(statistics, first, edges)
    mean_tangents = torch.stack([nothing if one is None else one.mean_tangent.expand(shape) for one in tangents])
    across = torch.stack([nothing if one is None else one.across.expand(shape) for one in tangents])
    f, v = (one.expand(batch, -1, -1).permute(2, 0, 1)[..., None] for one in (factors, vfactors))
    on_terms = (v * scales[:, None] + f * across[:, None]).contiguous()  # (terms, batch, edges, C)
    on_directions = (f * scales[:, None]).contiguous()

    both = [*planes, *vplanes]
    touts: list[Tensor] | None = None
    if any(wanted[:edges]):
        offset = -(on_terms * means[:, None] + on_directions * mean_tangents[:, None]).sum(0).contiguous()
        touts = _mixed(both, edges, torch.cat([on_terms, on_directions]), offset)
    gfactors: Tensor | None = None
    gradients: list[Tensor | None] = [None] * terms
    if any(wanted[edges:]):
        sums, all_products = _sums((*statistics, *[None] * terms), both, gouts)
        products, pairs = all_products[:terms], all_products[terms:]
        moved = pairs - mean_tangents[:, None] * sums
        gfactors = (scales[:, None] * moved + across[:, None] * products).sum(-1).permute(1, 2, 0)
        gfactors = gfactors.sum_to_size(factors.shape)
        moments = [
            (factor * one).sum(1) for factor, one in ((v, sums), (v, products), (f, sums), (f, products), (f, pairs))
        ]
        settings = _settings(planes, edges, on_terms)
        settings.fill(gout=gouts)
        for index, (tangent, one) in enumerate(zip(tangents, planes, strict=True)):
            if not wanted[edges + 1 + index]:
                continue
            gradient = gradients[index] = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype)
            settings.term[index].gradient = gradient.data_ptr()
            if tangent is None:
                continue
            constant, slope, along = (
                part.contiguous() for part in tangent.constants(*(_of_planes(one, each[index]) for each in moments))
            )
            settings.kept += [constant, slope, along]
            term = settings.term[index]
            term.mean, term.constant, term.slope = (one.data_ptr() for one in (tangent.mean, constant, slope))
            term.second, term.steepness = vplanes[index].data_ptr(), along.data_ptr()
        settings.run("mix_backward", first.dtype)
    return [*(touts if touts is not None else [None] * edges), gfactors, *gradients]


def _mixed(planes: Sequence[Tensor], edges: int, by_channel: Tensor, offset: Tensor) -> list[Tensor]:
    """Per edge ``offset`` (batch, edges, C) plus the ``planes`` times ``by_channel`` (terms, batch, edges, C)."""
    first = planes[0]
    outs = [first.new_empty(first.shape[0], *first.shape[2:]) for _ in range(edges)]
    settings = _settings(planes, edges, by_channel)
    settings.fill(out=outs, offset=offset)
    settings.run("mix_forward", first.dtype)
    return outs


def _sums(
    statistics: Sequence[Statistics | None], planes: Sequence[Tensor], gouts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The sums over pixels of ``g_e`` (batch, edges, C) and of ``g_e * (term - mean)`` (terms, batch, edges, C)."""
    first, edges = planes[0], len(gouts)
    batch, channels = first.shape[0], first.shape[4]
    sums, products = (first.new_empty(*more, batch, edges, channels) for more in ((), (len(planes),)))
    settings = _settings(planes, edges, products)
    settings.fill(gout=gouts, sums=sums)
    by_edge = []  # shared planes with a mean per edge, which the kernel cannot take off
    for index, (entry, one) in enumerate(zip(statistics, planes, strict=True)):
        settings.term[index].products = products[index].data_ptr()
        if entry is not None and len(entry.mean) == one.shape[1]:
            settings.term[index].mean = entry.mean.data_ptr()
        elif entry is not None:
            by_edge.append((index, entry.mean))
    settings.run("mix_sums", first.dtype)
    for index, mean in by_edge:
        products[index] -= mean * sums
    return sums, products


def _of_planes(plane: Tensor, of_edges: Tensor) -> Tensor:
    """Sums (edges, C) as those of the planes of a term: all edges read a shared one."""
    return of_edges.sum(0, keepdim=True) if plane.shape[1] == 1 else of_edges


def _alike(v: Tensor, one: Tensor) -> Tensor:
    """``v`` with the strides of ``one``."""
    return v if v.stride() == one.stride() else torch.empty_strided(one.shape, one.stride(), dtype=one.dtype).copy_(v)


def _dense(planes: Tensor) -> Tensor:
    """``planes`` as the kernels read them: the channels innermost, the pixels evenly spaced."""
    _, _, height, width, channels = planes.shape
    innermost = planes.stride(4) == 1 or channels == 1
    even = height == 1 or width == 1 or planes.stride(2) == width * planes.stride(3)
    return planes if innermost and even else planes.contiguous()


def _stacked(statistics: Sequence[Statistics | None], like: Tensor, edges: int) -> tuple[Tensor, Tensor]:
    """Means and scales (terms, edges, C); 0 and 1 where nothing is normalised."""
    shape = (edges, like.shape[4])
    means = [like.new_zeros(shape) if one is None else one.mean.expand(shape) for one in statistics]
    scales = [like.new_ones(shape) if one is None else one.scale.expand(shape) for one in statistics]
    return torch.stack(means), torch.stack(scales)


def _settings(planes: Sequence[Tensor], edges: int, by_channel: Tensor) -> _Mixture:
    batch, _, height, width, channels = planes[0].shape
    array = (_Term * len(planes))()
    for index, one in enumerate(planes):
        array[index].data, array[index].factor = one.data_ptr(), by_channel[index].data_ptr()
        array[index].sample, array[index].pixel = one.stride(0), one.stride(3 if width > 1 else 2)
        array[index].group = one.stride(1) if one.shape[1] > 1 else 0
    return _Mixture(n=batch, edges=edges, pixels=height * width, c=channels, terms=len(planes), term=array)
