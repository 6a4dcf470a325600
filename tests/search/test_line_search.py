"""The line search: which values are tried, what is taken, and searches of every kind that end in one."""

import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import train_search
from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.evaluation import scratch
from nas.evaluation.evaluation import Evaluation, EvaluationCache
from nas.evaluation.training_setup import TrainingSetup
from nas.run.candidate_file import read_candidate_file
from nas.run.checkpoint import CheckpointFolder
from nas.search.line_search import Lines
from nas.search.trainings import Trainer, best, in_words
from nas.stopping import Stopped
from tests.killing import assert_same_bytes, killed_before_a_training

RATE = "learning_rate"
RANGES = {RATE: Range(1e-5, 0.5, "log"), "dropout": Range(0.0, 0.5, "logit")}
CONF = Path(__file__).resolve().parents[2] / "conf"


def found_at(rate: float, dropout: float = 0.1) -> Candidate:
    return Candidate(Architecture("macro", {}), Hyperparameters({RATE: rate, "dropout": dropout}))


def tried(
    lines: Lines, found: Candidate, optimum: tuple[float, float], ranges: dict[str, Range] = RANGES
) -> list[Evaluation]:
    """All trials where the loss rises with the distance from ``optimum``, of the learning rate on a log scale."""
    trials = list[Evaluation]()
    while (trial := lines.next(found, trials, ranges)) is not None:
        rate, dropout = trial.hyperparameters[RATE], trial.hyperparameters["dropout"]
        distance = abs(math.log(rate / optimum[0])) + abs(dropout - optimum[1])
        trials.append(Evaluation(trial, {"loss": 0.1 + distance}))
    return trials


def rates(trials: list[Evaluation]) -> list[float]:
    return [trial.candidate.hyperparameters[RATE] for trial in trials]


@pytest.mark.parametrize("rate", [1e-3, 5e-3, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.4])
def test_the_taken_values_are_the_tried_ones_nearest_to_the_optimum(rate: float, dropout: float) -> None:
    lines, found = Lines({RATE: 3.0, "dropout": 0.25}, 20), found_at(rate, dropout)
    trials = tried(lines, found, (0.02, 0.3))
    taken = best(trials).candidate.hyperparameters
    assert abs(math.log(taken[RATE] / 0.02)) <= math.log(3.0) / 2 + 1e-9
    assert abs(taken["dropout"] - 0.3) <= 0.25 / 2 + 1e-9
    assert lines.unfinished(found, trials, RANGES) == []
    assert len(trials) == len({trial.candidate for trial in trials})  # nothing is trained twice


def test_three_trials_confirm_a_good_rate() -> None:
    trials = tried(Lines({RATE: 2.0}, 9), found_at(0.02), (0.02, 0.1))
    assert rates(trials) == pytest.approx([0.02, 0.04, 0.01])


def test_what_is_not_learned_stays() -> None:
    ranges = {RATE: RANGES[RATE]}
    trials = tried(Lines({"dropout": 0.2, RATE: 3.0}, 9), found_at(0.01), (0.02, 0.4), ranges)
    assert {trial.candidate.hyperparameters["dropout"] for trial in trials} == {0.1}
    assert Lines({"dropout": 0.2}, 9).next(found_at(0.01), [], ranges) is None


def test_too_few_trials_leave_hyperparameters_unfinished() -> None:
    lines, found = Lines({RATE: 3.0, "dropout": 0.25}, 2), found_at(1e-4)
    trials = tried(lines, found, (0.1, 0.3))
    assert rates(trials) == pytest.approx([1e-4, 3e-4])
    assert lines.unfinished(found, trials, RANGES) == [RATE, "dropout"]
    enough = tried(Lines({RATE: 3.0, "dropout": 0.25}, 8), found_at(0.1), (0.1, 0.5))[:4]
    assert lines.unfinished(found_at(0.1), enough, RANGES) == ["dropout"]


def test_the_last_step_ends_at_the_end_of_the_range() -> None:
    trials = tried(Lines({RATE: 3.0}, 9), found_at(0.2), (10.0, 0.1))
    assert rates(trials) == pytest.approx([0.2, 0.5])
    trials = tried(Lines({RATE: 3.0}, 9), found_at(0.4), (10.0, 0.1))  # less than half a step is left
    assert rates(trials) == pytest.approx([0.4, 0.4 / 3])


def test_a_training_that_broke_off_is_not_taken() -> None:
    trials = [Evaluation(found_at(rate), {"loss": loss}) for rate, loss in ((0.5, math.inf), (0.1, 0.3))]
    assert best(trials) is trials[1]
    assert in_words(trials, trials[1].candidate) == "learning_rate 0.5: loss inf; learning_rate 0.1: loss 0.3 (taken)"


