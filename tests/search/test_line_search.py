"""Rehearsals: which learning rates are tried, what is taken, and a search that ends in one."""

import math
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import train_search
from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.evaluation import scratch
from nas.evaluation.evaluation import Evaluation
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.run.candidate_file import read_candidate_file
from nas.search.line_search import Rehearsal, best, in_words

RATE = "learning_rate"
RANGES = {RATE: Range(1e-5, 0.5, "log"), "dropout": Range(0.0, 0.5, "logit")}
CONF = Path(__file__).resolve().parents[2] / "conf"


def found_at(rate: float, dropout: float = 0.1) -> Candidate:
    return Candidate(Architecture("macro", {}), Hyperparameters({RATE: rate, "dropout": dropout}))


def rehearsed(
    rehearsal: Rehearsal, found: Candidate, optimum: tuple[float, float], ranges: dict[str, Range] = RANGES
) -> list[Evaluation]:
    """All trials where the loss rises with the distance from ``optimum``, of the learning rate on a log scale."""
    trials = list[Evaluation]()
    while (trial := rehearsal.next(found, trials, ranges)) is not None:
        rate, dropout = trial.hyperparameters[RATE], trial.hyperparameters["dropout"]
        distance = abs(math.log(rate / optimum[0])) + abs(dropout - optimum[1])
        trials.append(Evaluation(trial, {"loss": 0.1 + distance}))
    return trials


def rates(trials: list[Evaluation]) -> list[float]:
    return [trial.candidate.hyperparameters[RATE] for trial in trials]


@pytest.mark.parametrize("rate", [1e-3, 5e-3, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.4])
def test_the_taken_values_are_the_tried_ones_nearest_to_the_optimum(rate: float, dropout: float) -> None:
    rehearsal, found = Rehearsal(1, {RATE: 3.0, "dropout": 0.25}, 20), found_at(rate, dropout)
    trials = rehearsed(rehearsal, found, (0.02, 0.3))
    taken = best(trials).candidate.hyperparameters
    assert abs(math.log(taken[RATE] / 0.02)) <= math.log(3.0) / 2 + 1e-9
    assert abs(taken["dropout"] - 0.3) <= 0.25 / 2 + 1e-9
    assert rehearsal.unfinished(found, trials, RANGES) == []
    assert len(trials) == len({trial.candidate for trial in trials})  # nothing is trained twice


def test_three_trials_confirm_a_good_rate() -> None:
    trials = rehearsed(Rehearsal(1, {RATE: 2.0}, 9), found_at(0.02), (0.02, 0.1))
    assert rates(trials) == pytest.approx([0.02, 0.04, 0.01])


def test_what_is_not_learned_stays() -> None:
    ranges = {RATE: RANGES[RATE]}
    trials = rehearsed(Rehearsal(1, {"dropout": 0.2, RATE: 3.0}, 9), found_at(0.01), (0.02, 0.4), ranges)
    assert {trial.candidate.hyperparameters["dropout"] for trial in trials} == {0.1}
    assert Rehearsal(1, {"dropout": 0.2}, 9).next(found_at(0.01), [], ranges) is None


def test_too_few_trials_leave_hyperparameters_unfinished() -> None:
    rehearsal, found = Rehearsal(1, {RATE: 3.0, "dropout": 0.25}, 2), found_at(1e-4)
    trials = rehearsed(rehearsal, found, (0.1, 0.3))
    assert rates(trials) == pytest.approx([1e-4, 3e-4])
    assert rehearsal.unfinished(found, trials, RANGES) == [RATE, "dropout"]
    enough = rehearsed(Rehearsal(1, {RATE: 3.0, "dropout": 0.25}, 8), found_at(0.1), (0.1, 0.5))[:4]
    assert rehearsal.unfinished(found_at(0.1), enough, RANGES) == ["dropout"]


def test_the_last_step_ends_at_the_end_of_the_range() -> None:
    trials = rehearsed(Rehearsal(1, {RATE: 3.0}, 9), found_at(0.2), (10.0, 0.1))
    assert rates(trials) == pytest.approx([0.2, 0.5])
    trials = rehearsed(Rehearsal(1, {RATE: 3.0}, 9), found_at(0.4), (10.0, 0.1))  # less than half a step is left
    assert rates(trials) == pytest.approx([0.4, 0.4 / 3])


def test_a_training_that_broke_off_is_not_taken() -> None:
    trials = [Evaluation(found_at(rate), {"loss": loss}) for rate, loss in ((0.5, math.inf), (0.1, 0.3))]
    assert best(trials) is trials[1]
    assert in_words(trials) == "learning_rate 0.5: loss inf; learning_rate 0.1: loss 0.3 (taken)"


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", 0), ("steps", {}), ("steps.dropout", {"dropout": 0.0}), ("trials", 0)]
)
def test_refused_settings(key: str, value: object) -> None:
    settings = {"epochs": 1, "steps": {RATE: 3.0}, "trials": 3} | {key.partition(".")[0]: value}
    with pytest.raises(InvalidValue, match=f"{key}="):
        Rehearsal(**settings)  # type: ignore[arg-type]


def test_a_factor_on_a_log_scale_must_be_above_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"^method\.rehearsal\.steps\.learning_rate=0\.5 "):
        train_search.run(small_search("method.rehearsal.steps.learning_rate=0.5"), tmp_path)


def small_search(*more: str) -> DictConfig:
    overrides = ["experiment=debug", "method=rehearsed", "search.epochs=1", "final.epochs=2", "tracking.console=quiet"]
    overrides += ["hyperparameters.learning_rate.initial=1e-3", "method.rehearsal.trials=3", "search.warmup_epochs=0"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", [*overrides, *more, "tracking.tensorboard=false", "device=cpu"])


def test_a_search_carries_the_best_trial_and_goes_on_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_search()
    tasks = set[TrainingSetup]()
    train = scratch.train

    def noting(task: TrainingSetup, *arguments: Any) -> scratch.CandidateTraining:
        tasks.add(task)
        return train(task, *arguments)

    monkeypatch.setattr(scratch, "train", noting)
    train_search.run(config, tmp_path / "whole")
    found = read_candidate_file(tmp_path / "whole" / "candidate.json").candidate.hyperparameters
    assert {task.seed_for(found_at(rate)) for task in tasks for rate in (0.1, 0.2)} == {config.seed}  # the same luck
    rows = [line.split(",") for line in (tmp_path / "whole" / "metrics.csv").read_text().splitlines()]
    tried = [float(row[3]) for row in rows if row[2] == "rehearsal/learning_rate"]
    losses = [float(row[3]) for row in rows if row[2] == "rehearsal/validation_loss"]
    assert len(tried) == 3
    assert found[RATE] == tried[losses.index(min(losses))] > 2e-3  # from a start that is far too low

    calls = []
    evaluate = TrainedFromScratch.evaluate

    def failing(self: TrainedFromScratch, candidates: list[Candidate]) -> list[Evaluation]:
        calls.append(candidates)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self, candidates)

    monkeypatch.setattr(TrainedFromScratch, "evaluate", failing)
    with pytest.raises(KeyboardInterrupt):
        train_search.run(config, tmp_path / "parts")
    train_search.run(config, tmp_path / "parts")
    assert len(calls) == 4  # the first trial was not made again
    for name in ("candidate.json", "metrics.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
