"""The independent weights of FairDARTS (Chu et al., 2020, "Fair DARTS: Eliminating Unfair Advantages in DARTS")."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nas.relaxations.relaxation import Relaxation


class Sigmoid(Relaxation):
    """``sigmoid(alpha)``: every option has a weight from 0 to 1 of its own, and those of a row need not add up to 1."""

    on_simplex: ClassVar[bool] = False

    def initial(self, shape: Sequence[int]) -> Tensor:
        """0, where every weight is a half."""
        return torch.zeros(*shape)

    def __call__(self, alpha: Tensor) -> Tensor:
        return alpha.sigmoid()

    def probabilities(self, alpha: Tensor) -> Tensor:
        return self(alpha)
