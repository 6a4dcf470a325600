"""The Dirichlet distribution of DrNAS (Chen et al., 2021, "DrNAS: Dirichlet Neural Architecture Search", sec. 3.1)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.relaxations.relaxation import Relaxation


class Dirichlet(Relaxation):
    """A sample of ``Dirichlet(elu(alpha) + 1)`` over the last axis, with its pathwise gradient.

    ``torch.distributions.Dirichlet`` does the same. It takes no generator, and differentiated twice with respect to
    its concentration it gives a silent 0; here that is an error.
    """

    def __call__(self, alpha: Tensor) -> Tensor:
        parameters = concentration(alpha)
        sample: Tensor = _Pathwise.apply(parameters, self.draw(parameters.detach()))
        return sample

    def draw(self, concentration: Tensor) -> Tensor:
        """A sample for every row of ``concentration`` (..., options)."""
        return torch._sample_dirichlet(concentration, generator=self.generator)

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The mean of the distribution; within a row it has the order of alpha."""
        return concentration(alpha) / concentration(alpha).sum(-1, keepdim=True)


def concentration(alpha: Tensor) -> Tensor:
    """``elu(alpha) + 1``, which stays above 0 where the sum would be rounded to it."""
    return torch.where(alpha > 0, alpha + 1, alpha.masked_fill(alpha > 0, 0.0).exp())


class _Pathwise(Function):
    """A sample as a function of its concentration: that of the same quantiles."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, sample: Tensor) -> Tensor:
        ctx.save_for_backward(concentration, sample)
        return sample.view_as(sample)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gradient.apply(gradient, *ctx.saved_tensors), None


class _Gradient(Function):
    """The gradient of the concentration, which nothing can be differentiated through."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, concentration: Tensor, sample: Tensor) -> Tensor:
        total = concentration.sum(-1, keepdim=True).expand_as(concentration)
        slopes = torch._dirichlet_grad(sample, concentration, total)
        return slopes * (gradient - (sample * gradient).sum(-1, keepdim=True))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        # PyTorch's once_differentiable is passed by where the derivative is asked for alpha alone.
        raise RuntimeError("a Dirichlet sample cannot be differentiated twice: its second derivative is not known")
