"""Rehearsals: which learning rates are tried, what is taken, and a search that ends in one."""

import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import train_search
from nas.bilevel.rehearsal import RATE, Rehearsal, best, in_words
from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.configuration import InvalidValue
from nas.evaluation.evaluation import Evaluation
from nas.evaluation.scratch import TrainedFromScratch
from nas.spaces.candidate_file import read_candidate_file

RANGE = Range(1e-5, 0.5, "log")
CONF = Path(__file__).resolve().parents[2] / "conf"


def found_at(rate: float) -> Candidate:
    return Candidate(Architecture("macro", {}), Hyperparameters({RATE: rate, "dropout": 0.2}))


def rehearsed(rehearsal: Rehearsal, rate: float, optimum: float) -> list[Evaluation]:
    """All trials where the loss rises with the distance from ``optimum`` on a log scale."""
    found, trials = found_at(rate), list[Evaluation]()
    while (trial := rehearsal.next(found, trials, RANGE)) is not None:
        distance = abs(math.log(trial.hyperparameters[RATE] / optimum))
        trials.append(Evaluation(trial, {"loss": 0.1 + distance}))
    return trials


@pytest.mark.parametrize("rate", [1e-3, 5e-3, 0.02, 0.1, 0.5])
def test_the_best_is_the_tried_rate_nearest_to_the_optimum(rate: float) -> None:
    trials = rehearsed(Rehearsal(1, 3.0, 9), rate, optimum=0.02)
    taken = best(trials).candidate.hyperparameters
    assert abs(math.log(taken[RATE] / 0.02)) <= math.log(3.0) / 2 + 1e-9
    assert taken["dropout"] == 0.2
    assert Rehearsal(1, 3.0, 9).bracketed(found_at(rate), trials, RANGE)


def test_three_trials_confirm_a_good_rate() -> None:
    rates = [trial.candidate.hyperparameters[RATE] for trial in rehearsed(Rehearsal(1, 2.0, 9), 0.02, 0.02)]
    assert rates == pytest.approx([0.02, 0.04, 0.01])


def test_too_few_trials_are_no_bracket() -> None:
    rehearsal = Rehearsal(1, 3.0, 2)
    trials = rehearsed(rehearsal, 1e-4, optimum=0.1)
    assert [trial.candidate.hyperparameters[RATE] for trial in trials] == pytest.approx([1e-4, 3e-4])
    assert not rehearsal.bracketed(found_at(1e-4), trials, RANGE)


def test_no_rate_outside_of_the_range_is_tried() -> None:
    trials = rehearsed(Rehearsal(1, 3.0, 9), 0.4, optimum=10.0)
    assert [trial.candidate.hyperparameters[RATE] for trial in trials] == pytest.approx([0.4, 0.4 / 3])
    assert Rehearsal(1, 3.0, 9).bracketed(found_at(0.4), trials, RANGE)


def test_a_training_that_broke_off_is_not_taken() -> None:
    trials = [Evaluation(found_at(rate), {"loss": loss}) for rate, loss in ((0.5, math.inf), (0.1, 0.3))]
    assert best(trials) is trials[1]
    assert in_words(trials) == "learning_rate 0.1: loss 0.3 (taken), 0.5: loss inf"


@pytest.mark.parametrize(("key", "value"), [("epochs", 0), ("factor", 1.0), ("trials", 0)])
def test_refused_settings(key: str, value: float) -> None:
    settings = {"epochs": 1, "factor": 3.0, "trials": 3} | {key: value}
    with pytest.raises(InvalidValue, match=f"{key}="):
        Rehearsal(**settings)  # type: ignore[arg-type]


def small_search() -> DictConfig:
    overrides = ["experiment=debug", "method=rehearsed", "search.epochs=1", "final.epochs=2", "tracking.console=quiet"]
    overrides += ["hyperparameters.learning_rate.initial=1e-3", "method.rehearsal.trials=3"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", [*overrides, "tracking.tensorboard=false", "device=cpu"])


def test_a_search_carries_the_best_trial_and_goes_on_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_search()
    train_search.run(config, tmp_path / "whole")
    found = read_candidate_file(tmp_path / "whole" / "candidate.json").candidate.hyperparameters
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
