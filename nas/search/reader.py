"""Reading the candidate off the supernet that a search leaves behind."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.data.batches import Batch, first_images
from nas.data.dataset import Dataset
from nas.evaluation.budget import MEASURED_AT_ONCE, CostMeter
from nas.search.convergence import Trajectory
from nas.search.discretisation import Trained, Tune
from nas.search.parts import SearchParts
from nas.spaces.supernet import Supernet
from nas.training.metrics import measure

log = logging.getLogger(__name__)
Watched = Callable[[Iterable[Batch]], Iterable[Batch]]  # batches, cut short by a request to stop


class CandidateReader:
    """Reads off the architecture once, at the end, and the hyperparameters at any time.

    Args:
        validation: The validation split, on the supernet's device.

    Attributes:
        chosen: The architecture, once it is read off.
    """

    def __init__(
        self, parts: SearchParts, supernet: Supernet, trajectory: Trajectory, meter: CostMeter, validation: Dataset
    ) -> None:
        self.parts, self.supernet, self.trajectory, self.meter = parts, supernet, trajectory, meter
        mean, std = parts.splits.mean, parts.splits.std
        self.batches = partial(validation.evaluation_batches, MEASURED_AT_ONCE, mean, std)
        self.chosen: Architecture | None = None

    def candidate(self) -> Candidate:
        """What the search would return now."""
        held = {name: entry.initial for name, entry in self.parts.categorical.items()}
        values = Hyperparameters({**self.trajectory.tail_average(), **held})
        return Candidate(self.chosen or self.supernet.discretise(), values)

    def measure_and_choose(self, watched: Watched, tune: Tune) -> dict[str, float]:
        """Measure the supernet on the whole validation split, and read the architecture off it.

        Args:
            watched: What cuts batches short.
            tune: Trains the supernet on between two decisions.

        Raises:
            StopRequested: A signal asked to stop; nothing is counted then.
        """
        metrics = measure(self.supernet, watched(self.batches()), self.parts.task, self.parts.randomness.device)
        preferred = self.supernet.discretise()  # an alpha that is not finite is named
        if self.meter.choosing_images and not self.meter.pays_for_choosing(metrics.samples):
            log.info("the budget is too small for the discretisation: alpha's strongest options are taken")
            self.chosen = preferred
        else:
            self.chosen = self.read_off(watched, tune)
        self.meter.count_forward(metrics.samples)
        main = self.parts.task.measures[0].name
        return {"supernet/validation_loss": metrics.loss, f"supernet/validation_{main}": metrics[main]}

    def read_off(self, watched: Watched, tune: Tune | None = None) -> Architecture:
        """What the discretisation chooses now, its passes counted; arguments as of :meth:`measure_and_choose`."""
        passed: list[tuple[int, float | None]] = []

        def images(most: int, per_image: float | None = None) -> Iterator[Batch]:
            for batch in watched(first_images(self.batches(), min(most, self.meter.images_per_option))):
                passed.append((len(batch.targets), per_image))
                yield batch

        generator = self.parts.randomness.anew("discretisation")
        trained = Trained(self.supernet, self.parts.space, images, generator, tune, self.parts.task)
        chosen = self.parts.discretisation.choose(trained)
        for count, per_image in passed:
            self.meter.count_forward(count, per_image)
        return chosen

    def against_alpha(self) -> str:
        """``layer1.filters 16 (4)``, ...: what was chosen (and what alpha prefers) where the two differ."""
        preferred = self.supernet.discretise()
        chosen = self.chosen or preferred
        return ", ".join(
            f"{name} {chosen[name]} ({preferred[name]})" for name in preferred if chosen[name] != preferred[name]
        )

    def remarks(self) -> dict[str, str]:
        """What the table at the end says where something else was chosen than alpha prefers."""
        against_alpha = self.against_alpha()
        return {"chosen (alpha's)": against_alpha} if against_alpha else {}

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": None if self.chosen is None else dict(self.chosen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        chosen = state["chosen"]
        self.chosen = None if chosen is None else Architecture(self.parts.space.name, chosen)
