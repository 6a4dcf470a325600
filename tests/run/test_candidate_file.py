"""``candidate.json``: a round trip, and broken or hostile files that must end in one sentence."""

import codecs
import copy
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.errors import InvalidValue, UnusableInput
from nas.run.candidate_file import CandidateFile, fingerprint, parse_candidate, read_candidate_file
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace

MACRO = Macro(
    [
        {"type": "conv", "filters": [4, 8], "kernel_size": [3, 5]},
        {"choose": [{"type": "conv", "filters": 8, "kernel_size": 3}, {"type": "pool", "pool_size": 3, "stride": 1}]},
        {"type": "dense", "units": [16], "optional": True},
    ],
    ["relu", "sigmoid"],
    signature=Signature((1, 8, 8), 10),
)
SPACES: list[SearchSpace] = [
    MACRO,
    Darts(steps=2, multiplier=2, channels=4, cells=3, signature=Signature((3, 16, 16), 5)),
    NasBench201(channels=4, cells_per_stage=1, signature=Signature((3, 16, 16), 5)),
]
VALUES = {"learning_rate": 0.0123456789012345678, "dropout": 0.3, "weight_decay": 3e-4}
SETTLED = {"architecture": True, "learning_rate": False}


def example(space: SearchSpace = MACRO) -> CandidateFile:
    architecture = space.sample(torch.Generator().manual_seed(1)).architecture
    return CandidateFile(Candidate(architecture, Hyperparameters(VALUES)), space, "mnist5k", "cosine", SETTLED)


