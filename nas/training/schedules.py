"""How a learning rate changes over a training, as a factor of its base; and values that were recorded over another."""

import math
from collections.abc import Sequence

from nas.candidate import Schedule

__all__ = ["Schedule", "recorded_value", "schedule_factor"]


def schedule_factor(schedule: Schedule, progress: float, end: float = 0.0) -> float:
    """The factor at ``progress`` (0 at the first step, 1 after the last).

    ``cosine`` and ``exponential`` fall from 1 to ``end``, the latter by the same ratio in every epoch.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "exponential":
        return float(end**progress)
    return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def recorded_value(points: Sequence[float], progress: float) -> float:
    """The value at ``progress`` (0 to 1) of a record stretched to the training's length.

    ``points`` are means over equal shares of the record; between their middles the value goes straight.
    """
    place = min(max(progress * len(points) - 0.5, 0.0), len(points) - 1.0)
    before = min(int(place), len(points) - 1)
    after = min(before + 1, len(points) - 1)
    return points[before] + (place - before) * (points[after] - points[before])
