"""Evaluation by a surrogate: what a training would have come to, foretold from a truth in a millisecond."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from nas.candidate import Candidate, Categorical, Domain, Range
from nas.errors import require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Pruner
from nas.evaluation.objective import Objective
from nas.evaluation.surrogate import Surrogate
from nas.evaluation.training_setup import TrainingSetup
from nas.evaluation.truth import Truth, read_truth
from nas.spaces.space import SearchSpace

log = logging.getLogger(__name__)


class SurrogateLookup(Evaluator):
    """Asks a :class:`~nas.evaluation.surrogate.Surrogate` instead of training, at the price of the training.

    Metrics are ``loss`` and ``accuracy`` on the validation split after ``epochs``, ``test_loss`` and ``test_accuracy``
    after the whole training, whatever ``epochs`` is, ``parameters`` and ``multiply_adds``.

    Args:
        path: A truth, see :mod:`~nas.evaluation.truth`. The run's configuration should be the one that it was made with
            (``experiment=truth_mnist``): space and hyperparameters are checked, the price is by the run's own images.
        epochs: Epochs of a candidate's training; null: all that the truth's trainings had. Fewer are read off their
            curve, which is no training with a schedule of its own.
        rungs: Epochs after which a pruner ends the training of some candidates.
        noise: Whether validation metrics differ from the mean as repeated trainings did. A candidate's are the same
            whenever it is asked for in runs of one seed. Test metrics are always the mean.
        space: The run's space.
        setup: Prices of trainings, and the values of hyperparameters that candidates do not carry.
        objective: Its score is what a pruner compares.

    Raises:
        InvalidValue: The run's space or hyperparameters, the epochs or the rungs do not fit the truth.
        UnusableInput: The file is no truth.
    """

    batch = 1000

    def __init__(
        self,
        path: str,
        epochs: int | None = None,
        rungs: Sequence[int] = (),
        noise: bool = True,
        *,
        space: SearchSpace,
        setup: TrainingSetup,
        objective: Objective,
    ) -> None:
        truth = truth_at(path)
        last = truth.epochs if epochs is None else epochs
        require(
            1 <= last <= truth.epochs, "epochs", epochs, f"it must be null or from 1 to {truth.epochs}, the truth's"
        )
        rising = all(earlier < later for earlier, later in zip([0, *rungs], [*rungs, last], strict=True))
        require(rising, "rungs", list(rungs), f"they must be rising numbers of epochs, from 1 to below epochs={last}")
        require_fit(space, setup.held, truth)
        self.surrogate = surrogate_at(path, (*rungs, last))
        allowed = "the truth has no repeated trainings, which tell the noise: noise=false"
        require(not noise or len(self.surrogate.noise) > 0, "noise", noise, allowed)
        # The truth's own space, which all searches of this process share: no network is counted twice.
        self.setup = replace(setup, space=truth.space)
        self.objective, self.rungs, self.noise = objective, (*rungs, last), noise
        log.info(f"{Path(path).name}: {self.surrogate.quality.in_words()}")
        if last < truth.epochs:
            log.info(
                f"losses after {last} of {truth.epochs} epochs are read off the curve of the whole training, "
                f"whose learning rate had not come down yet: no training of {last} epochs"
            )

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        values, last = self._values(candidates), len(self.rungs) - 1
        if pruner is None:
            return [self._evaluation(*pair, last, 1) for pair in zip(candidates, values, strict=True)]
        ended = [last] * len(candidates)
        running = list(range(len(candidates)))
        for rung in range(last):
            scores = {
                one: self.objective.score(self._evaluation(candidates[one], values[one], rung, rung + 1))
                for one in running
            }
            kept = pruner.survivors(rung, scores)
            for one in set(running) - set(kept):
                ended[one] = rung
            running = [one for one in running if one in kept]
        found = zip(candidates, values, ended, strict=True)
        return [self._evaluation(candidate, row, rung, rung + 1) for candidate, row, rung in found]

    def price(self, candidate: Candidate) -> Cost:
        return self.setup.price(candidate, self.rungs[-1], len(self.rungs))

    def _values(self, candidates: Sequence[Candidate]) -> list[np.ndarray]:
        """Each candidate's targets in natural units, (targets,), with noise where it belongs."""
        whole = [Candidate(one.architecture, self.setup.hyperparameters(one)) for one in candidates]
        noise = self.surrogate.noise * [name.startswith("validation") for name, _ in self.surrogate.targets]
        found = []
        for candidate, values in zip(candidates, self.surrogate.means(whole), strict=True):
            if self.noise:
                generator = np.random.default_rng(self.setup.seed_for(candidate))
                values = values + generator.standard_normal(len(noise)) @ noise
            found.append(self.surrogate.natural(values))
        return found

    def _evaluation(self, candidate: Candidate, values: np.ndarray, rung: int, measurements: int) -> Evaluation:
        """The evaluation of ``candidate`` if its training ends at ``rung``."""
        epoch, found = self.rungs[rung], dict(zip(self.surrogate.targets, map(float, values), strict=True))
        metrics = {
            "loss": found["validation_loss", epoch],
            "accuracy": found["validation_accuracy", epoch],
            "test_loss": float(values[-2]),
            "test_accuracy": float(values[-1]),
            **self.setup.size(candidate.architecture),
            "fidelity": epoch / self.rungs[-1],
        }
        return Evaluation(candidate, metrics, self.setup.price(candidate, epoch, measurements))