def test_data_are_called_in_any_alphabet(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    replace(example(), data="Größe_花").write(path)
    assert read_candidate_file(path).data == "Größe_花"


def test_class_names_are_optional_and_one_per_class(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    example().write(path)
    assert read_candidate_file(path).class_names is None
    assert "class_names" not in json.loads(path.read_text())  # what has no names is written as ever
    names = (*map(str, range(9)), "naïve \U0001f600")
    replace(example(), class_names=names).write(path)
    assert read_candidate_file(path).class_names == names
    content = json.loads(path.read_text())
    del content["fingerprint"]
    for wrong in (["a"], [*names[:9], 3], "0123456789", {"0": "a"}):
        sentence = str(refused(written(tmp_path, content | {"class_names": wrong})))
        assert "it must be a list of 10 texts, a name per class" in sentence


def test_names_that_would_make_the_file_unreadable_are_left_out(tmp_path: Path) -> None:
    space = Macro([{"type": "dense", "units": [4]}], ["relu"], signature=Signature((1, 2, 2), 21_841))
    names = tuple(f"n{number:08}" for number in range(21_841))  # the whole of ImageNet fits
    for class_names in (names, tuple(name * 3 for name in names)):
        replace(example(space), class_names=class_names).write(tmp_path / "candidate.json")
        found = read_candidate_file(tmp_path / "candidate.json").class_names
        assert found == (class_names if class_names is names else None)


def test_a_byte_order_mark_in_front_of_a_candidate_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    example().write(path)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())  # as some editors save a text
    assert read_candidate_file(path).candidate == example().candidate


def written(folder: Path, content: Any) -> Path:
    path = folder / "candidate.json"
    path.touch()
    with open(path, "r+b") as file:  # opening with "wb" is slow where there was a file
        file.truncate(file.write(content if isinstance(content, bytes) else json.dumps(content).encode()))
    return path


def refused(path: Path) -> InvalidValue | UnusableInput:
    with pytest.raises((InvalidValue, UnusableInput)) as caught:
        read_candidate_file(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return caught.value


def refused_or_whole(path: Path) -> bool:
    """Whether the file was refused; one that was not must hold a candidate that its space knows."""
    try:
        found = read_candidate_file(path)
    except (InvalidValue, UnusableInput):
        return True
    found.candidate.architecture.check(found.space.choices)
    assert all(math.isfinite(value) for value in found.candidate.hyperparameters.values())
    copied = path.with_name("copy.json")
    found.write(copied)
    assert read_candidate_file(copied).to_json() == found.to_json()
    return False


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_round_trip(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    original = example(space)
    original.write(path)
    found = read_candidate_file(path)
    assert found.candidate == original.candidate
    assert found.candidate.hyperparameters["learning_rate"] == VALUES["learning_rate"]
    assert found.to_json() == original.to_json()
    assert (found.data, found.schedule, found.settled) == ("mnist5k", "cosine", SETTLED)
    assert type(found.space) is type(space)
    assert found.space.choices == space.choices
    found.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_lone_file_remakes_the_network(tmp_path: Path) -> None:
    original = example()
    original.write(tmp_path / "elsewhere.json")
    found = read_candidate_file(tmp_path / "elsewhere.json")
    network, again = (one.space.network(one.candidate.architecture) for one in (original, found))
    again.load_state_dict(network.state_dict())
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(network.eval()(x), again.eval()(x))


def test_the_file_names_no_paths_and_no_times(tmp_path: Path) -> None:
    example().write(tmp_path / "candidate.json")
    text = (tmp_path / "candidate.json").read_text()
    assert str(tmp_path) not in text
    assert list(json.loads(text)) == [
        "schema", "data", "space", "architecture", "hyperparameters", "schedule", "schedule_end", "settled",
        "fingerprint",
    ]  # fmt: skip


def test_a_trajectory_makes_the_round_trip_and_stays_small(tmp_path: Path) -> None:
    recorded = {"learning_rate": [0.1, 0.01, 0.001], "dropout": [0.3, 0.2, 0.25]}
    replace(example(), trajectory=recorded).write(tmp_path / "candidate.json")
    found = read_candidate_file(tmp_path / "candidate.json")
    assert found.trajectory == recorded
    assert "trajectory" not in example().to_json()


@pytest.mark.parametrize(
    "trajectory",
    [
        [0.1],
        {"learning_rate": 0.1},
        {"learning_rate": []},
        {"learning_rate": [0.1], "dropout": [0.1, 0.2]},
        {"learning_rate": ["a"]},
        {"learning_rate": [True]},
        {"momentum": [0.9]},
        {"learning_rate": [0.1] * 1001},
    ],
)
def test_an_impossible_trajectory_is_refused(trajectory: Any, tmp_path: Path) -> None:
    error = refused(written(tmp_path, {**example().to_json(), "trajectory": trajectory}))
    assert "trajectory" in str(error)


def test_a_value_that_json_has_no_number_for_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    bad = Candidate(example().candidate.architecture, Hyperparameters({"learning_rate": math.nan}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        CandidateFile(bad, MACRO, "digits", "constant").write(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"schema": 3}, "schema"),
        ({"schema": True}, "schema"),
        ({"schema": 1.0}, "schema"),
        ({"schema": "1"}, "schema"),
        ({"space": None}, "space"),
        ({"space": {"name": "os"}}, "space.name"),
        ({"space": {"name": "../macro"}}, "space.name"),
        ({"architecture": None}, "architecture"),
        ({"architecture": {"layer1.filters": 4}}, "architecture"),
        ({"architecture": {}}, "architecture.layer1.filters"),
        ({"hyperparameters": None}, "hyperparameters"),
        ({"hyperparameters": {"dropout": "0.5"}}, "hyperparameters.dropout"),
        ({"hyperparameters": {"dropout": True}}, "hyperparameters.dropout"),
        ({"hyperparameters": {"dropout": None}}, "hyperparameters.dropout"),
        ({"hyperparameters": {"dropout": math.nan}}, "hyperparameters.dropout"),
        ({"hyperparameters": {"dropout": math.inf}}, "hyperparameters.dropout"),
        ({"hyperparameters": {"dropout": 10**400}}, "hyperparameters.dropout"),
        ({"data": None}, "data"),
        ({"data": "; rm -rf /"}, "data"),
        ({"data": "line\nbreak"}, "data"),
        ({"data": ""}, "data"),
        ({"schedule": "step"}, "schedule"),
        ({"schedule": ["cosine"]}, "schedule"),
        ({"schedule_end": None}, "schedule_end"),
        ({"schedule_end": True}, "schedule_end"),
        ({"schedule_end": -0.1}, "schedule_end"),
        ({"schedule_end": 1.1}, "schedule_end"),
        ({"schedule_end": math.nan}, "schedule_end"),
        ({"schedule": "exponential"}, "schedule_end"),
        ({"settled": None}, "settled"),
        ({"settled": {"architecture": 1}}, "settled"),
        ({"fingerprint": None}, "fingerprint"),
        ({"fingerprint": "0" * 32}, "fingerprint"),
        ({"fingerprInt": "0" * 32}, "fingerprInt"),
    ],
)
def test_what_is_missing_or_wrong_is_named(change: dict[str, Any], key: str, tmp_path: Path) -> None:
    error = refused(written(tmp_path, example().to_json() | change))
    assert isinstance(error, InvalidValue)
    assert error.key == f"{tmp_path / 'candidate.json'}: {key}"


@pytest.mark.parametrize("key", ["schema", "space", "architecture", "hyperparameters", "data", "schedule", "settled"])
def test_an_entry_that_is_missing_is_named(key: str, tmp_path: Path) -> None:
    content = example().to_json()
    del content[key]
    error = refused(written(tmp_path, content))
    assert isinstance(error, InvalidValue)
    assert error.key == f"{tmp_path / 'candidate.json'}: {key}"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"layer9.kind": "max"}, "layer9.kind"),
        ({"__class__": "os.system"}, "__class__"),
        ({"layer1.filters": "6"}, "layer1.filters"),
        ({"layer1.filters": ""}, "layer1.filters"),
        ({"layer2.type": "skip"}, "layer2.type"),
    ],
)
def test_an_architecture_that_does_not_fit_the_space_is_named(
    options: dict[str, str], key: str, tmp_path: Path
) -> None:
    content = example().to_json()
    content["architecture"] |= options
    error = refused(written(tmp_path, content))
    assert isinstance(error, InvalidValue)
    assert error.key.endswith(f": architecture.{key}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"macro"',
        b"3",
        b"\xff\xfe\x00",
        b"\x80\x04K\x01.",
        b"{" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"schema": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_candidate_at_all(content: bytes, tmp_path: Path) -> None:
    refused(written(tmp_path, content))


@pytest.mark.parametrize("depth", [100, 300, 400, 500, 700, 800, 900, 930, 960, 980, 1000, 5000])
def test_deeply_nested_values_are_refused_wherever_they_stand(depth: int, tmp_path: Path) -> None:
    text = json.dumps(example().to_json())
    for old in ('"schema": 1', '"filters": [4, 8]', '"data": "mnist5k"', '"architecture": true', '["relu", "sigmoid"]'):
        assert old in text
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            bomb = opening * depth + "1" + closing * depth
            replaced = old.split(":")[0] + ": " + bomb if ":" in old else bomb
            refused(written(tmp_path, text.replace(old, replaced).encode()))


def test_no_depth_of_nesting_lies_between_what_json_and_what_a_message_can_hold(tmp_path: Path) -> None:
    for depth in range(850, 1000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            refused(written(tmp_path, b'{"schema": ' + opening * depth + b"1" + closing * depth + b"}"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "missing.json")
    refused(tmp_path)
    large = written(tmp_path, json.dumps(example().to_json()).encode() + b" " * 1_000_000)
    assert "larger than a candidate can be" in str(refused(large))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    example().write(path)
    for length in reversed(range(len(path.read_bytes().rstrip()))):
        os.truncate(path, length)
        refused(path)


def test_a_flipped_bit_gives_a_refusal_or_the_very_same_candidate(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    example().write(path)
    whole, content = path.read_bytes(), example().to_json()
    refusals = 0
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            try:
                found = read_candidate_file(written(tmp_path, bytes(changed)))
            except (InvalidValue, UnusableInput):
                refusals += 1
            else:
                assert found.to_json() == content  # a blank turned into another blank
    assert 0.9 < refusals / (8 * len(whole)) < 1


def test_a_file_edited_by_hand_is_read_once_its_fingerprint_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "candidate.json"
    example().write(path)
    content = json.loads(path.read_text())
    content["hyperparameters"]["dropout"] = 0.25
    assert "remove its fingerprint" in str(refused(written(tmp_path, content)))
    del content["fingerprint"]
    assert read_candidate_file(written(tmp_path, content)).candidate.hyperparameters["dropout"] == 0.25
    shuffled = dict(reversed(json.loads(json.dumps(content)).items()))
    assert fingerprint(shuffled) == fingerprint(content)


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(example().to_json())
    refused(written(tmp_path, text.replace('"dropout": 0.3', '"dropout": 0.3, "dropout": 0.2').encode()))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[name], (*path, name))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_junk_in_any_place_is_refused_or_harmless(space: SearchSpace, tmp_path: Path) -> None:
    content = example(space).to_json()
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    junk = [None, True, 0, -1, 2, 1.5, math.nan, 10**400, "", "x", "skip", [], ["x"], {}, {"x": 1}, deep]
    refusals = count = 0
    for path in places(content):
        for value in junk:
            broken: Any = copy.deepcopy(content)
            place = {"": broken}
            for name in ("", *path)[:-1]:
                place = place[name]
            place[("", *path)[-1]] = value
            broken = broken if path else value
            refusals += refused_or_whole(written(tmp_path, broken))
            count += 1
    assert refusals > 0.8 * count


def test_further_choices_are_refused_even_where_the_space_is_empty_of_choices(tmp_path: Path) -> None:
    space = Macro([{"type": "dense", "units": 4}], ["relu"], signature=Signature((1, 2, 2), 2))
    content = CandidateFile(
        Candidate(Architecture("macro", {}), Hyperparameters()), space, "digits", "constant"
    ).to_json()
    assert read_candidate_file(written(tmp_path, content)).space.size() == 1
    content["architecture"] = {"layer1.units": "4"}
    refused(written(tmp_path, content))


def test_task_preparation_and_digest_survive_and_a_plain_one_is_written_as_ever(tmp_path: Path) -> None:
    plain = example()
    assert plain.to_json()["schema"] == 1
    assert not {"task", "preparation", "digest"} & plain.to_json().keys()
    of_table = replace(
        plain, task={"name": "regression", "mean": [3.5]}, preparation={"medians": {"age": 31.0}}, digest="0a" * 32
    )
    content = of_table.to_json()
    assert content["schema"] == 2
    assert parse_candidate(json.loads(json.dumps(content))).to_json() == content
    for key, value in {"task": {"loss": "squared"}, "preparation": [], "digest": "0a"}.items():
        with pytest.raises(InvalidValue) as raised:
            parse_candidate({**content, key: value})
        assert raised.value.key == key
