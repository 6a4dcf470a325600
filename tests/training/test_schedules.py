"""Learning-rate schedules."""

import math
from itertools import pairwise

import pytest

from nas.training.schedules import recorded_value, schedule_factor


def test_constant() -> None:
    assert {schedule_factor("constant", step / 10, 0.1) for step in range(11)} == {1.0}


@pytest.mark.parametrize("end", [0.0, 0.001, 0.1, 1.0])
def test_cosine_falls_from_1_to_its_end(end: float) -> None:
    factors = [schedule_factor("cosine", step / 100, end) for step in range(101)]
    assert factors[0] == pytest.approx(1.0)
    assert factors[50] == pytest.approx((1 + end) / 2)
    assert factors[100] == pytest.approx(end, abs=1e-15)
    assert factors == sorted(factors, reverse=True)
    assert factors[25] == pytest.approx(end + (1 - end) * (1 + math.sqrt(0.5)) / 2)


@pytest.mark.parametrize("end", [0.001, 0.5, 1.0])
def test_exponential_falls_by_one_ratio(end: float) -> None:
    factors = [schedule_factor("exponential", step / 10, end) for step in range(11)]
    assert factors[0] == 1.0
    assert factors[10] == pytest.approx(end)
    ratios = [after / before for before, after in pairwise(factors)]
    assert ratios == pytest.approx([end**0.1] * 10)


def test_a_record_is_stretched_and_goes_straight_between_the_middles_of_its_shares():
    points = [1.0, 3.0, 2.0]
    assert [recorded_value(points, place) for place in (0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0)] == pytest.approx(
        [1.0, 1.0, 2.0, 3.0, 2.5, 2.0, 2.0]
    )
    assert {recorded_value([0.7], place) for place in (0.0, 0.5, 1.0)} == {0.7}
