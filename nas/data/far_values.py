"""Numbers far from all others: many programs write one where a value is missing, and it drowns what the others say."""

import math

import torch
from torch import Tensor

from nas.data.dataset import ArrayDataset, TargetDataset
from nas.errors import listed

# What many programs write for a missing number, with a sign or without.
NINES = (99.0, 999.0, 9999.0, 99999.0, 999999.0)
FAR = 5  # times as large as all others is such a number, where it has no sign
# Times as far from the median as all others is any number that is told, such as the 9.96921e+36 of climate files:
# standardised beside it, all others are nearly alike.
FARTHER = 100
LOOKED_AT = 10_000_000  # numbers of the inputs, in every so many samples


def far_value(values: Tensor) -> float | None:
    """The number among ``values`` (N,) that is far from all others; None where there is none.

    It is one of ``NINES`` in several places, or ``FARTHER`` than all others. NaN is left out.
    """
    values = values.double()
    values = values[values.isfinite()]
    for value in sorted(set(torch.stack(values.aminmax()).tolist())) if len(values) else ():
        others = values[values != value]
        if not len(others):
            return None
        low, high, median = others.min(), others.max(), others.median()
        nine = (-value in NINES and low >= 0) or (value in NINES and max(-low, high) * FAR <= value)
        if nine and len(values) - len(others) > 1:
            return value
        if low < high and abs(value - median) > FARTHER * max(median - low, high - median):
            return value
    return None


def plain(value: float) -> int | float:
    """``value`` as files write it: -999 for -999.0."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def far_inputs(train: ArrayDataset) -> str | None:
    """The remark on the channels of ``train`` as they were read; None where no number is far from all others."""
    some = train.inputs[:: math.ceil(train.inputs.numel() / LOOKED_AT)]
    found = {channel: far_value(values) for channel, values in enumerate(some.transpose(0, 1).flatten(1))}
    named = [f"{value:.7g} in channel {channel}" for channel, value in found.items() if value is not None]
    if not named:
        return None
    return f"input values far from all others: {listed(named)}; if they stand for missing ones, fill them"


def far_targets(train: TargetDataset, names: tuple[str, ...]) -> str | None:
    """The remark on the targets of ``train`` as they were read; None where no number is far from all others.

    Args:
        train: Its targets are (N,) or (N, K).
        names: What the targets are called, or nothing.
    """
    columns = train.targets.reshape(len(train), -1).T
    found = {place: far_value(values) for place, values in enumerate(columns)}
    called = names if len(names) == len(columns) else [f"target {place}" for place in range(len(columns))]
    named = [f"{called[place]} {plain(value)}" for place, value in found.items() if value is not None]
    if not named:
        return None
    return f"targets far from all others: {listed(named)}; if they stand for missing ones, leave their samples out"
