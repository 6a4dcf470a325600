"""What a search may spend, and the meter of a gradient search.

Every method has the same budget, and its cost is counted in the same way (``nas.evaluation.network_cost``).
"""

import math
import time
from collections.abc import Callable, Mapping
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
CHOOSING_SHARE, FEWEST_IMAGES = 0.25, 32  # of a budget, at most, for the discretisation; of a pass, at least


def images_to_choose_with(budget: Budget, per_image: float, needed: Callable[[int], int], available: int) -> int:
    """How many of ``available`` validation images each pass of a discretisation takes.

    A small budget should go into the search, so that they shrink to a quarter of it, down to ``FEWEST_IMAGES``.

    Args:
        per_image: Multiply-adds of one image's forward pass.
        needed: All images that go forward if each pass takes so many.
    """
    limits = {"samples": 1.0, "multiply_adds": per_image}
    while available > FEWEST_IMAGES and any(
        price * needed(available) > CHOOSING_SHARE * budget.limits().get(name, math.inf)
        for name, price in limits.items()
    ):
        available = max(FEWEST_IMAGES, available * 9 // 10)
    return available


class CostMeter:
    """Counts the samples, multiply-adds and seconds of one gradient search, and knows what it must keep back.

    Args:
        budget: What the search may spend.
        per_image: Multiply-adds of one image's forward pass through the supernet.
        step_samples: The most samples that go forward and backward in one step.
        validation_images: On these the supernet is measured at the end.
        choosing_images: They go forward for the discretisation where the budget allows it, each time counted.
        tuning_samples: They go forward and backward meanwhile.
        images_per_option: The most that go forward at a time for the discretisation; None: ``validation_images``.

    Attributes:
        samples: Samples spent so far.
        forward_only: Those among them that went forward and not backward.
        saved: Multiply-adds that passes took less than those of whole images through the whole supernet.
        seconds: Time on the clock until the end of the last epoch, summed over the resumed parts of a run.
    """

    def __init__(
        self,
        budget: Budget,
        per_image: float,
        step_samples: int,
        validation_images: int,
        choosing_images: int,
        tuning_samples: int = 0,
        images_per_option: int | None = None,
    ) -> None:
        self.budget, self.samples, self.forward_only, self.seconds = budget, 0, 0, 0.0
        self.step_samples, self.validation_images = step_samples, validation_images
        self.choosing_images, self.tuning_samples = choosing_images, tuning_samples
        self.images_per_option = validation_images if images_per_option is None else images_per_option
        self.per_image, self.saved = per_image, 0.0
        self._samples_before, self._epoch_began, self._in_epoch = 0, time.perf_counter(), False

    def count_training(self, samples: int, per_image: float | None = None) -> None:
        """Count samples that went forward and backward, at ``per_image`` multiply-adds forward where that is less."""
        self.samples += samples
        self._in_epoch = True
        self._count_saved(samples, 0, per_image)

    def count_forward(self, images: int, per_image: float | None = None) -> None:
        """Count images that only went forward, at ``per_image`` multiply-adds where that is less."""
        self.samples += images
        self.forward_only += images
        self._count_saved(0, images, per_image)

    def _count_saved(self, trained: int, measured: int, per_image: float | None) -> None:
        if per_image is not None:
            self.saved += Cost.of_passes(self.per_image - per_image, trained, measured).multiply_adds

    @property
    def clock(self) -> float:
        """Seconds until now."""
        return self.seconds + time.perf_counter() - self._epoch_began

    @property
    def spent(self) -> Cost:
        """The cost until now."""
        whole = Cost.of_passes(self.per_image, self.samples - self.forward_only, self.forward_only, seconds=self.clock)
        return replace(whole, multiply_adds=whole.multiply_adds - self.saved)

    @property
    def counted(self) -> Cost:
        """The cost without the clock, which decides when a search ends, never what it computes."""
        return replace(self.spent, seconds=0.0)

    @property
    def untrained(self) -> int:
        """Images on which the untrained supernet's loss is measured."""
        return min(self.validation_images, MEASURED_AT_ONCE)

    def reserve(self) -> Cost:
        """The most that the next step, the measurement at the end and the discretisation can cost together."""
        choosing = self.images_to_choose()
        return self._step_and(self.validation_images + choosing, self.tuning_samples if choosing else 0)

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
        """``choosing_images``, or 0 if the budget would then not pay for one step."""
        measured = self.untrained + self.validation_images + self.choosing_images
        affordable = self.budget.allows(self._step_and(measured, self.tuning_samples))
        return self.choosing_images if affordable else 0

    def pays_for_choosing(self, measured: int) -> bool:
        """Whether the discretisation may use its images, when ``measured`` images are spent and not counted yet."""
        choosing = Cost.of_passes(self.per_image, self.tuning_samples, measured + self.choosing_images)
        within = self.budget.allows(self.counted + choosing)
        return self.images_to_choose() == self.choosing_images and within

    def progress(self) -> float:
        """How much (0 to 1) the steps have spent of what is theirs: of the budget without the reserve.

        So schedules go their whole way, however much is kept back for the end.
        """
        counted, reserve = self.counted, self.reserve()
        shares = [0.0]
        for name, limit in self.budget.limits().items():
            left = limit - getattr(reserve, name)
            shares.append(getattr(counted, name) / left if left > 0 else 1.0)
        return min(max(shares), 1.0)

    def _step_and(self, measured: int, tuned: int = 0) -> Cost:
        """The most that one step and ``tuned`` samples cost, and ``measured`` images that only go forward."""
        return Cost.of_passes(self.per_image, self.step_samples + tuned, measured)

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
        self._in_epoch = False
        samples, self._samples_before = self.samples - self._samples_before, self.samples
        return seconds, samples / seconds

    def state_dict(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "samples_before": self._samples_before,
            "measured": self.forward_only,
            "saved": self.saved,
            "seconds": self.clock if self._in_epoch else self.seconds,  # what follows the last epoch is in neither
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.samples, self.forward_only, self.seconds = state["samples"], state["measured"], state["seconds"]
        self._epoch_began, self._in_epoch = time.perf_counter(), False
        self._samples_before, self.saved = state["samples_before"], state.get("saved", 0.0)
