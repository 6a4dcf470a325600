"""The Gumbel-softmax (Jang et al., 2017, eq. 2; Maddison et al., 2017), soft as in SNAS or one-hot as in GDAS."""

from typing import Literal

import torch
from torch import Tensor

from nas.errors import require
from nas.relaxations.relaxation import Temperature, TemperedRelaxation

Gradient = Literal["dense", "chosen_only", "official"]


class GumbelSoftmax(TemperedRelaxation):
    """``softmax((log softmax(alpha) + Gumbel noise) / temperature)`` over the last axis.

    With ``hard=True`` the forward pass takes the one-hot of the largest weight. Three gradients go with it, which are
    three methods: their directions differ.

    Args:
        temperature: From flat weights to sharp ones.
        hard: Whether the forward pass is one-hot.
        gradient: ``dense`` is straight-through: the soft weights' gradient, to which every option's output
            contributes. ``chosen_only`` lets the chosen option's output alone contribute. ``official`` is that of the
            code of GDAS (Dong and Yang, 2019), where an option that is not chosen enters the sum as its bare weight,
            as if its output were 1 everywhere; a sampled network computes it.
        sampled: Whether a network computes the chosen options alone, as GDAS does.

    Raises:
        InvalidValue: The settings do not go together.
    """

    def __init__(
        self, temperature: Temperature, hard: bool = False, gradient: Gradient = "dense", sampled: bool = False
    ) -> None:
        super().__init__(temperature)
        require(
            hard or gradient == "dense", "gradient", gradient, "soft weights have the dense one only: set hard=true"
        )
        require(hard or not sampled, "sampled", sampled, "soft weights need every option's output: set hard=true")
        needs_all = "every option's output is in the dense gradient: take chosen_only or official"
        require(gradient != "dense" or not sampled, "sampled", sampled, needs_all)
        needs_sampling = "it is that of a network that computes one option alone: set sampled=true"
        require(gradient != "official" or sampled, "gradient", gradient, needs_sampling)
        self.hard, self.gradient, self.sampled = hard, gradient, sampled

    def __call__(self, alpha: Tensor) -> Tensor:
        soft = ((alpha.log_softmax(-1) + self.noise(alpha)) / self.temperature).softmax(-1)
        if not self.hard:
            return soft
        one_hot = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        # (soft - soft.detach()) is exactly zero, so the forward value is exactly one-hot.
        if self.gradient == "chosen_only":
            return one_hot * (1 + (soft - soft.detach()))
        return one_hot + (soft - soft.detach())

    def noise(self, alpha: Tensor) -> Tensor:
        """Gumbel noise of alpha's shape."""
        uniform = torch.rand(alpha.shape, generator=self.generator, device=alpha.device, dtype=alpha.dtype)
        tiny = torch.finfo(alpha.dtype).tiny
        return -torch.log((-torch.log(uniform.clamp_min(tiny))).clamp_min(tiny))

    def probabilities(self, alpha: Tensor) -> Tensor:
        return alpha.softmax(-1)
