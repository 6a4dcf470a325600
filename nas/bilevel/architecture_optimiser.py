"""How alpha moves along its gradient."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from nas.errors import require


@dataclass(frozen=True)
class ArchitectureOptimiser:
    """Adam for alpha, as in DARTS."""

    rate: float
    betas: tuple[float, float]
    weight_decay: float

    def __post_init__(self) -> None:
        require(self.rate > 0 and math.isfinite(self.rate), "rate", self.rate, "it must be a number above 0")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(good, "betas", list(self.betas), "it must be two numbers from 0 to below 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "it must be at least 0")

    def over(self, parameters: list[nn.Parameter]) -> torch.optim.Adam:
        betas = (self.betas[0], self.betas[1])
        return torch.optim.Adam(parameters, lr=self.rate, betas=betas, weight_decay=self.weight_decay)
