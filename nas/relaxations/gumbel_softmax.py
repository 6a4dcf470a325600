"""The Gumbel-softmax (Jang et al., 2017; Maddison et al., 2017), soft or straight-through as in GDAS and SNAS."""

import torch
from torch import Tensor

from nas.relaxations.relaxation import Temperature, TemperedRelaxation


class GumbelSoftmax(TemperedRelaxation):
    """``softmax((log softmax(alpha) + Gumbel noise) / temperature)`` over the last axis.

    With ``hard=True`` the forward pass takes the one-hot of the largest weight and the backward pass the soft weights'
    gradient (straight-through).
    """

    def __init__(self, temperature: Temperature, hard: bool = False) -> None:
        super().__init__(temperature)
        self.hard = hard

    def __call__(self, alpha: Tensor) -> Tensor:
        uniform = torch.rand(alpha.shape, generator=self.generator, device=alpha.device, dtype=alpha.dtype)
        tiny = torch.finfo(alpha.dtype).tiny
        gumbel = -torch.log((-torch.log(uniform.clamp_min(tiny))).clamp_min(tiny))
        soft = ((alpha.log_softmax(-1) + gumbel) / self.temperature).softmax(-1)
        if not self.hard:
            return soft
        one_hot = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        # (soft - soft.detach()) is exactly zero, so the forward value is exactly one-hot.
        return one_hot + (soft - soft.detach())

    def probabilities(self, alpha: Tensor) -> Tensor:
        return alpha.softmax(-1)
