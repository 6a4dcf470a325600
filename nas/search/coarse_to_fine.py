"""Coarse to fine: short trainings of the found network, which repair hyperparameters that started far off.

A hypergradient takes small steps: a learning rate that begins decades away does not arrive in a short search. Trainings
of an epoch or two tell such values apart at a fraction of the price. They do not tell good ones apart: they prefer a
higher learning rate and less dropout than a whole training does. So the learned values stay unless others win clearly,
in a whole training, too, where the budget has one to spare.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nas.candidate import Candidate, Hyperparameters, Range
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult, unsettled_in_words
from nas.search.trainings import Refinement, Trainer, Trainings, in_words, loss, values_within

log = logging.getLogger(__name__)
RATE = "learning_rate"
NEAR = 0.1  # of its range: no short training tells two values of a hyperparameter apart that are closer


class CoarseToFine(Refinement):
    """A search, and then short trainings of its network, in coarse and then in fine steps of the learning rate.

    They lie in ``coarse_to_fine.jsonl`` of the run folder, so that a resumed run makes none twice. They end where no
    step is open, at ``trials`` trainings, or where the budget pays for no further one. Where the learned values lead no
    more, they and the leader get a whole training, in ``coarse_to_fine_whole.jsonl``, and the lower loss decides.

    Where few validation samples are all right, a lower loss is confidence, of which high learning rates have most. So a
    candidate must be better by more than that there, and the leader with its usual learning rate gets a whole training.

    Args:
        inner, parts: As of :class:`nas.search.trainings.Refinement`.
        epochs: Length of one training.
        usual: By name, values that work on most data. What is not learned is left alone.
        coarse, fine: Factors from one learning rate to the next.
        margin: By what share of the leader's loss another candidate's must be lower to take the lead.
        trials: The most short trainings.
        whole_epochs: Length of a whole training; None for no such comparison.
        tried: By name, a value for what the hypergradient leaves to these trainings (``by: trainings``).
        from_usual: Whether they follow a search, too, that began near the usual values and leaves nothing to them: it
            has left these by its own measure, and short trainings have to be better than that measure to be of use.
        doubted: Names whose usual values hold after the search, unless short trainings prefer the learned ones. It is
            for regularisers: a few steps ahead they are harm or noise, so that a hypergradient cannot see their worth.
            Where no training is made, or all of them are less than a tenth of their range away, none is tried.
        few: Below so many validation samples they are few.
        mistake: Of few samples of classes, by how much of the loss of one, in nats, another candidate's mean loss must
            be lower as well, in short and in whole trainings.

    Raises:
        InvalidValue: A setting is out of bounds.
    """

    def __init__(
        self,
        inner: Callable[..., Search],
        epochs: int,
        usual: Mapping[str, float],
        coarse: float,
        fine: float,
        margin: float,
        trials: int,
        whole_epochs: int | None = None,
        tried: Mapping[str, float] | None = None,
        from_usual: bool = True,
        doubted: Sequence[str] = (),
        few: int = 0,
        mistake: float = 0.0,
        *,
        parts: SearchParts,
    ) -> None:
        require(trials >= 2, "trials", trials, "it must be at least 2")
        good = whole_epochs is None or whole_epochs >= 1
        require(good, "whole_epochs", whole_epochs, "it must be at least 1, or null for no whole trainings")
        require(few >= 0, "few", few, "it must be at least 0")
        require(0 <= mistake < math.inf, "mistake", mistake, "it must be at least 0, in nats")
        self.steps = Steps(usual, coarse, fine, margin)
        super().__init__(inner, parts)
        assert parts.setup is not None
        samples = len(parts.setup.validation)
        if samples < few and parts.setup.task.name == "classification":
            self.steps = replace(self.steps, least=mistake / samples)
        self.trials, self.from_usual = trials, from_usual
        ranges = parts.hyperparameters.candidate_ranges()
        self.ranges = {name: range_ for name, range_ in ranges.items() if name in usual}
        self.whole_at_usual = [RATE] if samples < few and RATE in self.ranges else []
        for name in doubted:
            require(name in usual, "doubted", name, f"it must be one of usual: {', '.join(usual)}")
        self.doubted = [name for name in doubted if name in self.ranges]
        entries = parts.hyperparameters.entries
        left = {name: range_ for name, range_ in ranges.items() if not entries[name].moves}
        self.tried = values_within("tried", tried or {}, left)
        self.ranges |= {name: ranges[name] for name in self.tried}
        self.trainer = Trainer("coarse_to_fine", epochs, parts)
        self.whole: Trainer | None = None
        if whole_epochs is not None and whole_epochs > epochs:  # or it would tell nothing that short ones do not
            self.whole = Trainer("coarse_to_fine_whole", whole_epochs, parts)

    def search(self) -> SearchResult:
        searched = self.inner.search()
        found = self._without_doubt(searched)
        if not self.ranges or self._began_as_usual(found):
            return found
        is_near = near(searched.candidate, found.candidate, self.ranges)
        doubted = {} if is_near else {name: searched.candidate.hyperparameters[name] for name in self.doubted}
        with Trainings(self.parts, found, list(self.ranges)) as trainings:

            def measured(candidate: Candidate) -> float | None:
                trial = trainings.train(self.trainer, candidate) if len(trainings.done) < self.trials else None
                return None if trial is None else loss(trial)

            lead = self.steps.lead(found.candidate, self.ranges, measured, {**self.tried, **doubted})
            if trainings.done:
                log.info(f"coarse to fine: {in_words(trainings.done, lead.candidate)}")
            usual = self.steps.moved(lead.candidate, self.ranges, self.whole_at_usual, 1.0)
            short = len(trainings.done)
            whole = self._whole_trainings([found.candidate, usual, lead.candidate], trainings)
        return self._improved(found, trainings, lead, short, whole) if trainings.done else found

    def _without_doubt(self, searched: SearchResult) -> SearchResult:
        """What was found, with the usual values of what is doubted."""
        candidate = self.steps.moved(searched.candidate, self.ranges, self.doubted, 1.0)
        before, after = searched.candidate.hyperparameters, candidate.hyperparameters
        if not (moved := self._moved(before, after)):
            return searched
        told = ", ".join(f"{name} {after[name]:.3g} instead of the learned {before[name]:.3g}" for name in moved)
        log.info(f"usual values: {told}")
        settled = {**searched.settled, **dict.fromkeys(moved, None)}
        remarks = {**searched.remarks, "not settled": unsettled_in_words(settled), "usual values": told}
        return replace(searched, candidate=candidate, settled=settled, remarks=remarks)

    def _began_as_usual(self, found: SearchResult) -> bool:
        """Whether there is nothing to repair, and nothing left to trainings that is to be tried."""
        if self.from_usual or self.tried or not self.ranges.keys() <= found.trajectory.keys():
            return False
        values = {name: found.trajectory[name][0] for name in self.ranges}
        began = Candidate(found.candidate.architecture, Hyperparameters({**found.candidate.hyperparameters, **values}))
        return near(began, self.steps.moved(began, self.ranges, list(self.ranges), 1.0), self.ranges)

    def _whole_trainings(self, candidates: Sequence[Candidate], trainings: Trainings) -> list[Evaluation]:
        """One of each, or of the first and the last alone, as the budget pays; none where these are the same."""
        if self.whole is None or candidates[0] == candidates[-1]:
            return []
        for made_of in (list(dict.fromkeys(candidates)), [candidates[0], candidates[-1]]):
            if trainings.affords(sum((self.whole.price(one) for one in made_of), Cost())):
                break
        else:
            return []
        made = [trainings.train(self.whole, one) for one in made_of]
        if made[-1] is None:  # the time is over: what was learned would win uncontested
            return []
        return [trial for trial in made if trial is not None]

    def _moved(self, before: Hyperparameters, after: Hyperparameters) -> list[str]:
        return [name for name in self.ranges if after[name] != before[name]]

    def _improved(
        self, found: SearchResult, trainings: Trainings, lead: "Lead", short: int, whole: Sequence[Evaluation]
    ) -> SearchResult:
        candidate, best = lead.candidate, math.inf
        for trial in whole:
            if trial is whole[0] or loss(trial) < best - self.steps.least:
                candidate, best = trial.candidate, loss(trial)
        before, after = found.candidate.hyperparameters, candidate.hyperparameters
        moved = self._moved(before, after)
        changes = ", ".join(f"{name} {after[name]:.3g} instead of {before[name]:.3g}" for name in moved)
        told = f"{changes or 'the learned values stay'}, after {short} short trainings"
        if whole:
            of, losses = "both" if len(whole) == 2 else "all three", " and ".join(f"{loss(one):.3g}" for one in whole)
            told += f" and whole ones of {of}, with losses of {losses}"
        settled = {**found.settled, **dict.fromkeys(moved, None)}
        if lead.cut_short:
            settled |= dict.fromkeys(self.ranges, "its short trainings ended before all steps were tried")
        return trainings.result(
            candidate=candidate,
            settled=settled,
            remarks={**found.remarks, "not settled": unsettled_in_words(settled), "coarse to fine": told},
        )


class Lead:
    """Which candidate leads among those that were measured.

    Args:
        first: The first one to lead.
        steps: By how much another one's loss must be lower.
        measure: A candidate's loss, or None where it cannot be paid for.

    Attributes:
        known: The losses so far.
        cut_short: Whether a candidate could not be paid for.
    """

    def __init__(self, first: Candidate, steps: "Steps", measure: Callable[[Candidate], float | None]) -> None:
        self.candidate, self.steps, self.measure = first, steps, measure
        self.known: dict[Candidate, float] = {}
        self.cut_short = False
        self._measured(first)

    def taken_by(self, candidate: Candidate) -> bool:
        """Whether ``candidate`` takes the lead."""
        if not self._measured(candidate):
            return False
        won = self.steps.is_lower(self.known[candidate], self.known[self.candidate])
        self.candidate = candidate if won else self.candidate
        return won

    def _measured(self, candidate: Candidate) -> bool:
        if candidate not in self.known and not self.cut_short:
            found = self.measure(candidate)
            self.cut_short = found is None
            self.known |= {} if found is None else {candidate: found}
        return candidate in self.known


@dataclass(frozen=True)
class Steps:
    """Which candidates are tried; the fields are those of :class:`CoarseToFine`.

    Attributes:
        least: By how much another candidate's loss must be lower, in units of the loss.
    """

    usual: Mapping[str, float]
    coarse: float
    fine: float
    margin: float
    least: float = 0.0

    def __post_init__(self) -> None:
        require(len(self.usual) > 0, "usual", dict(self.usual), "it must name a hyperparameter or more")
        for name, value in self.usual.items():
            require(math.isfinite(value), f"usual.{name}", value, "it must be finite")
        require(1 < self.fine < math.inf, "fine", self.fine, "it must be a factor above 1")
        good = self.fine <= self.coarse < math.inf
        require(good, "coarse", self.coarse, f"it must be a factor of at least fine={self.fine:g}")
        require(0 <= self.margin < 1, "margin", self.margin, "it must be from 0 to below 1")

    def is_lower(self, loss: float, led: float) -> bool:
        """Whether ``loss`` takes the lead from ``led``."""
        return loss < min((1 - self.margin) * led, led - self.least)

    def lead(
        self,
        found: Candidate,
        ranges: Mapping[str, Range],
        measure: Callable[[Candidate], float | None],
        tried: Mapping[str, float] | None = None,
    ) -> Lead:
        """Who leads in the end.

        What was found comes first, then the usual values. Then the learning rate goes up and down from the better of
        both, in coarse steps; all other hyperparameters go together to their usual values, or half the way; what is
        left to these trainings is tried, one after the other; and where the learned values lead no more, the learning
        rate goes on in fine steps.

        Args:
            found: What the search has found.
            ranges: Where each learned hyperparameter may go.
            measure: As that of :class:`Lead`.
            tried: As that of :class:`CoarseToFine`.
        """
        lead = Lead(found, self, measure)
        others = [name for name in ranges if name != RATE and name in self.usual]
        usual = self.moved(found, ranges, [name for name in ranges if name in self.usual], 1.0)
        if not near(found, usual, ranges):
            lead.taken_by(usual)
        self._along_the_rate(lead, self.coarse, ranges)
        for share in (1.0, 0.5):
            candidate = self._with_others(lead.candidate, self.moved(found, ranges, others, share), others)
            if not near(lead.candidate, candidate, ranges) and lead.taken_by(candidate):
                break
        for name, value in (tried or {}).items():
            values = Hyperparameters({**lead.candidate.hyperparameters, name: value})
            lead.taken_by(Candidate(found.architecture, values))
        if lead.candidate != found:  # what was learned is finer than short trainings can tell
            self._along_the_rate(lead, self.fine, ranges)
        return lead

    def moved(self, found: Candidate, ranges: Mapping[str, Range], names: list[str], share: float) -> Candidate:
        """``found`` with the values of ``names`` moved by ``share`` (0 to 1) of the way to their usual values."""
        values = dict(found.hyperparameters)
        for name in names:
            usual = min(max(self.usual[name], ranges[name].low), ranges[name].high)
            places = ranges[name].to_unit(values[name]), ranges[name].to_unit(usual)
            way = places[0] + share * (places[1] - places[0])
            values[name] = usual if share == 1 else ranges[name].from_unit(way)
        return Candidate(found.architecture, Hyperparameters(values))

    @staticmethod
    def _with_others(candidate: Candidate, source: Candidate, others: list[str]) -> Candidate:
        taken = {name: source.hyperparameters[name] for name in others}
        return Candidate(candidate.architecture, Hyperparameters({**candidate.hyperparameters, **taken}))

    def _along_the_rate(self, lead: Lead, factor: float, ranges: Mapping[str, Range]) -> None:
        """Move the learning rate as long as that takes the lead: upwards first, as it starts too low more often."""
        if RATE not in ranges:
            return
        for direction in (1, -1):
            while (candidate := self._next(lead, factor**direction, ranges[RATE])) is not None:
                if not lead.taken_by(candidate):
                    break

    @staticmethod
    def _next(lead: Lead, factor: float, range_: Range) -> Candidate | None:
        """The leader with ``factor`` times its learning rate.

        The last step ends at the end of the range. None where less than half a step is left, and where the learning
        rate of a known candidate is nearer to the wanted one than half a step.
        """
        rate = lead.candidate.hyperparameters[RATE]
        if not range_.contains(rate * math.sqrt(factor)):
            return None
        wanted = min(max(rate * factor, range_.low), range_.high)
        half = abs(math.log(factor)) / 2
        known = (one.hyperparameters[RATE] for one in lead.known if one != lead.candidate)
        if any(abs(math.log(other / wanted)) < half for other in known):
            return None
        values = {**lead.candidate.hyperparameters, RATE: wanted}
        return Candidate(lead.candidate.architecture, Hyperparameters(values))


def near(one: Candidate, other: Candidate, ranges: Mapping[str, Range]) -> bool:
    """Whether no hyperparameter differs by more than a tenth of its range."""
    pairs = [
        (range_.to_unit(one.hyperparameters[name]), range_.to_unit(other.hyperparameters[name]))
        for name, range_ in ranges.items()
    ]
    return all(abs(first - second) <= NEAR for first, second in pairs)
