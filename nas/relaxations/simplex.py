"""The simplex itself, as in GAEA (Li et al., 2021, "Geometry-Aware Gradient Algorithms for NAS")."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.relaxations.relaxation import Relaxation


class Simplex(Relaxation):
    """The architecture parameters are the weights; an optimiser that keeps them on the simplex has to move them."""

    def initial(self, shape: Sequence[int]) -> Tensor:
        """Equal weights."""
        return torch.full(tuple(shape), 1 / shape[-1])

    def __call__(self, alpha: Tensor) -> Tensor:
        return alpha

    def probabilities(self, alpha: Tensor) -> Tensor:
        return alpha
