"""An Optuna study in a file or a database, written trial by trial while a search runs, for others to read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.baselines.strategy import EncodedStrategy, Vector
from nas.candidate import Range
from nas.configuration import optional_module
from nas.errors import UnusableInput, require
from nas.spaces.space import SearchSpace

LOCK_SECONDS = 5  # after which the lock that a killed run has left on its journal is taken away


class KeptStudy:
    """Takes trials in the order of their numbers; one that is there already must be the same.

    So a search that is resumed, or repeated from its start, finds its own trials again and adds what is missing.

    Args:
        storage: A file, below ``folder`` where it is relative, or a URL that Optuna takes.
        name: Of the study.
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
        except Exception as error:  # databases raise what they like
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnusableInput(f"method.strategy.storage={storage} cannot be used: {first_line}") from error

    def check(self, trial: Any) -> None:
        """Raise ``UnusableInput`` where the study holds another trial of this number."""
        if trial.number < len(self.there) and self.there[trial.number].params != trial.params:
            sentence = f"The study {self.name} in {self.storage} holds the trials of another search"
            raise UnusableInput(f"{sentence}: give method.strategy.study another name.")

    def add(self, trial: Any) -> None:
        """Append a finished trial, unless it is there."""
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


ATTEMPTS = 10  # at a suggestion that has not been made before


class TPE(EncodedStrategy):
    """Asks Optuna's multivariate TPE sampler; where candidates are trained in rungs, Optuna's pruner ends some of them.

    The study that decides is in memory and part of :meth:`state_dict`, and each sampler's seed comes from
    ``generator``: a resumed search goes on identically. Told trials are also written to ``storage``.

    Args:
        startup: Random candidates before the sampler is asked.
        draws: Of these the sampler takes the one with the largest expected improvement.
        distinct: Whether a suggestion that was made before is replaced by another one, where one is found.
        reduction: Of the successive halving: one in so many goes on from a rung.
        batch: Candidates per ask, which can be evaluated at the same time.
        storage: Where the study is kept for others to read: a file (an Optuna journal; a relative path is in the run
            folder), a URL of any database that Optuna takes, such as ``sqlite:///studies.db``, or null for nowhere.
        study: Its name there; null is the run folder's.

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
        self.pruner = self.optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction)
        self.reduction = reduction
        self.kept: KeptStudy | None = None
        self._begin()

    def _begin(self) -> None:
        self.records = self.optuna.storages.InMemoryStorage()
        self.study = self.optuna.create_study(storage=self.records, direction="maximize", pruner=self.pruner)
        self.study_id = self.records.get_study_id_from_name(self.study.study_name)
        self.pruned: list[int] = []  # numbers of pending trials that the pruner has ended
        self.seen: set[tuple[float, ...]] = set()

    def open(self, folder: Path) -> None:
        """Keep the study in ``storage`` from now on; a search with a run folder calls it once.

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
        """Optuna's view of each entry of a vector."""
        kinds = self.optuna.distributions
        found = {choice.name: kinds.CategoricalDistribution(choice.options) for choice in self.space.choices}
        found |= {name: kinds.CategoricalDistribution(values) for name, values in self._categorical.items()}
        for name in self.continuous:
            domain = self.space.ranges[name]
            assert isinstance(domain, Range)
            found[name] = kinds.FloatDistribution(domain.low, domain.high, log=domain.scale == "log")
        return found

    def propose(self) -> list[Vector]:
        """Vectors with the number of their trial behind them."""
        sampler = self.optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.draws,
            multivariate=True,
            constant_liar=True,
            seed=self.whole(2**32),
        )
        return [self._proposed(sampler) for _ in range(self.batch)]

    def _proposed(self, sampler: Any) -> Vector:
        # The sampler is asked directly rather than through suggest_categorical and suggest_float: a suggestion may have
        # to be repaired, or replaced by another one, before it becomes the trial's.
        trial = self.study.ask()
        free = {name: one for name, one in self.distributions.items() if not one.single()}
        for _ in range(ATTEMPTS):
            suggested = sampler.sample_relative(self.study, self._frozen(trial.number), free)
            vector = self.repaired(self._vector(suggested)) if suggested else self.random_vector()
            if not self.distinct or tuple(vector) not in self.seen:
                break
        self.seen.add(tuple(vector))
        identity = self._identity(trial.number)
        for name, value in self._parameters(vector).items():
            distribution = self.distributions[name]
            self.records.set_trial_param(identity, name, distribution.to_internal_repr(value), distribution)
        if self.kept is not None:
            self.kept.check(self._frozen(trial.number))
        return [*vector, float(trial.number)]

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        """Those that Optuna's asynchronous successive halving promotes, among all that have come as far."""
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
        """What the sampler suggests as a vector; it leaves out choices with a single option."""
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
