"""How long a gradient search goes and what watches over it."""

from dataclasses import dataclass
from typing import Literal

from nas.bilevel.guard import GuardSettings
from nas.bilevel.upper_level import ArchitectureOptimiser
from nas.configuration import require


@dataclass(frozen=True)
class SearchSettings:
    """How long the search goes and what watches over it.

    Args:
        epochs: Passes over the training split.
        warmup_epochs: Of these, how many at the start leave alpha alone.
        hyperparameter_every: Weight steps from one step of the hyperparameters to the next; alpha moves at each.
        stop: ``settled`` ends it as soon as nothing has moved for ``settled_epochs``; ``epochs`` never before the end.
        settled_epochs, settled_ratio: What counts as settled: epochs without a changed choice and without a
            hyperparameter that moved by more than this ratio (``Trajectory.unsettled``).
        checkpoint_every: Steps from one checkpoint to the next.
    """

    epochs: int
    warmup_epochs: int
    hyperparameter_every: int
    stop: Literal["epochs", "settled"]
    settled_epochs: int
    settled_ratio: float
    checkpoint_every: int
    architecture: ArchitectureOptimiser
    guard: GuardSettings

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "it must be at least 1")
        inside = 0 <= self.warmup_epochs <= self.epochs
        require(inside, "warmup_epochs", self.warmup_epochs, f"it must be from 0 to epochs={self.epochs}")
        every = self.hyperparameter_every
        require(every >= 1, "hyperparameter_every", every, "it must be at least 1")
        require(self.settled_epochs >= 2, "settled_epochs", self.settled_epochs, "it must be at least 2")
        require(self.settled_ratio > 1, "settled_ratio", self.settled_ratio, "it must be above 1")
        require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "it must be at least 1")
