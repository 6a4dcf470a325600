"""What all spaces share: sampling, encoding, and finding a space again from its description."""

import importlib
import json
import math
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from scipy import stats

from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recorded import space_from_description
from nas.spaces.space import SearchSpace

RANGES = {"learning_rate": Range(1e-4, 0.2, "log"), "dropout": Range(0.0, 0.8, "logit"), "momentum": Range(0.1, 0.7)}
LAYERS = [
    {"type": "conv", "filters": [4, 8, 16], "kernel_size": [3, 5]},
    {"type": "conv", "filters": 8, "kernel_size": 3, "optional": True},
]
SAMPLES = 3000


def macro(ranges: dict[str, Range] | None = None) -> Macro:
    return Macro(LAYERS, ["relu"], signature=Signature((1, 8, 8), 10), ranges=ranges)


SPACES: list[SearchSpace] = [
    macro(RANGES),
    Darts(steps=2, multiplier=2, signature=Signature((3, 16, 16), 10), ranges=RANGES),
    NasBench201(signature=Signature((3, 16, 16), 10)),
]


def test_sampling_is_uniform_over_options_and_their_combinations() -> None:
    space, generator = macro(), torch.Generator().manual_seed(0)
    counts = Counter(space.sample(generator).architecture for _ in range(SAMPLES))
    assert len(counts) == space.size() == 12
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_sampled_hyperparameters_are_uniform_on_their_scale_and_in_range() -> None:
    space, generator = macro(RANGES), torch.Generator().manual_seed(0)
    sampled = [space.sample(generator).hyperparameters for _ in range(SAMPLES)]
    for name, span in RANGES.items():
        assert all(span.contains(one[name]) for one in sampled)
    logarithms = [math.log(one["learning_rate"] / 1e-4) / math.log(0.2 / 1e-4) for one in sampled]
    assert stats.kstest(logarithms, "uniform").pvalue > 1e-3
    assert stats.kstest([one["dropout"] / 0.8 for one in sampled], "uniform").pvalue > 1e-3
    assert abs(stats.pearsonr(logarithms, [one["dropout"] for one in sampled]).statistic) < 0.08


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_sampling_follows_its_generator_alone(space: SearchSpace) -> None:
    before = torch.get_rng_state()
    first, again, other = (space.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_decoding_is_the_inverse_of_encoding(space: SearchSpace) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        candidate = space.sample(generator)
        vector = space.encode(candidate)
        assert len(vector) == len(space.choices) + len(space.ranges)
        for choice, entry in zip(space.choices, vector, strict=False):
            assert choice.options[int(entry)] == candidate.architecture[choice.name]
        assert all(0 <= place <= 1 for place in vector[len(space.choices) :])
        decoded = space.decode(vector)
        assert decoded.architecture == candidate.architecture
        assert dict(decoded.hyperparameters) == pytest.approx(dict(candidate.hyperparameters), rel=1e-12)


def test_decoding_rounds_and_clamps() -> None:
    decoded = macro(RANGES).decode([2.4, 0.6, -3.0, 0.5, 9.0, -1.0])
    assert list(decoded.architecture.values()) == ["16", "5", "conv"]
    assert dict(decoded.hyperparameters) == pytest.approx(
        {"learning_rate": 20**0.5 * 1e-3, "dropout": 0.8, "momentum": 0.1}
    )


@pytest.mark.parametrize(
    "vector", [[], [0.0] * 5, [0.0] * 7, [math.nan] + [0.0] * 5, [0.0] * 5 + [math.nan], [0.0] * 5 + [math.inf]]
)
def test_vectors_that_are_none_are_refused(vector: list[float]) -> None:
    with pytest.raises(InvalidValue) as caught:
        macro(RANGES).decode(vector)
    assert (caught.value.key, caught.value.allowed) == ("vector", "it must have 6 finite entries")


def test_encoding_needs_every_choice_and_hyperparameter() -> None:
    space = macro(RANGES)
    whole = space.sample(torch.Generator().manual_seed(0))
    with pytest.raises(InvalidValue, match=r"^hyperparameters\.dropout=null"):
        space.encode(Candidate(whole.architecture, Hyperparameters({"learning_rate": 0.1})))
    with pytest.raises(InvalidValue, match=r"^architecture\."):
        space.encode(Candidate(Architecture("macro", {}), whole.hyperparameters))


def test_values_that_were_learned_beyond_the_range_are_encoded_at_its_end() -> None:
    space = macro(RANGES)
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    values = Hyperparameters({"learning_rate": 0.0, "dropout": 0.9, "momentum": 0.4})
    assert space.encode(Candidate(architecture, values))[3:] == [0.0, 1.0, pytest.approx(0.5)]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_a_description_remakes_the_space(space: SearchSpace) -> None:
    again = space_from_description(space.describe())
    assert type(again) is type(space)
    assert again.describe() == space.describe()
    assert again.choices == space.choices


@pytest.mark.parametrize(
    "name",
    [
        "os",
        "../x",
        "",
        ".macro",
        "macro.Macro",
        "space",
        "layers",
        "__init__",
        "this",
        "nas.spaces.macro.space",
        3,
        None,
    ],
)
def test_only_spaces_are_known_and_nothing_else_is_imported(name: object, monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    original = importlib.import_module

    def recording(module: str, package: str | None = None) -> Any:
        imported.append(module)
        return original(module, package)

    monkeypatch.setattr(importlib, "import_module", recording)
    with pytest.raises(InvalidValue) as caught:
        space_from_description({**SPACES[0].describe(), "name": name})
    assert (caught.value.key, caught.value.allowed) == (
        "space.name",
        "it must be one of darts, macro, nasbench201, recurrent, transformer",
    )
    assert not imported
    assert "this" not in sys.modules


@pytest.mark.parametrize("description", [None, [], "macro", 3, {}])
def test_what_is_no_description(description: object) -> None:
    with pytest.raises(InvalidValue, match=r"^space(\.name)?="):
        space_from_description(description)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[
            ("input_shape", value)
            for value in (None, [1, 8], [1, 8, 8, 8], [1, 8, 8.0], [True, 8, 8], [0, 8, 8], "188")
        ],
        ("input_shape", [1, 8, 4097]),
        *[("classes", value) for value in (None, 1, True, 2.0, "10", -5, 100_001, [])],
    ],
)
def test_shape_and_classes_are_checked(key: str, value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        space_from_description({**SPACES[0].describe(), key: value})
    assert caught.value.key == f"space.{key}"


def test_a_signature_is_written_where_shape_and_classes_do_not_say_all() -> None:
    assert "signature" not in SPACES[0].describe()
    one = Signature((1, 8, 8), 1)
    space = SPACES[0].fitted(one)
    assert space.describe()["signature"] == one.to_json()
    assert space_from_description(json.loads(json.dumps(space.describe()))).signature == one
    with pytest.raises(InvalidValue, match=r"^space\.signature\.head=both "):
        space_from_description(space.describe() | {"signature": one.to_json() | {"head": "both"}})


@pytest.mark.parametrize("made", [Darts, NasBench201])
@pytest.mark.parametrize(
    ("signature", "sentence"),
    [
        (Signature((6, 100), 4), "the data are 6x100 series with one prediction each: take space=macro_series"),
        (Signature((3, 8, 8), 4, "dense"), "3x8x8 images with a prediction per place: take space=macro_dense"),
        (Signature((13,), 1), "the data are rows of 13 numbers with one prediction each: take space=macro_table"),
    ],
)
def test_cells_refuse_what_they_cannot_take(made: type[SearchSpace], signature: Signature, sentence: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        made(signature=signature)
    assert str(caught.value).startswith(f"space={made.name} is not allowed: it is for images with one prediction each")
    assert sentence in str(caught.value)


def test_mistakes_in_the_settings_are_seen_from_the_top() -> None:
    description = SPACES[0].describe()
    for settings, key in [
        (None, "space.settings"),
        ({"layers": LAYERS}, "space.settings"),
        ({"layers": LAYERS, "activations": None}, "space.settings.activations"),
        ({"layers": [3], "activations": ["relu"]}, "space.settings.layers[0]"),
    ]:
        with pytest.raises(InvalidValue) as caught:
            space_from_description({**description, "settings": settings})
        assert caught.value.key == key
