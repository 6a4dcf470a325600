"""TPE: the study it keeps, its pruner, and what it does without Optuna."""

import sys
from pathlib import Path

import optuna
import pytest
from joint_spaces import SPACES, seeded, small_space

from nas.baselines.strategy import Scored
from nas.baselines.tpe import TPE
from nas.candidate import Candidate
from nas.errors import InvalidValue, UnusableInput


def advance(strategy: TPE, rounds: int) -> list[Candidate]:
    asked = []
    for _ in range(rounds):
        candidates = strategy.ask()
        asked += candidates
        strategy.tell([Scored(one, sum(strategy.space.encode(one))) for one in candidates])
    return asked


def stored(storage: str) -> list[optuna.trial.FrozenTrial]:
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def journal(path: Path) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name=path.parent.name, storage=storage).trials


def assert_holds(trials: list[optuna.trial.FrozenTrial], asked: list[Candidate]) -> None:
    assert [trial.number for trial in trials] == list(range(len(asked)))
    for trial, candidate in zip(trials, asked, strict=True):
        assert {name: trial.params[name] for name in candidate.architecture} == dict(candidate.architecture)
        for name, value in candidate.hyperparameters.items():
            assert trial.params[name] == pytest.approx(value)
        assert trial.state == optuna.trial.TrialState.COMPLETE


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_the_study_is_kept_and_taken_up_again(tmp_path: Path, kind: str) -> None:
    """A search that was killed after its checkpoint finds more trials in its study than it knows of."""
    space = SPACES["macro"]()
    folder = tmp_path / "run"
    storage = "study.journal" if kind == "journal" else f"sqlite:///{tmp_path}/studies.db"
    generator = seeded()
    strategy = TPE(startup=3, storage=storage, space=space, generator=generator)
    strategy.open(folder)
    asked = advance(strategy, 5)
    state, position = strategy.state_dict(), generator.get_state()
    lost = advance(strategy, 2)

    restored = TPE(startup=3, storage=storage, space=space, generator=generator)
    restored.open(folder)
    restored.load_state_dict(state)
    generator.set_state(position)
    continued = advance(restored, 4)
    assert continued[:2] == lost
    assert_holds(journal(folder / storage) if kind == "journal" else stored(storage), asked + continued)


def test_a_study_that_was_lost_is_written_again(tmp_path: Path) -> None:
    space = SPACES["macro"]()
    generator = seeded()
    strategy = TPE(storage="study.journal", space=space, generator=generator)
    strategy.open(tmp_path / "run")
    asked = advance(strategy, 3)
    (tmp_path / "run" / "study.journal").unlink()
    restored = TPE(storage="study.journal", space=space, generator=generator)
    restored.open(tmp_path / "run")
    restored.load_state_dict(strategy.state_dict())
    assert_holds(journal(tmp_path / "run" / "study.journal"), asked)


def test_another_search_s_study_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    for seed in (0, 1):
        strategy = TPE(storage=storage, study="mine", space=SPACES["macro"](), generator=seeded(seed))
        strategy.open(tmp_path)
        if seed == 0:
            advance(strategy, 2)
        else:
            with pytest.raises(UnusableInput, match=r"method\.strategy\.study"):
                strategy.ask()


@pytest.mark.parametrize("storage", ["nonsense://somewhere", "sqlite:////no/such/folder/studies.db"])
def test_a_storage_that_cannot_be_used_is_refused(storage: str, tmp_path: Path) -> None:
    strategy = TPE(storage=storage, space=small_space([2]), generator=seeded())
    with pytest.raises(UnusableInput, match=r"method\.strategy\.storage"):
        strategy.open(tmp_path)


def test_successive_halving_promotes_the_best_of_all_that_came_as_far() -> None:
    strategy = TPE(startup=9, batch=9, reduction=3, space=SPACES["macro"](), generator=seeded())
    assert strategy.pruner is strategy
    for turn in range(3):
        candidates = strategy.ask()
        scores = {key: float(key) for key in range(9)}
        first = strategy.survivors(0, scores)
        assert set(first) <= set(range(9))
        assert 8 in first  # the best one
        second = strategy.survivors(1, {key: scores[key] for key in first})
        assert set(second) <= set(first)
        if turn > 0:  # now there are earlier ones to compare with
            assert len(first) <= 4
            assert 0 not in first
        strategy.tell([Scored(one, float(key)) for key, one in enumerate(candidates)])
        pruned = 9 - len(second)
        assert strategy.statistics()["study/pruned"] >= pruned
    states = [trial.state for trial in strategy.study.trials]
    assert states.count(optuna.trial.TrialState.PRUNED) == strategy.statistics()["study/pruned"] > 9


def test_a_restored_study_prunes_alike() -> None:
    outcomes = []
    for restore in (False, True):
        generator = seeded()
        strategy = TPE(batch=6, space=SPACES["macro"](), generator=generator)
        for turn in range(3):
            candidates = strategy.ask()
            if turn == 2 and restore:
                state = strategy.state_dict()
                strategy = TPE(batch=6, space=SPACES["macro"](), generator=generator)
                strategy.load_state_dict(state)
                assert strategy.ask() == candidates
            scores = {key: sum(strategy.space.encode(one)) for key, one in enumerate(candidates)}
            promoted = strategy.survivors(0, scores)
            strategy.tell([Scored(one, scores[key]) for key, one in enumerate(candidates)])
        outcomes.append((promoted, strategy.ask()))
    assert outcomes[0] == outcomes[1]


def test_suggestions_do_not_repeat_while_there_are_others() -> None:
    strategy = TPE(startup=3, space=SPACES["nasbench201"](), generator=seeded())
    asked = advance(strategy, 60)
    assert len(set(asked)) == 60


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("optuna", "nas.baselines.tpe.TPE"),
        ("deap", "nas.baselines.genetic.Genetic"),
        ("deap", "nas.baselines.mu_plus_lambda.MuPlusLambda"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package: str, make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.configuration import build

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # where a shell would find this interpreter
    with pytest.raises(UnusableInput, match=rf"{package}.*: python -m pip install -e \".\[hpo\]\""):
        build({"_target_": make}, "method.strategy", space=small_space([2]), generator=seeded())


@pytest.mark.parametrize(
    ("settings", "key"), [({"startup": 0}, "startup"), ({"draws": 0}, "draws"), ({"reduction": 1}, "reduction")]
)
def test_impossible_settings_are_refused(settings: dict[str, int], key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        TPE(**settings, space=small_space([2]), generator=seeded())  # type: ignore[arg-type]
    assert caught.value.key == key


def test_the_study_has_the_enqueued_values_and_takes_them_up_again(tmp_path: Path) -> None:
    space = SPACES["macro"]()
    for _ in range(2):  # the second search was killed before its first checkpoint, and finds what the first has written
        strategy = TPE(startup=3, storage="study.journal", space=space, generator=seeded())
        strategy.enqueue({"learning_rate": 0.005, "batch_size": 64, "dropout": 0.9})
        strategy.open(tmp_path / "run")
        asked = advance(strategy, 3)
    assert_holds(journal(tmp_path / "run" / "study.journal"), asked)
    first = strategy.study.trials[0].params
    assert (first["learning_rate"], first["batch_size"], first["dropout"]) == (pytest.approx(0.005), 64, 0.8)
    assert len(strategy.seen) == 3
