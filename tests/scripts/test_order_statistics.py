"""Random search from a sample: against closed forms and against all subsets."""

import itertools
import math
import statistics
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("order_statistics")


@pytest.mark.parametrize("draws", [1, 2, 3, 6])
def test_all_subsets_give_the_same(script: ModuleType, draws: int) -> None:
    rank, value = [0.3, 0.1, 0.9, 0.5, 0.2, 0.7], [5.0, 4.0, 1.0, 3.0, 7.0, 2.0]
    winners = [value[min(subset, key=rank.__getitem__)] for subset in itertools.combinations(range(6), draws)]
    mean, deviation = script.random_search(rank, value, draws)
    assert mean == pytest.approx(statistics.fmean(winners))
    assert deviation == pytest.approx(statistics.pstdev(winners))


@pytest.mark.parametrize("draws", [1, 4, 20, 60])
def test_the_best_of_uniform_numbers_has_the_mean_of_the_closed_form(script: ModuleType, draws: int) -> None:
    # Of n equally spaced places 1..n the smallest of N without repetition has the mean (n + 1) / (N + 1).
    count = 450
    places = np.arange(1.0, count + 1)
    assert script.random_search(places, places, draws)[0] == pytest.approx((count + 1) / (draws + 1))


def test_equal_ranks_share_their_chance(script: ModuleType) -> None:
    rank, value = [1.0, 1.0, 2.0], [10.0, 20.0, 0.0]
    assert script.random_search(rank, value, 3) == (pytest.approx(15.0), pytest.approx(5.0))


def test_worth_is_the_inverse(script: ModuleType) -> None:
    generator = np.random.default_rng(0)
    value = generator.random(200)
    for draws in (1.0, 5.0, 37.0):
        reached = script.random_search(-value, value, draws)[0]
        assert script.worth(-value, value, reached) == pytest.approx(draws, rel=2e-3)
    assert script.worth(-value, value, 2.0) == math.inf
    assert script.worth(value, value, script.random_search(value, value, 9)[0], False) == pytest.approx(9, rel=2e-3)


def test_percentiles_count_ties_half(script: ModuleType) -> None:
    assert script.percentile(2.0, [1.0, 2.0, 3.0, 4.0]) == 37.5
    assert script.percentile(2.0, [1.0, 2.0, 3.0, 4.0], False) == 62.5


@pytest.mark.parametrize("draws", [0, 0.5, 4])
def test_impossible_draws_are_refused(script: ModuleType, draws: float) -> None:
    with pytest.raises(ValueError, match="draws of 3"):
        script.winning_probabilities(3, draws)
