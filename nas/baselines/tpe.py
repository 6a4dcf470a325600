"""The tree-structured Parzen estimator with successive halving: Optuna's sampler and pruner.

Bergstra et al. (2011), "Algorithms for Hyper-Parameter Optimization"; Li et al. (2020), "A System for Massively
Parallel Hyperparameter Tuning", whose successive halving is asynchronous.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.baselines.strategy import EncodedStrategy, Vector
from nas.candidate import Candidate, Range
from nas.configuration import optional_module
from nas.errors import UnusableInput, require
from nas.spaces.space import SearchSpace

ATTEMPTS = 10  # to find a suggestion that has not been made before
LOCK_SECONDS = 5  # after which the lock that a killed run has left on its journal is removed


class TPE(EncodedStrategy):
    """Asks Optuna's multivariate TPE sampler. If candidates are trained in rungs, Optuna's pruner ends some trainings.

    The study that decides is in memory and part of :meth:`state_dict`, and each sampler's seed comes from
    ``generator``, so that a resumed search goes on identically. Finished trials are also written to ``storage``.

    Args:
        startup: The number of random candidates before the sampler is asked.
        draws: The number of draws from which the sampler takes the one with the largest expected improvement.
        distinct: Whether a suggestion that was made before is replaced by another one, if one is found.
        reduction: In successive halving, one candidate in ``reduction`` goes on from a rung.
        batch: Candidates per ask, which can be evaluated in parallel.
        storage: Where the study is kept for others to read: a file (an Optuna journal; a relative path is in the run
            folder), a URL of any database that Optuna takes, such as ``sqlite:///studies.db``, or null for nowhere.
        study: The study's name there; null is the run folder's name.

    Raises:
        UnusableInput: Optuna is not installed.
    """

    def __init__(
        self,
        startup: int = 10,
        draws: int = 24,
        distinct: bool = True,
        reduction: int = 3,
        batch: int = 1,
        storage: str | None = None,
        study: str | None = None,
        *,
        space: SearchSpace,
        generator: torch.Generator,
    ) -> None:
        require(startup >= 1, "startup", startup, "it must be at least 1")
        require(draws >= 1, "draws", draws, "it must be at least 1")
        require(reduction >= 2, "reduction", reduction, "it must be at least 2")
        require(batch >= 1, "batch", batch, "it must be at least 1")
        super().__init__(space=space, generator=generator)
        self.optuna = optional_module("optuna", "hpo")
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.startup, self.draws, self.distinct, self.batch = startup, draws, distinct, batch
        self.storage, self.study_name = storage, study
        self.distributions = self._distributions()
        self.halving = self.optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction)
        self.reduction = reduction
        self.kept: KeptStudy | None = None
        self._begin()

    def _begin(self) -> None:
        self.records = self.optuna.storages.InMemoryStorage()
        self.study = self.optuna.create_study(storage=self.records, direction="maximize", pruner=self.halving)
        self.study_id = self.records.get_study_id_from_name(self.study.study_name)
        self.pruned: list[int] = []  # numbers of the pending trials that the pruner has ended
        self.seen: set[tuple[float, ...]] = set()

    @property
    def pruner(self) -> "TPE":
        return self

    def open(self, folder: Path) -> None:
        """Keep the study in ``storage`` from now on.

        Raises:
            UnusableInput: ``storage`` cannot be used.
        """
        if self.storage is not None:
            self.kept = KeptStudy(self.storage, self.study_name or folder.resolve().name, folder)
            self._keep_all()

    def _keep_all(self) -> None:
        if self.kept is not None:
            for trial in self.study.get_trials(deepcopy=False):
                if trial.state.is_finished():
                    self.kept.add(trial)

    def _distributions(self) -> dict[str, Any]:
        """Optuna's distribution for each entry of a vector, by name."""
        kinds = self.optuna.distributions
        found = {choice.name: kinds.CategoricalDistribution(choice.options) for choice in self.space.choices}
        found |= {name: kinds.CategoricalDistribution(values) for name, values in self._categorical.items()}
        for name in self.continuous:
            domain = self.space.ranges[name]
            assert isinstance(domain, Range)
            found[name] = kinds.FloatDistribution(domain.low, domain.high, log=domain.scale == "log")
        return found

    def propose(self) -> list[Vector]:
        """Vectors, each followed by the number of its trial."""
        sampler = self.optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.draws,
            multivariate=True,
            constant_liar=True,
            seed=self.whole(2**32),
        )
        return [self._proposed(sampler) for _ in range(self.batch)]

    def _proposed(self, sampler: Any) -> Vector:
        # The sampler is asked directly and not through suggest_categorical and suggest_float, because a suggestion may
        # have to be repaired or replaced before it becomes the trial's.
        trial = self.study.ask()
        free = {name: one for name, one in self.distributions.items() if not one.single()}
        for _ in range(ATTEMPTS):
            suggested = sampler.sample_relative(self.study, self._frozen(trial.number), free)
            vector = self.repaired(self._vector(suggested)) if suggested else self.random_vector()
            if not self.distinct or tuple(vector) not in self.seen:
                break
        return self._noted([*vector, float(trial.number)])

    def _noted(self, vector: Vector) -> Vector:
        """``vector``, which is seen from now on and whose trial has its parameters."""
        *entries, number = vector
        self.seen.add(tuple(entries))
        for name, value in self._parameters(entries).items():
            distribution = self.distributions[name]
            internal = distribution.to_internal_repr(value)
            self.records.set_trial_param(self._identity(int(number)), name, internal, distribution)
        return vector

    def rewritten(self, vector: Vector, entries: Mapping[int, float]) -> Vector:
        self.seen.discard(tuple(vector[: self.length]))
        return self._noted(super().rewritten(vector, entries))

    def ask(self) -> list[Candidate]:
        asked = super().ask()
        if self.kept is not None:
            for vector in self._pending:
                self.kept.check(self._frozen(int(vector[self.length])))
        return asked

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        """The candidates that Optuna's asynchronous successive halving promotes, among all that reached this rung."""
        numbers = {key: int(self._pending[key][self.length]) for key in scores}
        trials = {key: self.optuna.Trial(self.study, self._identity(number)) for key, number in numbers.items()}
        for key, trial in trials.items():
            trial.report(scores[key], self.reduction**rung)
        promoted = [key for key, trial in trials.items() if not trial.should_prune()]
        self.pruned += [number for key, number in numbers.items() if key not in promoted]
        return promoted

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        states = self.optuna.trial.TrialState
        for vector, score in zip(vectors, scores, strict=True):
            number = int(vector[self.length])
            if number in self.pruned:
                self.study.tell(number, state=states.PRUNED)
            else:
                self.study.tell(number, score)
            if self.kept is not None:
                self.kept.add(self._frozen(number))
        self.pruned = []

    def statistics(self) -> dict[str, float]:
        trials = self.study.get_trials(deepcopy=False)
        pruned = sum(trial.state == self.optuna.trial.TrialState.PRUNED for trial in trials)
        return {"study/trials": float(len(trials)), "study/pruned": float(pruned)}

    def _identity(self, number: int) -> int:
        """A trial's key in :attr:`records`."""
        return self.records.get_trial_id_from_study_id_trial_number(self.study_id, number)

    def _frozen(self, number: int) -> Any:
        return self.records.get_trial(self._identity(number))

    def _vector(self, suggested: Mapping[str, Any]) -> Vector:
        """The sampler's suggestion as a vector; the sampler leaves out choices with a single option."""
        vector = []
        for name, distribution in self.distributions.items():
            if name in self.continuous:
                vector.append(self.space.ranges[name].to_unit(suggested[name]))
            else:
                vector.append(float(distribution.to_internal_repr(suggested[name])) if name in suggested else 0.0)
        return vector

    def _parameters(self, vector: Vector) -> dict[str, Any]:
        """The inverse of :meth:`_vector`: options and values by name."""
        parameters: dict[str, Any] = {}
        for entry, (name, distribution) in zip(vector, self.distributions.items(), strict=True):
            place = name in self.continuous
            parameters[name] = self.space.ranges[name].from_unit(entry) if place else distribution.choices[int(entry)]
        return parameters

    def state_dict(self) -> dict[str, Any]:
        trials = [
            {
                "state": trial.state.name,
                "value": trial.value,
                "params": trial.params,
                "intermediate_values": trial.intermediate_values,
                "system_attrs": trial.system_attrs,
            }
            for trial in self.study.get_trials()
        ]
        own = {"trials": trials, "pruned": list(self.pruned), "seen": sorted(self.seen)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._begin()
        for trial in state["trials"]:
            kind = self.optuna.trial.TrialState[trial["state"]]
            entries = {"state": kind, "distributions": self.distributions}
            self.study.add_trial(self.optuna.trial.create_trial(**trial | entries))
        self.pruned = list(state["pruned"])
        self.seen = {tuple(vector) for vector in state["seen"]}
        self._keep_all()


class KeptStudy:
    """An Optuna study in a file or a database, written trial by trial during a search, for others to read.

    Trials come in the order of their numbers; a trial that the study holds already must be the same. So a search that
    is resumed, or started again, finds its own trials and adds the missing ones.

    Args:
        storage: A file (a relative path is below ``folder``) or a URL that Optuna takes.
        name: The study's name.
        folder: The run folder.

    Raises:
        UnusableInput: The storage cannot be opened.
    """

    def __init__(self, storage: str, name: str, folder: Path) -> None:
        optuna = optional_module("optuna", "hpo")
        self.storage, self.name = storage, name
        try:
            kept = storage if "://" in storage else _journal(folder / storage)
            self.study = optuna.create_study(storage=kept, study_name=name, direction="maximize", load_if_exists=True)
            self.there: list[Any] = self.study.get_trials(deepcopy=False)
        except Exception as error:  # databases raise errors of any kind
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnusableInput(f"method.strategy.storage={storage} cannot be used: {first_line}") from error

    def check(self, trial: Any) -> None:
        """Raise ``UnusableInput`` if the study holds another trial of this number."""
        if trial.number < len(self.there) and self.there[trial.number].params != trial.params:
            sentence = f"The study {self.name} in {self.storage} holds the trials of another search"
            raise UnusableInput(f"{sentence}: give method.strategy.study another name.")

    def add(self, trial: Any) -> None:
        """Append a finished trial, unless the study holds it already."""
        self.check(trial)
        if trial.number >= len(self.there):
            self.study.add_trial(trial)
            self.there.append(trial)


def _journal(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = optional_module("optuna.storages.journal", "hpo")
    lock = journal.JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
    storage: Any = journal.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
    return storage
