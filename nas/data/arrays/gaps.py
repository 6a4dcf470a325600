"""Values of series that are not known, filled alike whatever file the series are from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def interpolated(values: Tensor) -> Tensor:
    """(steps,) without gaps: a line between the known neighbours, the nearest known value at the ends.

    A channel of which nothing is known becomes one of no steps, whose place its mean in training takes.
    """
    known = ~values.isnan()
    if bool(known.all()):
        return values
    steps = np.arange(len(values))
    if not bool(known.any()):
        return values[:0]
    return torch.from_numpy(np.interp(steps, steps[known.numpy()], values[known].numpy()))


def fill_gaps(parts: Sequence[Tensor], mean: Tensor | None = None) -> list[int]:
    """Fill what is NaN in the series (N, C, steps) of ``parts`` where they are.

    Args:
        parts: The training part first.
        mean: (C,) what is put in a channel of which nothing is known; that of the training part where it is None.

    Returns:
        Of each series how many values were missing.
    """
    gaps: list[int] = []
    for inputs in parts:
        unknown = inputs.isnan()
        gaps += unknown.flatten(1).sum(1).tolist()
        for series, channel in unknown.any(2).nonzero().tolist():
            if len(filled := interpolated(inputs[series, channel])):
                inputs[series, channel] = filled
    if any(gaps):
        mean = parts[0].transpose(0, 1).flatten(1).nanmean(1).nan_to_num() if mean is None else mean
        for inputs in parts:
            torch.where(inputs.isnan(), mean[:, None], inputs, out=inputs)
    return gaps


def gaps_in_words(gaps: Sequence[int]) -> list[str]:
    """The remark on series of which so many values were missing, if any was."""
    if not any(gaps):
        return []
    return [f"{sum(gaps):,} values are missing, in {sum(map(bool, gaps)):,} series: they are interpolated"]
