"""Choices, architectures, hyperparameters, ranges and candidates are values."""

import copy
import json
import math
import pickle
from typing import Any

import pytest

from nas.candidate import Architecture, Candidate, Categorical, Choice, Hyperparameters, Range, Scale
from nas.errors import InvalidValue

CHOICES = (Choice("layer1.filters", ("8", "16")), Choice("layer2.type", ("conv", "skip")))
GOOD = {"layer1.filters": "16", "layer2.type": "skip"}


@pytest.mark.parametrize("options", [(), ("a", "a")])
def test_a_choice_has_different_options(options: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue, match=r"^layer1\.kind="):
        Choice("layer1.kind", options)


def test_architectures_are_equal_by_space_and_options() -> None:
    one, other = Architecture("macro", GOOD), Architecture("macro", dict(reversed(GOOD.items())))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Architecture("darts", GOOD)
    assert one != Architecture("macro", {**GOOD, "layer2.type": "conv"})
    assert one != GOOD


def test_values_cannot_be_changed() -> None:
    source = dict(GOOD)
    architecture, hyperparameters = Architecture("macro", source), Hyperparameters({"dropout": 0.5})
    source["layer2.type"] = "conv"
    assert architecture["layer2.type"] == "skip"
    for value in (architecture, hyperparameters):
        with pytest.raises(TypeError):
            value["new"] = 1  # type: ignore[index]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_candidate_can_be_copied_and_sent_to_another_process(duplicate: Any) -> None:
    candidate = Candidate(Architecture("macro", GOOD), Hyperparameters({"dropout": 0.5}))
    assert duplicate(candidate) == candidate
    assert hash(duplicate(candidate)) == hash(candidate)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"layer1.filters": "16"},
            "architecture.layer2.type=null is not allowed: it must be one of conv, skip.",
        ),
        ({**GOOD, "layer1.filters": "9"}, "architecture.layer1.filters=9 is not allowed: it must be one of 8, 16."),
        ({**GOOD, "layer9.kind": "max"}, "architecture.layer9.kind=max is not allowed: the space has no such choice."),
    ],
)
def test_an_architecture_that_does_not_fit_is_named(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Architecture("macro", options).check(CHOICES)
    assert str(caught.value) == sentence


def test_an_architecture_that_fits_is_accepted() -> None:
    Architecture("macro", GOOD).check(CHOICES)


def test_hyperparameters_are_numbers_by_name() -> None:
    assert Hyperparameters({"a": 1, "b": 2.5}) == Hyperparameters({"b": 2.5, "a": 1.0})
    assert Hyperparameters() == Hyperparameters({})
    assert type(Hyperparameters({"a": 1})["a"]) is float
    assert dict(Hyperparameters({"a": 1, "b": 2.5})) == {"a": 1.0, "b": 2.5}


def test_fingerprints_tell_candidates_apart_and_ignore_order() -> None:
    def fingerprint(space: str, options: dict[str, str], values: dict[str, float]) -> str:
        return Candidate(Architecture(space, options), Hyperparameters(values)).fingerprint()

    values = {"learning_rate": 0.1, "dropout": 0.3}
    base = fingerprint("macro", GOOD, values)
    assert fingerprint("macro", dict(reversed(GOOD.items())), dict(reversed(values.items()))) == base
    others = {
        fingerprint("darts", GOOD, values),
        fingerprint("macro", {**GOOD, "layer2.type": "conv"}, values),
        fingerprint("macro", GOOD, {**values, "dropout": math.nextafter(0.3, 1)}),
        fingerprint("macro", GOOD, {}),
    }
    assert len(others | {base}) == 5


@pytest.mark.parametrize(
    ("low", "high", "scale", "key"),
    [
        (math.nan, 1.0, "linear", "low"),
        (-math.inf, 1.0, "linear", "low"),
        (0.0, math.inf, "linear", "high"),
        (0.0, math.nan, "linear", "high"),
        (1.0, 1.0, "linear", "high"),
        (2.0, 1.0, "linear", "high"),
        (0.0, 1.0, "log", "low"),
        (-1.0, 1.0, "log", "low"),
    ],
)
def test_impossible_ranges_are_refused(low: float, high: float, scale: Scale, key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Range(low, high, scale)
    assert caught.value.key == key


@pytest.mark.parametrize("scale", ["linear", "log", "logit"])
def test_places_and_values_are_inverse_and_stay_in_range(scale: Scale) -> None:
    for low, high in [(1e-5, 0.5), (0.427, 0.993), (0.709, 0.851), (0.3, 0.3 + 1e-9), (1e-6, 1e-2), (0.1, 1e6)]:
        span = Range(low, high, scale)
        assert span.to_unit(low) == 0.0
        assert span.to_unit(high) == pytest.approx(1.0)
        for step in range(101):
            value = span.from_unit(step / 100)
            assert span.contains(value)
            assert span.to_unit(value) == pytest.approx(step / 100, abs=1e-6)
        assert span.from_unit(-3.0) == span.from_unit(0.0)
        assert span.from_unit(7.0) == span.from_unit(1.0)


def test_the_middle_of_a_log_range_is_its_geometric_mean() -> None:
    assert Range(1e-4, 1e-2, "log").from_unit(0.5) == pytest.approx(1e-3)
    assert Range(0.0, 0.8, "logit").from_unit(0.5) == pytest.approx(0.4)


def test_a_value_beyond_the_range_has_the_place_of_the_nearer_end() -> None:
    span = Range(1e-4, 1e-2, "log")
    assert [span.to_unit(value) for value in (-1.0, 0.0, 1e-5)] == [0.0, 0.0, 0.0]
    assert span.to_unit(5.0) == 1.0
    assert not span.contains(5.0)


def test_a_categorical_hyperparameter_takes_its_options_equally_often() -> None:
    sizes = Categorical(32, (16, 32, 64, 128))
    drawn = [sizes.from_unit((index + 0.5) / 1000) for index in range(1000)]
    assert {size: drawn.count(size) for size in drawn} == {16.0: 250, 32.0: 250, 64.0: 250, 128.0: 250}
    assert [sizes.from_unit(sizes.to_unit(size)) for size in sizes.options] == list(sizes.options)
    assert (sizes.from_unit(-1.0), sizes.from_unit(0.0), sizes.from_unit(1.0), sizes.from_unit(9.0)) == (
        16,
        16,
        128,
        128,
    )
    assert sizes.contains(64)
    assert not sizes.contains(65)
    assert sizes.from_unit(sizes.to_unit(120.0)) == 128.0


@pytest.mark.parametrize(
    ("initial", "options", "key"),
    [(32, (), "options"), (32, (32, 32), "options"), (32, (32, math.inf), "options"), (8, (16, 32), "initial")],
)
def test_an_impossible_categorical_is_refused(initial: float, options: tuple[float, ...], key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Categorical(initial, options)
    assert caught.value.key == key


def test_a_candidate_survives_json() -> None:
    candidate = Candidate(Architecture("macro", GOOD), Hyperparameters({"dropout": 0.1, "batch_size": 32}))
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
