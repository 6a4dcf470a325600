"""The seam of what watches a gradient search from step to step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.bilevel.upper_level import Outcome
from nas.candidate import Architecture
from nas.data.batches import Batch


@dataclass(frozen=True)
class SeenStep:
    """A step of the search, as its callbacks see it.

    Attributes:
        step: Steps done, this one included.
        epoch: The epoch that it belongs to, from 0.
        outcome: What both levels did.
        training: The batch of the weight step.
        validation: The batch of the upper level, where it had anything to do.
        hyperparameters: Their values after the step.
        numbers: ``the training loss``, ``the gradient of the weights`` (its norm) and, where taken, ``the validation
            loss`` and ``alpha`` (its norm).
    """

    step: int
    epoch: int
    outcome: Outcome
    training: Batch
    validation: Batch | None
    hyperparameters: Mapping[str, float]
    numbers: Mapping[str, float]


class Callback:
    """Override what is needed; what is remembered belongs into the state, which is part of a checkpoint."""

    def on_step(self, seen: SeenStep) -> None:
        pass

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        """An epoch has ended, at whose end alpha prefers ``preferred``."""

    def forget(self) -> None:
        """The weights start again: what was seen of the failed ones belongs to no average."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