@pytest.mark.parametrize(("key", "value"), [("epochs", "0"), ("steps.dropout", "0.0"), ("trials", "0")])
def test_refused_settings(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=rf"^method\.{re.escape(key)}={re.escape(value)} is not allowed"):
        train_search.run(small_search(f"method.{key}={value}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_steps_there_is_nothing_to_search() -> None:
    with pytest.raises(InvalidValue, match="steps="):
        Lines({}, 3)


def test_a_factor_on_a_log_scale_must_be_above_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"^method\.steps\.learning_rate=0\.5 "):
        train_search.run(small_search("method.steps.learning_rate=0.5"), tmp_path)


INNER: dict[str, tuple[str, ...]] = {
    "gradient": (),
    "multi start": (
        "method.inner._target_=nas.search.MultiStart",
        "+method.inner.starts=[{learning_rate: 1e-3}, {learning_rate: 1e-2}]",
        "+method.inner.start_epochs=1",
    ),
    "black box": (
        "method.inner._target_=nas.baselines.BlackBoxSearch",
        "+method.inner.strategy={_target_: nas.baselines.RandomSearch, _partial_: true, batch: 1}",
        "+method.inner.patience=1",
        "evaluation.epochs=1",
        "budget.evaluations=50",
    ),
}


REMARKS = {
    "gradient": {"interventions"},
    "multi start": {"interventions", "validation loss by start"},
    "black box": {"best score", "ended"},
}


def small_search(*more: str) -> DictConfig:
    overrides = ["experiment=debug", "method=tuned", "search.epochs=1", "final.epochs=2", "tracking.console=quiet"]
    overrides += ["data.split={train: 500, validation: 200, test: 64}"]
    overrides += ["hyperparameters.learning_rate.initial=1e-3", "method.trials=3", "search.warmup_epochs=0"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", [*overrides, *more, "tracking.tensorboard=false", "device=cpu"])


def recorded(folder: Path, tag: str) -> list[float]:
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    return [float(row[3]) for row in rows if row[2] == tag]


def test_the_candidate_carries_the_best_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, setups, train = small_search(), set[TrainingSetup](), scratch.train

    def noting(setup: TrainingSetup, *arguments: Any) -> scratch.CandidateTraining:
        setups.add(setup)
        return train(setup, *arguments)

    monkeypatch.setattr(scratch, "train", noting)
    result, _, _ = train_search.search(config, tmp_path)
    found = read_candidate_file(tmp_path / "candidate.json").candidate
    assert result.candidate == found
    seeds = {setup.seed_for(found_at(rate)) for setup in setups for rate in (0.1, 0.2)}
    assert seeds == {config.seed}  # common random numbers
    rates_tried, losses = (recorded(tmp_path, f"line_search/{name}") for name in (RATE, "validation_loss"))
    assert len(rates_tried) == 3
    taken = rates_tried[losses.index(min(losses))]
    assert found.hyperparameters[RATE] == taken > 2e-3  # from a start that is far too low
    kept = list(EvaluationCache(tmp_path / "line_search.jsonl"))
    assert [trial.metrics["loss"] for trial in kept] == losses
    spent = recorded(tmp_path, "budget/samples")
    assert spent[-1] - spent[-4] == sum(trial.cost.samples for trial in kept)
    assert result.cost.samples == result.metrics["samples"] == spent[-1]
    assert result.remarks["line search"] == in_words(kept, found)
    assert result.step == last_checkpoint(tmp_path), "its trainings are no steps of the search"


def last_checkpoint(folder: Path) -> int:
    return CheckpointFolder(folder / "checkpoints").steps()[-1]


@pytest.mark.parametrize("inner", INNER)
def test_any_search_can_be_followed_by_one_and_goes_on_between_two_trainings(inner: str, tmp_path: Path) -> None:
    config = small_search(*INNER[inner])
    whole = killed_before_a_training(lambda folder: train_search.search(config, folder)[0], 2, tmp_path)
    assert whole.candidate == read_candidate_file(tmp_path / "whole" / "candidate.json").candidate
    assert len(recorded(tmp_path / "whole", "line_search/validation_loss")) == 3
    assert whole.remarks["line search"].count("loss") == 3
    assert whole.remarks.keys() >= REMARKS[inner]
    assert RATE in whole.settled


def test_a_signal_stops_it_between_two_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, trained, train = small_search(), list[Candidate](), Trainer.train

    def stopping(trainer: Trainer, candidate: Candidate) -> Evaluation:
        trained.append(candidate)
        if len(trained) == 1:
            signal.raise_signal(signal.SIGTERM)
        return train(trainer, candidate)

    monkeypatch.setattr(Trainer, "train", stopping)
    with pytest.raises(Stopped) as stop:
        train_search.search(config, tmp_path / "parts")
    assert stop.value.step == last_checkpoint(tmp_path / "parts") + 1
    assert len(list(EvaluationCache(tmp_path / "parts" / "line_search.jsonl"))) == len(trained) == 1
    train_search.search(config, tmp_path / "parts")
    assert len(trained) == 3
    train_search.search(config, tmp_path / "whole")
    assert_same_bytes(tmp_path / "parts", tmp_path / "whole", "candidate.json", "metrics.csv")


def test_the_budget_is_that_of_both(tmp_path: Path) -> None:
    plain = ("search.settled_by=parameters", "discretisation=strongest")  # what a budget would cut short
    plenty, _, _ = train_search.search(small_search(*plain), tmp_path / "plenty")
    kept = [trial.cost.samples for trial in EvaluationCache(tmp_path / "plenty" / "line_search.jsonl")]
    limit = plenty.cost.samples - kept[-1]
    budget = f"budget.samples={limit}"
    result, _, _ = train_search.search(small_search(*plain, budget), tmp_path / "poor")
    assert result.cost.samples <= limit
    assert len(recorded(tmp_path / "poor", "line_search/validation_loss")) == 2
    assert result.settled[RATE] == "its line search ended before it was between worse neighbours"


def test_where_nothing_is_learned_the_search_is_all(tmp_path: Path) -> None:
    tuned, found, _ = train_search.search(small_search("hyperparameters=fixed"), tmp_path / "tuned")
    assert "line search" not in tuned.remarks
    config = small_search("hyperparameters=fixed")
    config.method = {"_target_": "nas.search.GradientSearch"}
    plain, alone, _ = train_search.search(config, tmp_path / "plain")
    assert found.candidate == alone.candidate
    assert tuned.settled == plain.settled
