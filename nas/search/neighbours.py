"""Neighbours: a local search in the joint space, which spends whatever budget is left after a search.

Neighbours of the best candidate so far differ from it in a choice or two, or in a hyperparameter. Short trainings tell
which of them are worth a whole one; only a whole one, with common random numbers, can take the lead. Where the budget
is too small for that, short ones propose another network, and a longer one, with other random numbers, decides. The
lowest of several noisy losses is lower than it deserves, and the more so the more there are: by how much is only seen
in a training that had no part in the selection.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from nas.candidate import Candidate, Hyperparameters, Range
from nas.errors import require
from nas.evaluation.evaluation import Cost
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult
from nas.search.trainings import Refinement, Trainer, Trainings, loss
from nas.spaces.space import LayerDescription, SearchSpace

log = logging.getLogger(__name__)
CHANGED = 2  # choices, at most
EVERY = 3  # the third neighbour of three differs in a hyperparameter
ATTEMPTS = 100  # at a neighbour of one kind that was not proposed before; after so many there is hardly one left


class Neighbours(Refinement):
    """A search, and then rounds of neighbours of what it found.

    A round gives ``tried`` neighbours a short training. Those that are better there than the leader, ``confirmed`` at
    most, get a whole one, as the leader does once; the lower validation loss leads. Rounds end at ``trials`` trainings
    of either length, where the budget pays for no short training with a whole one after it, or where no neighbour is
    left. Where the budget does not pay for half a round with two whole trainings, there is one proposal: half of what
    is left goes into short trainings of neighbours with other choices, the other half into a longer one of the best of
    them and of the start, with random numbers of its own. The lower loss there leads. Where that half pays for no
    longer trainings than the short ones, nothing is spent and the start stays. The trainings lie in
    ``neighbours.jsonl``, ``neighbours_short.jsonl`` and ``neighbours_<n>_epochs.jsonl`` of the run folder, so that a
    resumed run makes none twice.

    Halves are what successive halving gives to each of its rungs (Jamieson and Talwalkar, 2016).

    Args:
        inner, parts: As of :class:`nas.search.trainings.Refinement`.
        epochs, short_epochs: Lengths of a whole and of a short training.
        steps: By name: how far a hyperparameter's neighbours are, a factor on a log scale, the difference on any other.
            What is not learned is left alone.
        tried, confirmed: See above.
        trials: The most trainings.

    Raises:
        InvalidValue: A setting is out of bounds.
    """

    def __init__(
        self,
        inner: Callable[..., Search],
        epochs: int,
        short_epochs: int,
        steps: Mapping[str, float],
        tried: int,
        confirmed: int,
        trials: int,
        *,
        parts: SearchParts,
    ) -> None:
        good = 1 <= short_epochs < epochs
        require(good, "short_epochs", short_epochs, f"it must be from 1 to below epochs={epochs}")
        require(tried >= 1, "tried", tried, "it must be at least 1")
        require(1 <= confirmed <= tried, "confirmed", confirmed, f"it must be from 1 to tried={tried}")
        require(trials >= 1, "trials", trials, "it must be at least 1")
        super().__init__(inner, parts)
        ranges = parts.hyperparameters.candidate_ranges()
        self.steps = {name: (steps[name], range_) for name, range_ in ranges.items() if name in steps}
        for name, step in steps.items():
            least = 1 if name in self.steps and self.steps[name][1].scale == "log" else 0
            allowed = "it must be a factor above 1 on a log scale, or a difference above 0"
            require(least < step < math.inf, f"steps.{name}", step, allowed)
        self.tried, self.confirmed, self.trials = tried, confirmed, trials
        self.between = range(short_epochs + 1, epochs + 1)
        self.whole, self.short = Trainer("neighbours", epochs, parts), Trainer("neighbours_short", short_epochs, parts)

    def longer(self, epochs: int) -> Trainer:
        """Trainings of so many epochs, with other random numbers than the short ones."""
        return Trainer(f"neighbours_{epochs}_epochs", epochs, self.parts, own_numbers=True)

    def search(self) -> SearchResult:
        found = self.inner.search()
        neighbourhood = Neighbourhood(self.parts.space, self.steps, self.parts.randomness.anew("neighbours"))
        with Trainings(self.parts, found, list(self.steps)) as trainings:
            climb = Climb(found.candidate, neighbourhood.neighbour, self, trainings)
            if climb.affords_half_a_round():
                while climb.round():
                    pass
            else:
                climb.one_proposal(neighbourhood.network)
        if not trainings.done:
            log.info("neighbours: the start stays, the rest of the budget pays for no contest")
            return found
        told = climb.in_words()
        log.info(f"neighbours: {told}")
        return trainings.result(candidate=climb.lead, remarks={**found.remarks, "neighbours": told})


class Climb:
    """The rounds: which candidate leads, and what each has lost in short trainings and in those that decide.

    Args:
        start: The first leader.
        neighbour: A new neighbour of a candidate, or None where there is none.
        rules: Its settings and trainers hold.
        trainings: They make and pay them.

    Attributes:
        decider: Makes the trainings that decide: whole ones, but for what :meth:`one_proposal` says.
    """

    def __init__(
        self,
        start: Candidate,
        neighbour: Callable[[Candidate], Candidate | None],
        rules: Neighbours,
        trainings: Trainings,
    ) -> None:
        self.start = self.lead = start
        self.neighbour, self.rules, self.trainings = neighbour, rules, trainings
        self.decider = rules.whole
        self.short: dict[Candidate, float] = {}
        self.decided: dict[Candidate, float] = {}

    def affords_half_a_round(self) -> bool:
        """Whether the budget pays for the first half of a round, of neighbours that cost what the start does."""
        short, whole = self.rules.short.price(self.start), self.rules.whole.price(self.start)
        return self.trainings.affords(sum([*[short] * (1 + max(1, self.rules.tried // 2)), whole, whole], Cost()))

    def one_proposal(self, network: Callable[[Candidate], Candidate | None]) -> None:
        """Try neighbours with one half of what is left; the other one is for a contest of the best with the start.

        Args:
            network: A new neighbour of a candidate with other choices, or None where there is none.
        """
        if not self._lengthen(self.start, halves=2):
            return
        best: Candidate = self.start
        candidate: Candidate | None = self.start
        while candidate is not None and self._try(candidate, best):
            best = min(best, candidate, key=self.short.__getitem__)
            candidate = network(best)
        if best != self.start and self._lengthen(best):
            self._compete(best)

    def _lengthen(self, candidate: Candidate, halves: int = 1) -> bool:
        """Let ``decider`` be the longest one with which ``halves`` contests with ``candidate`` can be paid for."""
        for epochs in reversed(self.rules.between):
            self.decider = self.rules.longer(epochs)
            prices = [self.decider.price(self.lead), self.decider.price(candidate)] * halves
            if self.trainings.affords(sum(prices, Cost())):
                return True
        return False

    def round(self) -> bool:
        """Try neighbours of the leader, and let the best of them compete with it.

        Returns:
            Whether there can be another round.
        """
        if self.lead not in self.short and not self._try(self.lead):
            return False
        own, better = self.short[self.lead], list[Candidate]()
        for _ in range(self.rules.tried):
            candidate = self.neighbour(self.lead)
            ended = candidate is None or not self._try(candidate, *better[:1])
            if ended or candidate is None:
                break
            if self.short[candidate] < own:
                better = sorted([*better, candidate], key=self.short.__getitem__)
        for candidate in better[: self.rules.confirmed]:
            self._compete(candidate)
        return not ended

    def in_words(self) -> str:
        kind = "whole ones" if self.decider is self.rules.whole else f"of {self.decider.epochs} epochs"
        told = f"{len(self.short)} short trainings, {len(self.decided)} {kind}"
        if self.lead == self.start:
            return f"{told}: the start stays"
        return f"{told}: loss {self.decided[self.start]:.3g} -> {self.decided[self.lead]:.3g}"

    def _try(self, candidate: Candidate, *hopeful: Candidate) -> bool:
        """Make a short training of ``candidate``, unless one of it or of ``hopeful`` could then not compete."""
        rules = self.rules
        contests = [self._contest(one) for one in (candidate, *hopeful)]
        made = len(self.trainings.done) + 1
        dearest = max(contests, key=lambda contest: contest.cost.multiply_adds)
        if made + dearest.trainings > rules.trials:
            return False
        if not self.trainings.affords(rules.short.price(candidate) + dearest.cost):
            return False
        trial = self.trainings.train(self.rules.short, candidate)
        if trial is not None:
            self.short[candidate] = loss(trial)
        return trial is not None

    def _contest(self, candidate: Candidate) -> "Contest":
        """What it takes to let ``candidate`` compete with the leader."""
        lacking = [one for one in dict.fromkeys((self.lead, candidate)) if one not in self.decided]
        prices = [self.decider.price(one) for one in lacking]
        return Contest(len(lacking), sum(prices, Cost()))

    def _compete(self, candidate: Candidate) -> None:
        """Let ``decider`` train the leader and ``candidate``; where that cannot be paid for, the leader stays."""
        for one in (self.lead, candidate):
            if one in self.decided:
                continue
            over = len(self.trainings.done) >= self.rules.trials
            trial = None if over else self.trainings.train(self.decider, one)
            if trial is None:
                return
            self.decided[one] = loss(trial)
        if self.decided[candidate] < self.decided[self.lead]:
            self.lead = candidate


class Contest(NamedTuple):
    """Deciding trainings that are still to be made, and what they cost."""

    trainings: int
    cost: Cost


class Neighbourhood:
    """Draws neighbours; it gives none twice.

    Args:
        space: Where architectures lie.
        steps: By name: the step and the range of a hyperparameter.
        generator: Draws on the CPU.
    """

    def __init__(
        self, space: SearchSpace, steps: Mapping[str, tuple[float, Range]], generator: torch.Generator
    ) -> None:
        self.space, self.steps, self.generator = space, dict(steps), generator
        self.number = 0
        self._given: set[tuple[tuple[LayerDescription, ...], Hyperparameters]] = set()

    def neighbour(self, candidate: Candidate) -> Candidate | None:
        """A neighbour of ``candidate`` that is another network, or has other hyperparameters, than all before."""
        self.number += 1
        if not self.steps:
            return self.network(candidate)
        moves = (self._with_other_choices, self._with_a_step)
        return self._new(candidate, *(moves if self.number % EVERY else reversed(moves)))

    def network(self, candidate: Candidate) -> Candidate | None:
        """A neighbour of ``candidate`` with other choices that is another network than all before."""
        return self._new(candidate, self._with_other_choices)

    def _new(self, candidate: Candidate, *moves: Callable[[Candidate], Candidate]) -> Candidate | None:
        """By the first of ``moves``, or by the next one where nothing of its kind is left."""
        self._note(candidate)
        for move in moves:
            for _ in range(ATTEMPTS):
                found = move(candidate)
                if self._note(found):
                    return found
        return None

    def _note(self, candidate: Candidate) -> bool:
        """Remember ``candidate``. Returns whether it is new: options without effect make no other network."""
        key = tuple(self.space.layer_descriptions(candidate.architecture)), candidate.hyperparameters
        known = key in self._given
        self._given.add(key)
        return not known

    def _with_other_choices(self, candidate: Candidate) -> Candidate:
        choices = self.space.choices
        indices = [float(choice.options.index(candidate.architecture[choice.name])) for choice in choices]
        several = [place for place, choice in enumerate(choices) if len(choice.options) > 1]
        order = torch.randperm(len(several), generator=self.generator).tolist()
        for place in order[: 1 + self._below(CHANGED)]:
            count = len(choices[several[place]].options)
            indices[several[place]] = (indices[several[place]] + 1 + self._below(count - 1)) % count
        repaired = self.space.repair(indices, self.generator)
        architecture = self.space.decode([*repaired, *(0.0 for _ in self.space.ranges)]).architecture
        return Candidate(architecture, candidate.hyperparameters)

    def _with_a_step(self, candidate: Candidate) -> Candidate:
        name = list(self.steps)[self._below(len(self.steps))]
        (step, range_), direction = self.steps[name], (1, -1)[self._below(2)]
        value = candidate.hyperparameters[name]
        wanted = value * step**direction if range_.scale == "log" else value + direction * step
        values = {**candidate.hyperparameters, name: min(max(wanted, range_.low), range_.high)}
        return Candidate(candidate.architecture, Hyperparameters(values))

    def _below(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))
