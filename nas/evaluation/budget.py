"""What a search may spend, and the meter of a gradient search.

Every method has the same budget, and its cost is counted in the same way (``nas.evaluation.network_cost``).
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import require
from nas.evaluation.evaluation import Cost


@dataclass(frozen=True)
class Budget:
    """The limits of a search: the first one that is reached ends it. Null is no limit.

    Args:
        samples: Images that go through a network, on either split: every forward and backward pass, restarts and
            measurements included.
        multiply_adds: What these passes cost.
        evaluations: Candidates that are evaluated.
        seconds: Time on the clock, summed over the resumed parts of a run.

    Raises:
        InvalidValue: A limit is not a finite number above 0.
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
        """The limits that are set, by name."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def without(self, cost: Cost) -> "Budget | None":
        """What is left after ``cost``, or None if nothing is left."""
        left = {name: limit - getattr(cost, name) for name, limit in self.limits().items()}
        return None if any(limit <= 0 for limit in left.values()) else Budget(**left)

    def allows(self, cost: Cost) -> bool:
        """Whether ``cost`` stays within every limit."""
        return all(getattr(cost, name) <= limit for name, limit in self.limits().items())

    def progress(self, cost: Cost) -> float:
        """The spent share (0 to 1) of the limit that is nearest to its end; 0 without limits."""
        shares = [getattr(cost, name) / limit for name, limit in self.limits().items()]
        return min(max(shares, default=0.0), 1.0)


MEASURED_AT_ONCE = 256  # images


class CostMeter:
    """Counts the samples, multiply-adds and seconds of one gradient search, and knows what it must keep back.

    Args:
        budget: What the search may spend.
        per_image: Multiply-adds of one image's forward pass through the supernet.
        step: The most samples that go forward and backward in one step.
        validation: Images of the validation split, on which the supernet is measured at the end.
        choosing: Images that the discretisation passes through the supernet where the budget allows it.
        tuning: Samples that go forward and backward meanwhile.

    Attributes:
        samples: Samples spent so far.
        measured: Those among them that only went forward.
        seconds: Time on the clock until the end of the last epoch, summed over the resumed parts of a run.
    """

    def __init__(
        self, budget: Budget, per_image: float, step: int, validation: int, choosing: int, tuning: int = 0
    ) -> None:
        self.budget, self.samples, self.measured, self.seconds = budget, 0, 0, 0.0
        self.validation, self.choosing, self.tuning = validation, choosing, tuning
        self.per_image, self._step = per_image, step
        self._samples_before, self._epoch_began = 0, time.perf_counter()

    def trained(self, samples: int) -> None:
        """Count samples that went forward and backward."""
        self.samples += samples

    def passed(self, images: int) -> None:
        """Count images that only went forward."""
        self.samples += images
        self.measured += images

    @property
    def clock(self) -> float:
        """Seconds until now."""
        return self.seconds + time.perf_counter() - self._epoch_began

    @property
    def spent(self) -> Cost:
        """The cost until now."""
        trained = self.samples - self.measured
        return Cost.of_passes(self.per_image, trained, self.measured, seconds=self.clock)

    @property
    def counted(self) -> Cost:
        """The cost without the clock, which decides when a search ends, never what it computes."""
        return replace(self.spent, seconds=0.0)

    @property
    def untrained(self) -> int:
        """Images on which the untrained supernet's loss is measured."""
        return min(self.validation, MEASURED_AT_ONCE)

    def reserve(self) -> Cost:
        """The most that the next step, the measurement at the end and the discretisation can cost together."""
        choosing = self.images_to_choose()
        return self._step_and(self.validation + choosing, self.tuning if choosing else 0)

    def least(self) -> Cost:
        """The most that a search of one step can cost: the untrained supernet's loss, then :meth:`reserve`."""
        return self.reserve() + self._forward(self.untrained)

    def require_one_step(self) -> None:
        """Check that the budget pays for a search of one step.

        Raises:
            InvalidValue: A limit is below its cost.
        """
        for name, limit in self.budget.limits().items():
            cost = getattr(self.least(), name)
            require(cost <= limit, f"budget.{name}", limit, f"a search of one step costs up to {cost:,.0f}")

    def images_to_choose(self) -> int:
        """Images that the discretisation may use: ``choosing``, or 0 if the budget would then not pay for one step."""
        measured = self.untrained + self.validation + self.choosing
        affordable = self.budget.allows(self._step_and(measured, self.tuning))
        return self.choosing if affordable else 0

    def pays_for_choosing(self, measured: int) -> bool:
        """Whether the discretisation may use its images, when ``measured`` images are spent and not counted yet."""
        choosing = Cost.of_passes(self.per_image, self.tuning, measured + self.choosing)
        within = self.budget.allows(self.counted + choosing)
        return self.images_to_choose() == self.choosing and within

    def progress(self) -> float:
        """The share of the budget (0 to 1) that is spent together with the reserve."""
        return self.budget.progress(self.counted + self.reserve())

    def _step_and(self, measured: int, tuned: int = 0) -> Cost:
        """The most that one step and ``tuned`` samples cost, and ``measured`` images that only go forward."""
        return Cost.of_passes(self.per_image, self._step + tuned, measured)

    def _forward(self, images: int) -> Cost:
        """The cost of ``images`` that only go forward."""
        return Cost.of_passes(self.per_image, 0, images)

    def begin_epoch(self) -> None:
        self._epoch_began = time.perf_counter()

    def end_epoch(self) -> tuple[float, float]:
        """End the epoch and begin the next: the seconds of the ended one, and its samples per second."""
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