def require_fit(space: SearchSpace, held: Mapping[str, float], truth: Truth) -> None:
    """Refuse a run whose candidates the rows of ``truth`` say nothing about.

    Args:
        space: The run's space.
        held: The values of the hyperparameters that its candidates do not carry.

    Raises:
        InvalidValue: Space, images or classes differ, or a hyperparameter is unknown to the truth or leaves its range.
    """
    advice = "take the configuration that it was made with, such as experiment=truth_mnist"
    same = space.describe() == truth.space.describe()
    require(same, "", space.name, f"the truth is of another space or of other images: {advice}")
    for name, domain in space.ranges.items():
        allowed = f"the truth has only {', '.join(truth.space.ranges) or 'none'}: {advice}"
        require(name in truth.space.ranges, f"hyperparameters.{name}", in_words(domain), allowed)
    for name, outer in truth.space.ranges.items():
        inner = space.ranges.get(name, held.get(name))
        allowed = f"the truth knows {in_words(outer)}"
        require(is_within(inner, outer), f"hyperparameters.{name}", in_words(inner), allowed)
    for name, entry in truth.configuration.get("hyperparameters", {}).items():
        if name in held and name not in truth.space.ranges:
            allowed = f"the truth was made with {entry['initial']:g}"
            require(held[name] == entry["initial"], f"hyperparameters.{name}", held[name], allowed)


def is_within(inner: Domain | float | None, outer: Domain) -> bool:
    """Whether every value of ``inner`` is one of ``outer``; None is no value."""
    if isinstance(inner, Range):
        return isinstance(outer, Range) and outer.contains(inner.low) and outer.contains(inner.high)
    values = inner.options if isinstance(inner, Categorical) else (inner,)
    return all(value is not None and outer.contains(value) for value in values)


def in_words(domain: Domain | float | None) -> str:
    """``0.001 to 0.5``, ``16, 32``, or the one value that there is."""
    if isinstance(domain, Range):
        return f"{domain.low:g} to {domain.high:g}"
    values = domain.options if isinstance(domain, Categorical) else (domain,)
    return ", ".join("none" if value is None else f"{value:g}" for value in values)


def surrogate_at(path: str, epochs: Sequence[int]) -> Surrogate:
    """The surrogate of the truth at ``path``, fitted once in this process for all searches that ask for it."""
    return _surrogate(path, _changed(path), tuple(epochs))


def truth_at(path: str) -> Truth:
    """The truth at ``path``, read once in this process as long as it does not change.

    Raises:
        InvalidValue: There is no such file.
        UnusableInput: It is no truth.
    """
    return _truth(path, _changed(path))


def _changed(path: str) -> tuple[int, int]:
    require(Path(path).is_file(), "path", path, "it must be a file that scripts/make_truth.py wrote")
    state = Path(path).stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=8)
def _truth(path: str, changed: tuple[int, int]) -> Truth:
    return read_truth(Path(path))


@lru_cache(maxsize=8)
def _surrogate(path: str, changed: tuple[int, int], epochs: tuple[int, ...]) -> Surrogate:
    return Surrogate(_truth(path, changed), epochs)
