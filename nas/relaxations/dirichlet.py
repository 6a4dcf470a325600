"""The Dirichlet distribution of DrNAS (Chen et al., 2021, "DrNAS: Dirichlet Neural Architecture Search", section 3.1)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas.relaxations.relaxation import Relaxation


class Dirichlet(Relaxation):
    """A sample of ``Dirichlet(elu(alpha) + 1)`` over the last axis, with its pathwise gradient.

    ``torch.distributions.Dirichlet`` does the same. It takes no generator, and differentiated twice with respect to
    its concentration it gives a silent 0; here that is an error.
    """

    def __call__(self, alpha: Tensor) -> Tensor:
        sample: Tensor = _Sample.apply(concentration(alpha), self.generator)
        return sample

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The mean of the distribution; within a row it has the order of alpha."""
        return concentration(alpha) / concentration(alpha).sum(-1, keepdim=True)


def concentration(alpha: Tensor) -> Tensor:
    """``elu(alpha) + 1``, which stays above 0 where the sum would be rounded to it."""
    return torch.where(alpha > 0, alpha + 1, alpha.clamp_max(0).exp())


class _Sample(Function):
    @staticmethod
    def forward(ctx: Any, concentration: Tensor, generator: torch.Generator | None) -> Tensor:
        sample = torch._sample_dirichlet(concentration, generator=generator)
        ctx.save_for_backward(sample, concentration)
        return sample

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        sample, concentration = ctx.saved_tensors
        total = concentration.sum(-1, keepdim=True).expand_as(concentration)
        slopes = torch._dirichlet_grad(sample, concentration, total)
        return slopes * (gradient - (sample * gradient).sum(-1, keepdim=True)), None
