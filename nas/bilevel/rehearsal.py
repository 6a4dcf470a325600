"""Rehearsals: the found network is trained from fresh weights at multiples of the learned learning rate.

A one-step hypergradient sees one step ahead and tends to a learning rate that is too low for a whole training (Wu et
al., 2018, "Understanding short-horizon bias in stochastic meta-optimization"); what the supernet taught is not quite
what the network it leaves behind wants. A few ordinary trainings on the training split, compared on the validation
split, put that right from wherever the search has come.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.candidate import Candidate, Hyperparameters, Range
from nas.configuration import require
from nas.evaluation.evaluation import Evaluation

RATE = "learning_rate"


@dataclass(frozen=True)
class Rehearsal:
    """Which learning rates are tried: by factors from the learned one, until both neighbours of the best are worse.

    Args:
        epochs: Of one training; as many as the retraining's, whose learning rate is sought.
        factor: Between a learning rate and its neighbours.
        trials: Trainings at most.
    """

    epochs: int
    factor: float
    trials: int

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "it must be at least 1")
        require(self.factor > 1 and math.isfinite(self.factor), "factor", self.factor, "it must be a number above 1")
        require(self.trials >= 1, "trials", self.trials, "it must be at least 1")

    def next(self, found: Candidate, trials: Sequence[Evaluation], range_: Range) -> Candidate | None:
        """The candidate to train next: ``found`` at another learning rate within ``range_``, or None.

        The higher neighbour comes first, since the learned rate is too low more often than too high.
        """
        losses = self._losses(found, trials)
        if len(losses) >= self.trials:
            return None
        return next((self.at(found, place) for place in self._open(found, losses, range_)), None)

    def bracketed(self, found: Candidate, trials: Sequence[Evaluation], range_: Range) -> bool:
        """Whether the best learning rate has been tried together with both its neighbours (or an end of the range)."""
        return not self._open(found, self._losses(found, trials), range_)

    def _open(self, found: Candidate, losses: Mapping[int, float], range_: Range) -> list[int]:
        """The places still to be tried around the best one."""
        best = min(losses, key=losses.__getitem__, default=None)
        wanted = [0] if best is None else [best + 1, best - 1]
        inside = [one for one in wanted if one == 0 or range_.contains(self.at(found, one).hyperparameters[RATE])]
        return [one for one in inside if one not in losses]

    def _losses(self, found: Candidate, trials: Sequence[Evaluation]) -> dict[int, float]:
        """The validation loss at every place tried: place 1 is ``factor`` times the learned rate, -1 is below it."""
        learned, step = found.hyperparameters[RATE], math.log(self.factor)
        return {round(math.log(one.candidate.hyperparameters[RATE] / learned) / step): loss(one) for one in trials}

    def at(self, found: Candidate, place: int) -> Candidate:
        rate = found.hyperparameters[RATE] * self.factor**place
        return Candidate(found.architecture, Hyperparameters({**found.hyperparameters, RATE: rate}))


def loss(trial: Evaluation) -> float:
    """The validation loss; infinite where the training broke off."""
    return trial.metrics["loss"]


def best(trials: Sequence[Evaluation]) -> Evaluation:
    """The trial of lowest loss, the earliest of equals."""
    return min(trials, key=loss)


def in_words(trials: Sequence[Evaluation]) -> str:
    """``learning_rate 0.0094: loss 0.231, 0.0282: 0.198 (taken)``; in order of the rate."""
    taken = best(trials)
    ordered = sorted(trials, key=lambda one: one.candidate.hyperparameters[RATE])
    parts = [
        f"{one.candidate.hyperparameters[RATE]:.3g}: loss {loss(one):.3g}" + (" (taken)" if one is taken else "")
        for one in ordered
    ]
    return f"{RATE} " + ", ".join(parts)
