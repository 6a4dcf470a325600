"""Batch norm without affine parameters over planes: the statistics, normalisation, and the running averages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.fast import library
from nas.operations.synchronised import jointly_normalised


@dataclass(frozen=True)
class Statistics:
    """The statistics that normalise (batch, planes, H, W, C).

    Attributes:
        mean: (planes, C), contiguous.
        variance: (planes, C), contiguous.
        epsilon: Added to the variance.
        of_batch: Whether they are the statistics of the normalised tensor itself, and so depend on it; otherwise they
            are running averages, constants.
        known: Whether a tensor's own statistics are known beforehand (with the biased variance). If not,
            :func:`normalised` writes them into ``mean`` and ``variance`` (the unbiased one).
    """

    mean: Tensor
    variance: Tensor
    epsilon: float
    of_batch: bool
    known: bool = True

    @cached_property
    def scale(self) -> Tensor:
        """(planes, C): one over the standard deviation."""
        return (self.variance + self.epsilon).rsqrt()


class _ChannelStatistics(library.Settings):
    _fields_ = (
        *library.numbers("n", "pixels", "c", "threads"),
        *library.addresses("x", "mean", "variance"),
    )


def channel_statistics(x: Tensor, planes: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (planes, C) of ``x`` (batch, H, W, planes * C) over all but its last axis, by kernel."""
    x = x.contiguous()
    batch, height, width, channels = x.shape
    mean, variance = (x.new_empty(planes, channels // planes) for _ in range(2))
    settings = _ChannelStatistics(n=batch, pixels=height * width, c=channels, x=x, mean=mean, variance=variance)
    settings.run("channel_statistics", x.dtype)
    return mean, variance


def normalised(x: Tensor, statistics: Statistics, weight: Tensor | None = None) -> Tensor:
    """``x`` (batch, planes, H, W, C) normalised, times ``weight`` (planes,); differentiable any number of times."""
    if not statistics.of_batch:
        scale = statistics.scale if weight is None else statistics.scale * weight[:, None]
        return (x - statistics.mean[:, None, None]) * scale[:, None, None]
    batch, planes, height, width, channels = x.shape
    # With a single image a view's strides are of no memory format, and batch_norm's gradient would misread them.
    sides = (height, width) if batch > 1 else (height * width,)
    flat = x.permute(0, 1, 4, 2, 3).reshape(batch, planes * channels, *sides)
    mean, variance = (None, None) if statistics.known else (statistics.mean.view(-1), statistics.variance.view(-1))
    factor = None if weight is None else weight.repeat_interleave(channels)  # batch_norm misreads expanded ones
    flat = F.batch_norm(flat, mean, variance, factor, training=True, momentum=1.0, eps=statistics.epsilon)
    return flat.view(batch, planes, channels, height, width).permute(0, 1, 3, 4, 2)


@dataclass
class RunningAverages:
    """The batch norms of a forward pass and their batch statistics, to update all running averages at once."""

    _modules: list[nn.BatchNorm2d] = field(default_factory=list)
    _means: list[Tensor] = field(default_factory=list)
    _variances: list[Tensor] = field(default_factory=list)

    def normalise(
        self, modules: Sequence[nn.BatchNorm2d], planes: Tensor, known: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Statistics | None]:
        """``planes`` and the statistics that still have to normalise them; the arguments are as in :meth:`statistics`.

        In a data-parallel run with synchronised batch norms the planes come back normalised, and without statistics.
        """
        first = modules[0]
        ranks = getattr(first, "ranks", None)  # of a nas.operations.synchronised.SynchronisedBatchNorm
        if ranks is None or ranks.count == 1 or (not first.training and first.running_mean is not None):
            return planes, self.statistics(modules, planes, known)
        normalised, mean, variance = jointly_normalised(planes, (0, 2, 3), first.eps, ranks)
        if first.training and first.track_running_stats:
            self._collect(modules, mean, variance)
        return normalised, None

    def statistics(
        self, modules: Sequence[nn.BatchNorm2d], like: Tensor, known: tuple[Tensor, Tensor] | None
    ) -> Statistics:
        """The statistics that normalise ``like`` (batch, planes, H, W, C) in ``modules``.

        Args:
            modules: One per plane, or several that share a single plane.
            like: The planes.
            known: Mean and biased variance (planes, C) of ``like`` where they have been computed already.
        """
        first = modules[0]
        epsilon = first.eps
        if not first.training and first.running_mean is not None:
            means = torch.stack([module.running_mean for module in modules])  # type: ignore[misc]
            variances = torch.stack([module.running_var for module in modules])  # type: ignore[misc]
            return Statistics(means, variances, epsilon, of_batch=False)
        batch, planes, height, width, channels = like.shape
        count = batch * height * width
        tracked = first.training and first.track_running_stats
        if known is None:
            # Not empty: with a momentum of 1 an uninitialised NaN would survive being multiplied by 0.
            dtype = like.dtype if first.running_mean is None else first.running_mean.dtype  # not of autocast
            mean, variance = (like.new_zeros(planes, channels, dtype=dtype) for _ in range(2))
            unbiased = variance
        else:
            mean, variance = known
            unbiased = variance * (count / max(count - 1, 1)) if tracked else variance
        if tracked:
            self._collect(modules, mean, unbiased)
        return Statistics(mean, variance, epsilon, of_batch=True, known=known is not None)

    def _collect(self, modules: Sequence[nn.BatchNorm2d], means: Tensor, variances: Tensor) -> None:
        for index, module in enumerate(modules):
            plane = index if len(means) > 1 else 0
            self._modules.append(module)
            self._means.append(means[plane])
            self._variances.append(variances[plane])

    def update(self) -> None:
        """Bring every batch norm's running averages up to date, as its own forward pass would have."""
        if not self._modules:
            return
        momentum = self._modules[0].momentum
        assert momentum is not None
        with torch.no_grad():  # as a decorator, torch.compile cannot trace it for an object made inside the region
            buffers = [(one.running_mean, one.running_var, one.num_batches_tracked) for one in self._modules]
            means, variances, counts = (list(column) for column in zip(*buffers, strict=True))
            torch._foreach_lerp_(means, self._means, momentum)
            torch._foreach_lerp_(variances, self._variances, momentum)
            torch._foreach_add_(counts, 1)
