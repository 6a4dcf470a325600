"""The weighted sums of all operations on the edges that leave one state, their batch norms folded in.

``out_e = sum over operations k of factor_{e, k} * (term_k - mean_k) * scale_k``: since an operation's weight only
scales its batch norm, no normalised tensor is ever written down. In the backward pass the sums over pixels of ``g_e``
and of ``g_e * (term_k - mean_k)`` give the weights' gradient and the batch norms' at once.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.operations.batched import library
from nas.operations.batched.derivatives import differentiable_gradients
from nas.operations.batched.normalisation import Statistics, normalised


@dataclass(frozen=True)
class Term:
    """One operation on every edge: (batch, edges, H, W, C), or with a single plane that all edges share.

    ``statistics`` normalise it, those of a shared plane perhaps with one row per edge; None leaves it as it is.
    """

    planes: Tensor
    statistics: Statistics | None = None


class _Term(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        *[(name, ctypes.c_int64) for name in ("sample", "group", "pixel")],
        *[(name, ctypes.c_void_p) for name in ("factor", "mean", "gradient", "slope", "constant", "products")],
    ]


class _Mixture(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("n", "edges", "pixels", "c", "terms", "threads")],
        ("term", ctypes.POINTER(_Term)),
        *[(name, ctypes.c_void_p) for name in ("offset", "out", "gout", "sums")],
    ]


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
    """The same value in PyTorch's operations, differentiable as often as one likes."""
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
        first = planes[0]
        outs = [first.new_empty(first.shape[0], *first.shape[2:]) for _ in range(factors.shape[1])]
        settings = _settings(planes, factors.shape[1], by_channel)
        array = library.pointers(outs)
        settings.out, settings.offset = ctypes.cast(array, ctypes.c_void_p), offset.data_ptr()
        library.call("mix_forward", settings, first.dtype)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gouts: Tensor) -> tuple[Tensor | None, ...]:
        factors, *planes = ctx.saved_tensors
        needs_factors, needs_planes = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            entries = ctx.statistics

            def value(factors: Tensor, *planes: Tensor) -> list[Tensor]:
                return mixture_in_torch(factors, [Term(*pair) for pair in zip(planes, entries, strict=True)])

            wanted = [needs_factors, *needs_planes]
            gfactors, *gradients = differentiable_gradients(value, [factors, *planes], wanted, gouts)
            return gfactors, None, *gradients
        gouts = tuple(gout.contiguous() for gout in gouts)
        return _backward(factors, ctx.statistics, list(map(_dense, planes)), gouts, needs_planes)


def _backward(
    factors: Tensor,
    statistics: tuple[Statistics | None, ...],
    planes: Sequence[Tensor],
    gouts: Sequence[Tensor],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    first, edges = planes[0], factors.shape[1]
    batch, _, height, width, channels = first.shape
    means, scales = _stacked(statistics, first, edges)
    by_term = factors.expand(batch, -1, -1).permute(2, 0, 1)[..., None]  # (terms, batch, edges, 1)
    by_channel = (by_term * scales[:, None]).contiguous()
    settings = _settings(planes, edges, by_channel)
    array = library.pointers(gouts)
    products, sums = torch.empty_like(by_channel), first.new_empty(batch, edges, channels)
    settings.gout, settings.sums = ctypes.cast(array, ctypes.c_void_p), sums.data_ptr()
    centred = torch.zeros(len(planes), dtype=torch.bool)
    for index, (entry, one) in enumerate(zip(statistics, planes, strict=True)):
        settings.term[index].products = products[index].data_ptr()
        if entry is not None and len(entry.mean) == one.shape[1]:
            settings.term[index].mean, centred[index] = entry.mean.data_ptr(), True
    library.call("mix_sums", settings, first.dtype)
    if not bool(centred.all()):  # a shared plane with a mean per edge: the kernel has taken nothing off
        rest = means * (~centred)[:, None, None]
        products -= rest[:, None] * sums
    gfactors = (products * scales[:, None]).sum(-1).permute(1, 2, 0).sum_to_size(factors.shape)

    gradients: list[Tensor | None] = [None] * len(planes)
    own_sums, own_products = (by_term * sums).sum(1), (by_term * products).sum(1)  # (terms, edges, C)
    kept = []
    for index, (entry, one) in enumerate(zip(statistics, planes, strict=True)):
        if not needed[index]:
            continue
        gradient = gradients[index] = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype)
        settings.term[index].gradient = gradient.data_ptr()
        if entry is None or not entry.of_batch:
            settings.term[index].mean = None
            continue
        total, product = own_sums[index], own_products[index]
        if one.shape[1] == 1:
            total, product = total.sum(0, keepdim=True), product.sum(0, keepdim=True)
        count, scale = batch * height * width, entry.scale
        constant, slope = -scale * total / count, -(scale**3) * product / count
        kept += [constant, slope]
        settings.term[index].constant, settings.term[index].slope = constant.data_ptr(), slope.data_ptr()
    library.call("mix_backward", settings, first.dtype)
    return gfactors, None, *gradients


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
    return _Mixture(
        n=batch,
        edges=edges,
        pixels=height * width,
        c=channels,
        terms=len(planes),
        threads=torch.get_num_threads(),
        term=array,
    )
