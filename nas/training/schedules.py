"""How a learning rate changes over a training, as a factor of its base."""

import math

from nas.candidate import Schedule

__all__ = ["Schedule", "schedule_factor"]


def schedule_factor(schedule: Schedule, progress: float, end: float = 0.0) -> float:
    """The factor at ``progress`` (0 at the first step, 1 after the last).

    ``cosine`` and ``exponential`` fall from 1 to ``end``, the latter by the same ratio in every epoch.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "exponential":
        return float(end**progress)
    return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
