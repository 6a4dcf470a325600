"""The temperature schedules that the relaxations share."""

import math
from typing import Literal

import pytest

from nas.errors import InvalidValue
from nas.relaxations.relaxation import Temperature


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 2.5), ("exponential", 2.0)])
def test_a_temperature_goes_from_initial_to_final(schedule: Literal["linear", "exponential"], middle: float) -> None:
    temperature = Temperature(4.0, 1.0, schedule)
    values = [temperature.at(step / 10) for step in range(11)]
    assert values[0] == pytest.approx(4.0)
    assert values[5] == pytest.approx(middle)
    assert values[10] == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("schedule", ["linear", "exponential"])
def test_a_constant_temperature_is_exactly_constant(schedule: Literal["linear", "exponential"]) -> None:
    assert {Temperature(1.0, 1.0, schedule).at(step / 7) for step in range(8)} == {1.0}


@pytest.mark.parametrize("key", ["initial", "final"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_temperature_is_refused(key: str, value: float) -> None:
    with pytest.raises(InvalidValue) as caught:
        Temperature(**{key: value})  # type: ignore[arg-type]
    assert (caught.value.key, caught.value.allowed) == (key, "a temperature must be a finite number above 0")
