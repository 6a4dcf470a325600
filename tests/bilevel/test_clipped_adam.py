"""Adam on a clipped gradient: all alphas are scaled together, and before the weight decay."""

import math

import pytest
import torch
from torch import nn

from nas.bilevel.architecture_optimiser import Adam
from nas.bilevel.clipped_adam import ClippedAdam
from nas.errors import InvalidValue

ADAM = {"rate": 0.1, "betas": (0.5, 0.999), "weight_decay": 0.3}
GRADIENTS = (
    ((3.0, 0.0), (0.0, 4.0)),  # a norm of 5
    ((0.3, -0.1), (0.2, 0.0)),
)


def alphas():
    return {name: nn.Parameter(torch.tensor([0.5, -0.25], dtype=torch.float64)) for name in ("normal", "reduce")}


def moved(rule, *scales):
    """Where two steps with these gradients lead, the first and the second multiplied by ``scales``."""
    own = alphas()
    optimiser = rule.over(own)
    for gradients, scale in zip(GRADIENTS, scales, strict=True):
        for alpha, gradient in zip(own.values(), gradients, strict=True):
            alpha.grad = scale * torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
    return torch.stack([alpha.detach() for alpha in own.values()])


def test_a_long_gradient_is_scaled_and_a_short_one_is_not():
    clipped, plain = moved(ClippedAdam(**ADAM, gradient_clip=1.0), 1, 1), moved(Adam(**ADAM), 0.2, 1)
    torch.testing.assert_close(clipped, plain, rtol=0, atol=1e-6)  # PyTorch adds 1e-6 to the norm that it divides by
    assert not torch.allclose(clipped, moved(Adam(**ADAM), 1, 1), rtol=0, atol=1e-3)


def test_below_the_limit_it_is_adam():
    assert torch.equal(moved(ClippedAdam(**ADAM, gradient_clip=9.0), 1, 1), moved(Adam(**ADAM), 1, 1))


@pytest.mark.parametrize("clip", [0.0, math.inf])
def test_a_limit_that_is_none_is_refused(clip):
    with pytest.raises(InvalidValue, match=f"gradient_clip={clip} is not allowed: it must be a number above 0"):
        ClippedAdam(**ADAM, gradient_clip=clip)
