"""Costs, evaluations and budgets are values."""

import json
import math

import pytest

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.errors import InvalidValue
from nas.evaluation.budget import Budget, CostMeter, images_to_choose_with
from nas.evaluation.evaluation import Cost, Evaluation


def test_costs_add_up() -> None:
    assert Cost(1, 2.0, 3, 4.0) + Cost(10, 20.0, 30, 40.0) == Cost(11, 22.0, 33, 44.0)
    assert sum([Cost(samples=2), Cost(samples=3)], Cost()) == Cost(samples=5)


def test_an_evaluation_survives_json() -> None:
    candidate = Candidate(Architecture("macro", {"layer1.filters": "8"}), Hyperparameters({"dropout": 0.1}))
    evaluation = Evaluation(candidate, {"accuracy": 1 / 3}, Cost(10, 1e9, 1, 0.5))
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


def test_the_first_limit_reached_ends_a_budget() -> None:
    budget = Budget(samples=100, evaluations=10)
    assert budget.allows(Cost(samples=100, evaluations=10, multiply_adds=1e30, seconds=1e9))
    assert not budget.allows(Cost(samples=101))
    assert not budget.allows(Cost(evaluations=11))
    assert budget.progress(Cost(samples=25, evaluations=5)) == 0.5
    assert budget.progress(Cost(samples=1000)) == 1.0
    assert Budget().allows(Cost(samples=10**12))
    assert Budget().progress(Cost(samples=10**12)) == 0.0
    assert Budget(multiply_adds=1e9, seconds=2.0).limits() == {"multiply_adds": 1e9, "seconds": 2.0}


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_budget_is_a_positive_number(limit: float) -> None:
    with pytest.raises(InvalidValue, match="seconds"):
        Budget(seconds=limit)


def test_the_steps_progress_from_nothing_to_all_of_what_is_theirs() -> None:
    meter = CostMeter(Budget(samples=1000), per_image=2.0, step_samples=50, validation_images=100, choosing_images=350)
    assert meter.progress() == 0.0
    meter.count_training(250)
    assert meter.progress() == 0.5  # of 1000 less 50 + 100 + 350
    meter.count_training(250)
    assert meter.progress() == 1.0
    assert not meter.budget.allows(meter.counted + meter.reserve() + Cost(samples=1))


def test_what_comes_after_the_last_epoch_is_not_added_to_the_time_of_a_resumed_search() -> None:
    meters = [CostMeter(Budget(), 2.0, 50, validation_images=100, choosing_images=350) for _ in range(2)]
    meters[0].count_training(50)
    assert meters[0].state_dict()["seconds"] > 0  # a checkpoint within an epoch has the time until then
    meters[0].end_epoch()
    meters[0].count_forward(100)
    meters[1].load_state_dict(meters[0].state_dict())
    assert meters[1].seconds == meters[0].seconds


def test_a_discretisation_takes_a_quarter_of_a_small_budget() -> None:
    def needed(each: int) -> int:
        return 10 * min(each, 500)

    assert images_to_choose_with(Budget(), 2.0, needed, 1000) == 1000
    assert images_to_choose_with(Budget(samples=20_000), 2.0, needed, 1000) == 1000
    for budget in (Budget(samples=8000), Budget(multiply_adds=16_000.0)):
        each = images_to_choose_with(budget, 2.0, needed, 1000)
        assert 0.9 * 2000 * 0.9 <= needed(each) <= 2000
    assert images_to_choose_with(Budget(samples=10), 2.0, needed, 1000) == 32
