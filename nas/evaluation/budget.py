"""What a search may spend; every method is held to it in the same way."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import require
from nas.evaluation.evaluation import Cost
from nas.evaluation.network_cost import TRAINING_PASS


@dataclass(frozen=True)
class Budget:
    """Limits of which the first to be reached ends the search; null sets none.

    Args:
        samples: Images that go through a network, on either split: every forward and backward pass, restarts and
            measurements included.
        multiply_adds: Of these passes.
        evaluations: Candidates evaluated.
        seconds: On the clock, resumed runs added up.
    """

    samples: int | None = None
    multiply_adds: float | None = None
    evaluations: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            good = limit is None or 0 < limit < math.inf
            require(good, name, limit, "it must be null or a number above 0")

    def limits(self) -> dict[str, float]:
        """Those that are set."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def without(self, cost: Cost) -> "Budget | None":
        """What is left of it after ``cost``, or None where nothing is."""
        left = {name: limit - getattr(cost, name) for name, limit in self.limits().items()}
        return None if any(limit <= 0 for limit in left.values()) else Budget(**left)

    def allows(self, cost: Cost) -> bool:
        """Whether no more than the budget is spent with ``cost``."""
        return all(getattr(cost, name) <= limit for name, limit in self.limits().items())

    def progress(self, cost: Cost) -> float:
        """The share that is spent (0 to 1) of the limit nearest to its end; 0 where none is set."""
        shares = [getattr(cost, name) / limit for name, limit in self.limits().items()]
        return min(max(shares, default=0.0), 1.0)


MEASURED_AT_ONCE = 256  # images


class Account:
    """The samples, multiply-adds and seconds of one search.

    Args:
        budget: Of it.
        per_image: Multiply-adds of one image's forward pass through the supernet.
        step: Samples that go forward and backward in one step at most.
        validation: Images of the validation split, on which the supernet is measured at the end.
        choosing: Images that the discretisation would like to pass through it.

    Attributes:
        samples: Spent so far.
        measured: Of these, those that went forward only.
        seconds: On the clock up to the last epoch's end; resumed runs are added up.
    """

    def __init__(self, budget: Budget, per_image: float, step: int, validation: int, choosing: int) -> None:
        self.budget, self.samples, self.measured, self.seconds = budget, 0, 0, 0.0
        self.validation, self.choosing = validation, choosing
        self.per_image, self._step = per_image, step
        self._samples_before, self._epoch_began = 0, time.perf_counter()

    def trained(self, samples: int) -> None:
        """Count what went forward and backward."""
        self.samples += samples

    def passed(self, images: int) -> None:
        """Count what went forward only."""
        self.samples += images
        self.measured += images

    @property
    def clock(self) -> float:
        """Seconds up to now."""
        return self.seconds + time.perf_counter() - self._epoch_began

    @property
    def spent(self) -> Cost:
        passes = TRAINING_PASS * (self.samples - self.measured) + self.measured
        return Cost(self.samples, self.per_image * passes, 0, self.clock)

    @property
    def counted(self) -> Cost:
        """What is spent but for the clock, which decides when a search ends, never what it computes."""
        return replace(self.spent, seconds=0.0)

    @property
    def untrained(self) -> int:
        """Images on which the untrained supernet's loss is taken."""
        return min(self.validation, MEASURED_AT_ONCE)

    def reserve(self) -> Cost:
        """What the next step, the measurement at the end and the discretisation may cost."""
        return self.step_and(self.validation + self.images_to_choose())

    def least(self) -> Cost:
        """What a search of one step may cost: the untrained supernet's loss, the step, the measurement at the end."""
        return self.reserve() + self.forward(self.untrained)

    def images_to_choose(self) -> int:
        """What the discretisation passes through the supernet; 0 where the budget would then pay for no step."""
        affordable = self.budget.allows(self.step_and(self.untrained + self.validation + self.choosing))
        return self.choosing if affordable else 0

    def pays_for_choosing(self, measured: int) -> bool:
        """Whether the discretisation may pass its images, ``measured`` more being spent and not yet counted."""
        within = self.budget.allows(self.counted + self.forward(measured + self.choosing))
        return self.images_to_choose() == self.choosing and within

    def progress(self) -> float:
        """The share of the budget that is spent once the reserve is."""
        return self.budget.progress(self.counted + self.reserve())

    def step_and(self, measured: int) -> Cost:
        """A step, and so many images forward only."""
        return Cost(self._step, self.per_image * TRAINING_PASS * self._step) + self.forward(measured)

    def forward(self, images: int) -> Cost:
        return Cost(images, self.per_image * images)

    def begin_epoch(self) -> None:
        self._epoch_began = time.perf_counter()

    def end_epoch(self) -> tuple[float, float]:
        """Its seconds, and its samples per second; the next one begins."""
        seconds = time.perf_counter() - self._epoch_began
        self.begin_epoch()
        self.seconds += seconds
        samples, self._samples_before = self.samples - self._samples_before, self.samples
        return seconds, samples / seconds

    def state_dict(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "samples_before": self._samples_before,
            "measured": self.measured,
            "seconds": self.clock,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.samples, self.measured, self.seconds = state["samples"], state["measured"], state["seconds"]
        self._samples_before = state["samples_before"]
