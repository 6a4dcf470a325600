"""Adam for alpha on a clipped gradient (Chen et al., 2019, "P-DARTS", in its code)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.bilevel.architecture_optimiser import Adam
from nas.errors import require


@dataclass(frozen=True)
class ClippedAdam(Adam):
    """Adam, after the gradient of all alphas together has been scaled to a norm of ``gradient_clip`` at most.

    The weight decay comes after that, as in ``torch.optim.Adam``.
    """

    gradient_clip: float

    def __post_init__(self) -> None:
        super().__post_init__()
        good = 0 < self.gradient_clip < math.inf
        require(good, "gradient_clip", self.gradient_clip, "it must be a number above 0")

    def over(self, alphas: Mapping[str, nn.Parameter]) -> torch.optim.Adam:
        groups = super().over(alphas).param_groups
        return _Clipped(groups, self.gradient_clip)


class _Clipped(torch.optim.Adam):
    def __init__(self, groups: list[dict[str, Any]], clip: float) -> None:
        super().__init__(groups)
        self.clip = clip

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        nn.utils.clip_grad_norm_([alpha for group in self.param_groups for alpha in group["params"]], self.clip)
        return super().step(closure)
