"""Batch norm by the statistics of a batch that is spread over several processes."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Averaging(Protocol):
    """The processes of a data-parallel run (:class:`nas.training.ranks.Ranks`)."""

    @property
    def count(self) -> int: ...

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over the processes, differentiable as often as one likes."""
        ...


def jointly_normalised(
    x: Tensor, dimensions: tuple[int, ...], epsilon: float, ranks: Averaging
) -> tuple[Tensor, Tensor, Tensor]:
    """``x``, this process's share of the joint batch, normalised; the joint batch's mean and unbiased variance.

    Args:
        x: Any shape; computed in float32 at least.
        dimensions: Those that the statistics are taken over. Mean and variance keep the others.
        epsilon: Added to the variance.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    (mean,) = ranks.average([wide.mean(dimensions, keepdim=True)])
    centred = wide - mean
    (variance,) = ranks.average([centred.square().mean(dimensions, keepdim=True)])
    normalised = (centred * (variance + epsilon).rsqrt()).to(x.dtype)
    samples = ranks.count * x.numel() // mean.numel()
    mean, variance = mean.detach().squeeze(dimensions), variance.detach().squeeze(dimensions)
    return normalised, mean, variance * (samples / max(samples - 1, 1))
