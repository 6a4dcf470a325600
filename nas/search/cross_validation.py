"""Cross-validation: whole trainings on all folds of the samples but one in turn, which decide where samples are few.

Sixty rows do not tell two candidates apart: their loss is mostly chance. Here every sample of the search is left out
once, and each fold has weights, batches and noise of its own, the same for all candidates.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from nas.candidate import Architecture, Candidate, Choice, Hyperparameters
from nas.data.stratified_split import stratified_indices
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.search.line_search import Lines
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult, unsettled_in_words
from nas.search.trainings import Refinement, Trainer, Trainings, best, loss, values_within

log = logging.getLogger(__name__)
NAME = "cross_validation"
SKIP = "skip"  # of a layer that may be left out
UNFINISHED = "its line search ended before it was between worse neighbours"


class CrossValidated(Refinement):
    """A search, and then cross-validation of what it found and of its neighbours.

    The network found is tried with each activation in all of its layers; one without optional layers, which may be a
    linear model, with all of them, too. A line search in each hyperparameter (:class:`Lines`) begins with the best of
    these. What leads then is tried without its optional layers. Where that is better, another line search begins there.
    The candidate of lowest mean loss is handed on. The losses lie in ``cross_validation.jsonl`` of the run folder, so
    that a resumed run makes no training twice.

    Args:
        inner, parts: As of :class:`nas.search.trainings.Refinement`.
        epochs: Length of one training; as long as the retraining, whose candidate is sought.
        folds: How often a candidate is trained.
        most: Samples to train and validate on, beyond which one validation part tells enough, and nothing is tried.
        many: By name, the hyperparameters of the network found where there are more; the others stay.
        steps: As of :class:`nas.search.line_search.LineSearch`.
        shorter: By name, where the hyperparameters of the network without its optional layers begin; the others stay.
        trials: The most candidates.
        alike: The last parts of the names of choices, such as ``activation`` of ``layer1.activation``, that are tried
            with the same option in all layers.

    Raises:
        InvalidValue: A setting is out of bounds.
    """

    def __init__(
        self,
        inner: Callable[..., Search],
        epochs: int,
        folds: int,
        most: int,
        many: Mapping[str, float],
        steps: Mapping[str, float],
        shorter: Mapping[str, float],
        trials: int,
        alike: Sequence[str] = (),
        *,
        parts: SearchParts,
    ) -> None:
        require(folds >= 2, "folds", folds, "it must be at least 2")
        require(most >= 0, "most", most, "it must be a number of samples, at least 0")
        self.lines = Lines(steps, trials)
        super().__init__(inner, parts)
        ranges = parts.hyperparameters.candidate_ranges()
        self.ranges, self.alike = self.lines.stepped(ranges), alike
        self.shorter = values_within("shorter", shorter, ranges)
        self.many = values_within("many", many, ranges)
        require(epochs >= 1, "epochs", epochs, "it must be at least 1")
        are_few = len(parts.splits.train) + len(parts.splits.validation) <= most
        self.trainer = FoldTrainer(epochs, folds, parts) if are_few else None  # it copies the samples once per fold

    def search(self) -> SearchResult:
        found = self.inner.search()
        start = found.candidate
        if self.trainer is None:
            values = Hyperparameters({**start.hyperparameters, **self.many})
            return replace(found, candidate=Candidate(start.architecture, values))
        bases = dict.fromkeys((start, self._lengthened(start)))
        first, *rivals = (one for base in bases for one in (base, *self._unified(base)))
        if not self.ranges and not rivals and self._shortened(start) == start:
            return found
        with Trainings(self.parts, found, list(self.ranges)) as trainings:
            if not self._train(first, trainings):  # what it is compared with comes first
                return found
            for candidate in rivals:
                self._train(candidate, trainings)
            start = best(trainings.done).candidate
            self._search_lines(start, trainings)
            lead = best(trainings.done).candidate
            shorter = self._shortened(lead)
            if shorter != lead and self._train(shorter, trainings) and best(trainings.done).candidate == shorter:
                start = shorter
                self._search_lines(start, trainings)
        return self._improved(found, start, trainings)

    def _search_lines(self, start: Candidate, trainings: Trainings) -> None:
        while (trial := self.lines.next(start, trainings.done, self.ranges)) is not None:
            if not self._train(trial, trainings):
                break

    def _train(self, candidate: Candidate, trainings: Trainings) -> bool:
        """Train ``candidate``. Returns whether number of candidates and budget allowed it."""
        assert self.trainer is not None
        return len(trainings.done) < self.lines.trials and trainings.train(self.trainer, candidate) is not None

    def _unified(self, candidate: Candidate) -> list[Candidate]:
        """``candidate`` with each option of the choices ``alike`` in all layers that it has; without itself."""
        architecture, acting = candidate.architecture, self._acting(candidate.architecture)
        found: list[Candidate] = []
        for kind in self.alike:
            of_kind = [choice for choice in acting if choice.name.rpartition(".")[2] == kind]
            for option in dict.fromkeys(option for choice in of_kind for option in choice.options):
                changed = {choice.name: option for choice in of_kind if option in choice.options}
                options = Architecture(architecture.space, {**architecture, **changed})
                found.append(Candidate(options, candidate.hyperparameters))
        return [one for one in dict.fromkeys(found) if one != candidate]

    def _acting(self, architecture: Architecture) -> list[Choice]:
        """The choices that are not of layers left out."""
        space = self.parts.space
        return [choice for choice in space.choices if space.acts(choice.name, architecture)]

    def _lengthened(self, candidate: Candidate) -> Candidate:
        """``candidate`` with all optional layers, where it has none of them; else itself."""
        architecture = candidate.architecture
        optional = [choice for choice in self.parts.space.choices if SKIP in choice.options]
        if any(architecture[choice.name] != SKIP for choice in optional):
            return candidate
        options = {choice.name: next(one for one in choice.options if one != SKIP) for choice in optional}
        return Candidate(Architecture(architecture.space, {**architecture, **options}), candidate.hyperparameters)

    def _shortened(self, candidate: Candidate) -> Candidate:
        """``candidate`` without its optional layers; itself, where there are none."""
        optional = {choice.name: SKIP for choice in self.parts.space.choices if SKIP in choice.options}
        options = {**candidate.architecture, **optional}
        if options == dict(candidate.architecture):
            return candidate
        values = {**candidate.hyperparameters, **self.shorter}
        return Candidate(Architecture(candidate.architecture.space, options), Hyperparameters(values))

    def _improved(self, found: SearchResult, start: Candidate, trainings: Trainings) -> SearchResult:
        first, taken = trainings.done[0], best(trainings.done)
        acting = [choice.name for choice in self._acting(taken.candidate.architecture)]
        told = _in_words(first, taken, len(trainings.done), acting)
        log.info(f"cross-validation: {told}")
        unfinished = self.lines.unfinished(start, trainings.done, self.ranges)
        before, after = first.candidate.architecture, taken.candidate.architecture
        decided = [*self.ranges, *(name for name in after if after[name] != before[name])]
        settled = {**found.settled, **dict.fromkeys(decided, None), **dict.fromkeys(unfinished, UNFINISHED)}
        return trainings.result(
            candidate=taken.candidate,
            settled=settled,
            remarks={**found.remarks, "not settled": unsettled_in_words(settled), "cross-validation": told},
        )


class FoldTrainer(Trainer):
    """Trains a candidate once per fold; its metrics are the means over the samples left out.

    Where rows cannot stand in any part, those of one patient or of a time to come, every training has the run's own
    parts, and only weights, batches and noise differ.

    Args:
        epochs: Length of a training.
        folds: How many there are; fewer, where there are not two samples for each, and none for less than four.
        parts: The pieces of the run.
    """

    def __init__(self, epochs: int, folds: int, parts: SearchParts) -> None:
        super().__init__(NAME, epochs, parts)
        assert parts.objective is not None
        setups = fold_setups(self.from_scratch.setup, folds, parts.splits.exchangeable)
        self.trainers = [TrainedFromScratch(epochs, setup=setup, objective=parts.objective) for setup in setups]

    def price(self, candidate: Candidate) -> Cost:
        return replace(sum((one.price(candidate) for one in self.trainers), Cost()), evaluations=1)

    def train(self, candidate: Candidate) -> Evaluation:
        found = [one.evaluate([candidate])[0] for one in self.trainers]
        samples = [len(one.setup.validation) for one in self.trainers]
        metrics = {name: _mean([one.metrics[name] for one in found], samples) for name in found[0].metrics}
        cost = replace(sum((one.cost for one in found), Cost()), evaluations=1)
        return Evaluation(candidate, metrics, cost)


def fold_setups(setup: TrainingSetup, folds: int, exchangeable: bool) -> list[TrainingSetup]:
    """``setup`` with the parts and the seed of each fold; classes are in proportion in every fold."""
    seeds = range(setup.seed, setup.seed + folds)
    if not exchangeable or len(setup.train) + len(setup.validation) < 4:
        return [replace(setup, seed=seed) for seed in seeds]
    known = setup.train.joined(setup.validation)
    chosen = fold_indices(known.targets, min(folds, len(known) // 2))
    others = [torch.cat([*chosen[:place], *chosen[place + 1 :]]).sort().values for place in range(len(chosen))]
    return [
        replace(setup, train=known.select(rest), validation=known.select(own), seed=seed)
        for own, rest, seed in zip(chosen, others, seeds, strict=False)
    ]


def fold_indices(targets: Tensor, folds: int) -> list[Tensor]:
    """The samples of each fold, (M,) int64; always the same ones of given ``targets`` (N, ...)."""
    are_classes = targets.dim() == 1 and not targets.is_floating_point()
    labels = targets if are_classes else torch.zeros(len(targets), dtype=torch.int64)
    sizes = [len(targets) // folds + (fold < len(targets) % folds) for fold in range(folds)]
    return stratified_indices(labels, sizes, Generator().manual_seed(0))


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _in_words(first: Evaluation, taken: Evaluation, count: int, acting: Sequence[str]) -> str:
    """``loss 0.61 -> 0.527, without optional layers, weight_decay 0.3 instead of 0.0003 (8 candidates)``.

    Args:
        acting: The names of the choices that act in what is taken.
    """
    if taken.candidate == first.candidate:
        return f"loss {loss(first):.3g}, what was found stays ({count} candidates)"
    before, after = first.candidate, taken.candidate
    options = {name: (before.architecture[name], after.architecture[name]) for name in acting}
    removed, added = (any(one[place] == SKIP != one[1 - place] for one in options.values()) for place in (1, 0))
    changes = ["without optional layers"] * removed + ["with optional layers"] * added
    alike = {name: new for name, (old, new) in options.items() if old != new and SKIP not in (old, new)}
    changes += dict.fromkeys(f"{name.rpartition('.')[2]} {option}" for name, option in alike.items())
    changes += [
        f"{name} {value:.3g} instead of {before.hyperparameters[name]:.3g}"
        for name, value in after.hyperparameters.items()
        if value != before.hyperparameters[name]
    ]
    return f"loss {loss(first):.3g} -> {loss(taken):.3g}, {', '.join(changes)} ({count} candidates)"
