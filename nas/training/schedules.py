"""How a learning rate changes over a training, as a factor of its base."""

import math
from typing import Literal

Schedule = Literal["constant", "cosine"]


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """The factor at ``progress`` (0 at the first step, 1 after the last); cosine falls from 1 to 0."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * progress))
