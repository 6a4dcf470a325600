"""Paired comparisons: the exact permutation test, power and what can be told apart, Holm's correction."""

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("paired_tests")


def test_holm_by_hand(script: ModuleType) -> None:
    assert script.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert script.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert script.holm([]) == []


def test_flips_by_hand(script: ModuleType) -> None:
    # All three signs equal, in two of eight flips; with one small negative number four flips are as far out.
    assert script.sign_flips([1.0, 2.0, 3.0]) == 2 / 8
    assert script.sign_flips([1.0, 2.0, -0.5]) == 4 / 8
    assert script.sign_flips([0.0, 0.0, 0.0]) == 1.0


def test_many_pairs_agree_with_few(script: ModuleType) -> None:
    values = np.random.default_rng(1).normal(0.4, 1.0, script.EXACT)
    exact = script.sign_flips(values)
    script_exact, script.EXACT = script.EXACT, 1
    try:
        assert script.sign_flips(values) == pytest.approx(exact, abs=0.02)
    finally:
        script.EXACT = script_exact


def test_power_is_what_a_simulation_counts(script: ModuleType) -> None:
    from scipy import stats

    count, difference = 12, 0.8
    drawn = np.random.default_rng(0).normal(difference, 1.0, (4000, count))
    counted = np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05)
    assert script.power(difference, 1 / math.sqrt(count), count) == pytest.approx(counted, abs=0.03)


def test_what_is_detectable_has_the_power_that_is_said(script: ModuleType) -> None:
    differences = list(np.random.default_rng(2).normal(0.0, 1.0, 20))
    found = script.compared(differences)
    error = float(np.std(differences, ddof=1)) / math.sqrt(20)
    assert script.power(found.detectable, error, 20) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("count", [2, 7, 20])
def test_the_power_of_a_large_difference_is_near_one_and_always_a_number(script: ModuleType, count: int) -> None:
    powers = [script.power(difference, 1.0, count) for difference in np.arange(0.5, 120, 0.5)]
    assert np.all(np.diff(powers) > -1e-9)
    assert powers[-1] == pytest.approx(1.0)


def test_one_pair_tells_nothing(script: ModuleType) -> None:
    found = script.compared([0.5])
    assert (found.pairs, found.mean, found.p) == (1, 0.5, 1.0)
    assert math.isnan(found.power)
