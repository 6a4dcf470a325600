"""A hyperparameter as a mixture of basis values (AutoHAS, Dong et al., arXiv 2006.03656, in its differentiable form).

The basis values lie at evenly spaced places of the range, from 0 to 1; raw parameters, one for each, are the logits of
their weights. The value is that at the mean place, on the hyperparameter's own scale.
"""

import math

import torch
from torch import Tensor

from nas.errors import require
from nas.hyperparameters.rules import CosineNormalised, Update

STEEPEST = 10.0  # slope of a line of logits, per basis value: the interval that is searched is from -this to this
HALVINGS = 60  # of that interval


def check_basis(basis: int | None, update: Update | None) -> None:
    """Raise ``InvalidValue`` where there can be no such mixture, or its rule moves one number only."""
    require(basis is None or basis >= 2, "basis", basis, "it must be null or at least 2")
    alone = basis is not None and isinstance(update, CosineNormalised)
    require(not alone, "update", "CosineNormalised", "it moves one number, and a basis has several: take AdamUpdate")


def mean_place(raw: Tensor) -> Tensor:
    """The mean place, 0-dim; ``raw``: (basis,)."""
    return (raw.softmax(0) * torch.linspace(0, 1, len(raw), dtype=raw.dtype, device=raw.device)).sum()


def maximum_entropy_logits(mean: float, count: int) -> list[float]:
    """Logits (count,) of the distribution over the places that has the largest entropy of those with this mean.

    Under a linear constraint they lie on a line (an exponential family), whose slope is found by bisection.

    Args:
        mean: Above 0 and below 1.
    """
    places = [place / (count - 1) for place in range(count)]
    below, above = -STEEPEST * count, STEEPEST * count
    for _ in range(HALVINGS):
        slope = (below + above) / 2
        shares = [math.exp(slope * (place - (slope > 0))) for place in places]
        too_low = sum(place * share for place, share in zip(places, shares, strict=True)) < mean * sum(shares)
        below, above = (slope, above) if too_low else (below, slope)
    return [slope * (place - 0.5) for place in places]
