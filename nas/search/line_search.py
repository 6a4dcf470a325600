"""Line search: ordinary trainings of the found network with hyperparameters around the learned ones.

A one-step hypergradient looks one step ahead: it tends to a learning rate that is too low, and to less dropout than is
good, for a whole training (Wu et al., 2018, "Understanding short-horizon bias in stochastic meta-optimization"); and
what the supernet taught is not quite what the network it leaves behind wants. A few ordinary trainings on the training
split, compared on the validation split, put that right from wherever the search has come.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nas.candidate import Candidate, Hyperparameters, Range
from nas.errors import require
from nas.evaluation.evaluation import Evaluation
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult, unsettled_in_words
from nas.search.trainings import Refinement, Trainer, Trainings, best, in_words, loss

log = logging.getLogger(__name__)


class LineSearch(Refinement):
    """A search, and then a line search in each hyperparameter in turn.

    The candidate carries the values of lowest validation loss. It ends where both neighbours of the best value of every
    hyperparameter are worse, at ``trials`` trainings, or where the budget pays for no further one. The trainings lie
    in ``line_search.jsonl`` of the run folder, so that a resumed run makes none twice.

    Args:
        inner, parts: As of :class:`nas.search.trainings.Refinement`.
        epochs: Length of one training; as long as the retraining, whose hyperparameters are sought.
        steps: By name in the order of the search: the factor from a value to its neighbours on a log scale, the
            difference on any other. What is not learned is left alone.
        trials: The most trainings.
    """

    def __init__(
        self,
        inner: Callable[..., Search],
        epochs: int,
        steps: Mapping[str, float],
        trials: int,
        *,
        parts: SearchParts,
    ) -> None:
        self.lines = Lines(steps, trials)
        super().__init__(inner, parts)
        ranges = parts.hyperparameters.candidate_ranges()
        self.ranges = self.lines.stepped(ranges)
        self.trainer = Trainer("line_search", epochs, parts)

    def search(self) -> SearchResult:
        found = self.inner.search()
        with Trainings(self.parts, found, list(self.ranges)) as trainings:
            while (trial := self.lines.next(found.candidate, trainings.done, self.ranges)) is not None:
                if trainings.train(self.trainer, trial) is None:
                    break
        return self._improved(found, trainings) if trainings.done else found

    def _improved(self, found: SearchResult, trainings: Trainings) -> SearchResult:
        told = in_words(trainings.done, best(trainings.done).candidate)
        log.info(f"line search: {told}")
        unfinished = self.lines.unfinished(found.candidate, trainings.done, self.ranges)
        settled = {**found.settled, **dict.fromkeys(self.ranges, None)}
        settled |= dict.fromkeys(unfinished, "its line search ended before it was between worse neighbours")
        return trainings.result(
            candidate=best(trainings.done).candidate,
            settled=settled,
            remarks={**found.remarks, "not settled": unsettled_in_words(settled), "line search": told},
        )


@dataclass(frozen=True)
class Lines:
    """Which candidate to train next; the fields are those of :class:`LineSearch`."""

    steps: Mapping[str, float]
    trials: int

    def __post_init__(self) -> None:
        require(len(self.steps) > 0, "steps", dict(self.steps), "it must name a hyperparameter or more")
        for name, step in self.steps.items():
            good = step > 0 and math.isfinite(step)
            require(good, f"steps.{name}", step, "it must be a factor above 1, or a difference above 0")
        require(self.trials >= 1, "trials", self.trials, "it must be at least 1")

    def stepped(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """Those of ``ranges`` that have a step.

        Raises:
            InvalidValue: A step cannot be made on its hyperparameter's scale.
        """
        for name, step in self.steps.items():
            good = name not in ranges or ranges[name].scale != "log" or step > 1
            require(good, f"steps.{name}", step, "on a log scale it is a factor, which must be above 1")
        return {name: range_ for name, range_ in ranges.items() if name in self.steps}

    def next(self, found: Candidate, trials: Sequence[Evaluation], ranges: Mapping[str, Range]) -> Candidate | None:
        """The candidate to train next, or None.

        Args:
            found: What the search has found.
            trials: The trainings so far.
            ranges: Where each learned hyperparameter may go.
        """
        if len(trials) >= self.trials:
            return None
        return next((candidate for _, candidate in self._open(found, trials, ranges)), None)

    def unfinished(self, found: Candidate, trials: Sequence[Evaluation], ranges: Mapping[str, Range]) -> list[str]:
        """The hyperparameters whose best value has not been tried together with both its neighbours."""
        names = [name for name in self.steps if name in ranges]
        stopped = next((name for name, _ in self._open(found, trials, ranges)), None)
        return [] if stopped is None else names[names.index(stopped) :]

    def _open(
        self, found: Candidate, trials: Sequence[Evaluation], ranges: Mapping[str, Range]
    ) -> Iterator[tuple[str, Candidate]]:
        """What is still to be tried, in order; what follows the first depends on its loss."""
        known = {trial.candidate: loss(trial) for trial in trials}
        places: dict[str, int] = {}
        for name in self.steps:
            if name not in ranges:
                continue
            while True:
                centre = self.at(found, places, ranges)
                assert centre is not None
                if centre not in known:
                    yield name, centre
                    return
                # Upwards first: what is learned is too low more often than too high.
                moves = [{**places, name: places.get(name, 0) + direction} for direction in (1, -1)]
                neighbours = [(move, one) for move in moves if (one := self.at(found, move, ranges)) is not None]
                missing = [one for _, one in neighbours if one not in known]
                better = [(known[one], move) for move, one in neighbours if known.get(one, math.inf) < known[centre]]
                if better:
                    places = min(better, key=lambda pair: pair[0])[1]
                elif missing:
                    yield name, missing[0]
                    return
                else:
                    break

    def at(self, found: Candidate, places: Mapping[str, int], ranges: Mapping[str, Range]) -> Candidate | None:
        """``found`` moved by whole steps: the last one ends at the end of the range, None where half of it would."""
        values = dict(found.hyperparameters)
        for name, place in places.items():
            if place == 0:
                continue  # exactly what was learned
            step, range_, half = self.steps[name], ranges[name], math.copysign(0.5, place)
            if range_.scale == "log":
                wanted, least = values[name] * step**place, values[name] * step ** (place - half)
            else:
                wanted, least = values[name] + place * step, values[name] + (place - half) * step
            if not range_.contains(least):
                return None
            values[name] = min(max(wanted, range_.low), range_.high)
        return Candidate(found.architecture, Hyperparameters(values))
