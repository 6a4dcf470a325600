"""Dropout and drop path, each with a rate that may be a learned tensor and with an explicit source of noise.

A rate that is a number draws a hard mask. A rate that is a tensor is being learned: the mask is then the concrete
relaxation (Gal et al., 2017, "Concrete Dropout", eq. 5), so that the loss is differentiable in the rate.
In evaluation mode, or with a rate of 0, both are the identity.
"""

import torch
from torch import Tensor, nn

CONCRETE_TEMPERATURE = 0.1


def keep_mask(shape: tuple[int, ...], rate: Tensor | float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """A mask of ``shape`` that is 0 with probability ``rate``, scaled by ``1 / (1 - rate)`` to keep the mean."""
    noise = torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
    if not isinstance(rate, Tensor):
        return (noise >= rate).to(like.dtype) / (1 - rate)
    rate = rate.to(like.dtype)
    tiny = torch.finfo(like.dtype).eps
    noise, inner = noise.clamp(tiny, 1 - tiny), rate.clamp(tiny, 1 - tiny)  # at 0 the logarithm has no gradient
    logit = torch.log(inner) - torch.log1p(-inner) + torch.log(noise) - torch.log1p(-noise)
    dropped = torch.sigmoid(logit / CONCRETE_TEMPERATURE)
    return (1 - dropped) / (1 - rate)


class StochasticLayer(nn.Module):
    """A layer that is noisy while training; ``rate`` and ``generator`` are set from outside."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate: Tensor | float = rate
        self.generator: torch.Generator | None = None

    def is_identity(self) -> bool:
        return not self.training or (not isinstance(self.rate, Tensor) and self.rate == 0)


class Dropout(StochasticLayer):
    """Drops single elements of its input."""

    def forward(self, x: Tensor) -> Tensor:
        if self.is_identity():
            return x
        return x * keep_mask(tuple(x.shape), self.rate, x, self.generator)


class LayerDropout(Dropout):
    """Dropout behind one layer of a chain, with a rate of that layer's own."""


class DropPath(StochasticLayer):
    """Drops whole samples of a path (Larsson et al., 2017); its input is (batch, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.is_identity():
            return x
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * keep_mask(shape, self.rate, x, self.generator)
