"""Synchronised batch norm: the statistics of the joint batch of a data-parallel run (Peng et al., 2018, "MegDet").

Unlike ``torch.nn.SyncBatchNorm`` it runs on a CPU, too, and is differentiable twice, as second-order hypergradients
need it.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.distributed import Ranks


class Averaging(Protocol):
    """The processes of a data-parallel run (:class:`nas.distributed.Ranks`)."""

    @property
    def count(self) -> int: ...

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over the processes, differentiable any number of times."""
        ...


def jointly_normalised(
    x: Tensor, dimensions: tuple[int, ...], epsilon: float, ranks: Averaging
) -> tuple[Tensor, Tensor, Tensor]:
    """``x``, this process's share of the joint batch, normalised; the joint batch's mean and unbiased variance.

    Args:
        x: Any shape; computed in float32 at least.
        dimensions: The dimensions over which the statistics are taken; mean and variance keep the others.
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


class SynchronisedBatchNorm(_BatchNorm):
    """A batch norm with the statistics of the joint batch of its ``ranks``."""

    ranks: Ranks

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        output, mean, variance = jointly_normalised(input, (0, *range(2, input.dim())), self.eps, self.ranks)
        if self.training and self.track_running_stats and self.running_mean is not None:
            self._track(mean, variance)
        shape = [1, -1] + [1] * (input.dim() - 2)
        return output if self.weight is None else output * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def synchronise_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Let every batch norm of ``network`` see the joint batch of ``ranks``; its parameters and buffers stay.

    With ``Ranks()`` each process is on its own again: what the first one does alone must not wait for the others.
    """
    for module in network.modules():
        if isinstance(module, SynchronisedBatchNorm) or (isinstance(module, _BatchNorm) and ranks.count > 1):
            module.__class__ = SynchronisedBatchNorm
            module.ranks = ranks  # type: ignore[assignment]


def average_running_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Give the running averages of batch norms, which the ranks may have gathered apart, the same values everywhere."""
    ranks.average_in_place([buffer for name, buffer in network.named_buffers() if "running_" in name])
