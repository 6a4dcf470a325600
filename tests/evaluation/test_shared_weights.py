"""One supernet for all candidates: what its steps teach, cost and cannot ruin."""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.baselines.search import BlackBoxSearch
from nas.baselines.strategy import RandomSearch
from nas.candidate import Candidate, Hyperparameters
from nas.errors import InvalidValue
from nas.evaluation.budget import Budget
from nas.evaluation.objective import Fixed
from nas.evaluation.shared_weights import SharedWeights
from nas.evaluation.training_setup import TrainingSetup
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings


def shared(setup: TrainingSetup, randomness: Randomness | None = None, **settings: Any) -> SharedWeights:
    settings = {"weight_steps": 4, "paths": "candidates", "warmup_steps": 0, "finalists": 3} | settings
    relaxation = Softmax(Temperature())
    return SharedWeights(**settings, setup=setup, relaxation=relaxation, randomness=randomness or Randomness(0))


def weights_of(evaluator: SharedWeights) -> list[torch.Tensor]:
    return [weight.clone() for weight in evaluator.supernet.weight_parameters()]


def with_rate(candidate: Candidate, rate: float) -> Candidate:
    return Candidate(candidate.architecture, Hyperparameters({"learning_rate": rate, "dropout": 0.0}))


@pytest.mark.parametrize("paths", ["candidates", "uniform"])
def test_the_shared_weights_learn(setup: TrainingSetup, candidates: list[Candidate], paths: str) -> None:
    setup = replace(setup, space=copy(setup.space))
    setup.space.ranges = {} if paths == "uniform" else setup.space.ranges
    evaluator = shared(setup, paths=paths, weight_steps=30)
    tamed = [with_rate(candidate, 0.05) for candidate in candidates]
    first = evaluator.evaluate(tamed)[0]
    last = evaluator.evaluate(tamed)[0]
    assert last.metrics["loss"] < min(first.metrics["loss"], 2.0)
    assert last.metrics["accuracy"] > 0.5


def test_costs_are_the_hand_count(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    evaluator = shared(setup, warmup_steps=5)
    reserve = evaluator.reserve()
    assert reserve.samples == 5 * 16 + 3 * 48
    first, second = evaluator.evaluate(candidates[:2])
    assert (first.cost.samples, second.cost.samples) == ((5 + 4) * 16 + 48, 4 * 16 + 48)
    assert second.cost.multiply_adds == evaluator.per_image * (3 * 4 * 16 + 48)
    assert (second.cost.samples, second.cost.multiply_adds, second.cost.evaluations) == (
        evaluator.price(candidates[1]).samples,
        evaluator.price(candidates[1]).multiply_adds,
        1,
    )
    assert evaluator.reserve().samples == 3 * 48
    again = evaluator.measure_again(candidates[:2])
    assert [(one.cost.samples, one.cost.evaluations) for one in again] == [(48, 0), (48, 0)]


def test_measuring_changes_nothing(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    evaluator = shared(setup)
    evaluator.evaluate(candidates[:1])
    before = {name: entry.clone() for name, entry in evaluator.network.state_dict().items()}
    first = evaluator.measure_again(candidates)
    assert [one.metrics for one in evaluator.measure_again(candidates)] == [one.metrics for one in first]
    assert all(torch.equal(entry, before[name]) for name, entry in evaluator.network.state_dict().items())


def test_a_step_reaches_only_the_candidates_own_path(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    evaluator = shared(setup)
    convolution = evaluator.supernet.slots["layer1"]["conv"]
    chosen = with_rate(candidates[0], 0.1).architecture["layer1.kernel_size"]
    other = next(size for size in ("1", "3") if size != chosen)
    before = {size: convolution.kernels[size].weight.clone() for size in ("1", "3")}
    evaluator.evaluate([Candidate(candidates[0].architecture, Hyperparameters({"weight_decay": 0.0}))])
    assert not torch.equal(convolution.kernels[chosen].weight, before[chosen])
    assert torch.equal(convolution.kernels[other].weight, before[other])
    assert all(alpha.grad is None for alpha in evaluator.supernet.architecture_parameters())


@pytest.mark.parametrize("rate", [1e30, 50.0])
def test_steps_that_ruin_the_weights_are_taken_back(
    setup: TrainingSetup, candidates: list[Candidate], rate: float
) -> None:
    evaluator = shared(setup)
    evaluator.evaluate([with_rate(candidates[0], 0.05)])
    before = weights_of(evaluator)
    (found,) = evaluator.evaluate([with_rate(candidates[1], rate)])
    assert found.metrics["loss"] > 2 * math.log(10)
    assert found.cost.samples > 48, "its cost is not taken back"
    assert all(torch.equal(ours, saved) for ours, saved in zip(weights_of(evaluator), before, strict=True))
    assert evaluator.evaluate([with_rate(candidates[0], 0.05)])[0].metrics["loss"] < 2 * math.log(10)


def searching(make_setup: Callable[..., TrainingSetup], folder: Path, rounds: int) -> BlackBoxSearch:
    setup, randomness = make_setup(), Randomness(0)
    return BlackBoxSearch(
        lambda **parts: RandomSearch(2, **parts),
        space=setup.space,
        setup=setup,
        evaluator=shared(setup, randomness, warmup_steps=3),
        objective=Fixed({"accuracy": 1.0}, 0.0, {}, space=setup.space),
        budget=Budget(evaluations=rounds, samples=2000),
        tracking=TrackingSettings(tensorboard=False, console="quiet"),
        randomness=randomness,
        folder=RunFolder(folder),
    )


def test_a_resumed_search_goes_on_with_the_same_weights(
    make_setup: Callable[..., TrainingSetup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.baselines.search.SAVE_EVERY", 0.0)
    whole = searching(make_setup, tmp_path / "whole", 8)
    expected = whole.search()
    cut = searching(make_setup, tmp_path / "cut", 8)
    told = cut.strategy.tell

    def tell(scored: Any) -> None:
        told(scored)
        if cut.step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(cut.strategy, "tell", tell)
    with pytest.raises(KeyboardInterrupt):
        cut.search()
    resumed = searching(make_setup, tmp_path / "cut", 8)
    assert resumed.search().candidate == expected.candidate
    assert (tmp_path / "cut" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    assert expected.cost.evaluations == 8
    assert expected.cost.samples == 3 * 16 + 8 * (4 * 16 + 48) + 3 * 48 <= 2000
    assert not (tmp_path / "whole" / "evaluations.jsonl").exists(), "drifting metrics are no facts to keep"
    again = [one.candidate for one in whole.history.evaluations[-3:]]
    assert whole.history.best.candidate in again
    best = max(whole.evaluator.measure_again(again), key=lambda one: one.metrics["accuracy"])
    assert whole.history.best.metrics["accuracy"] == best.metrics["accuracy"]


@pytest.mark.parametrize("key", ["weight_steps", "finalists"])
def test_impossible_settings_are_refused(setup: TrainingSetup, key: str) -> None:
    with pytest.raises(InvalidValue, match=key):
        shared(setup, **{key: 0})


def test_hyperparameters_that_no_score_shows_are_not_searched(setup: TrainingSetup) -> None:
    with pytest.raises(InvalidValue, match=r"hyperparameters=learning_rate, dropout, batch_size .* take hyperpara"):
        shared(setup, paths="uniform")
