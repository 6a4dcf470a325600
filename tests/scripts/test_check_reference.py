"""The replay of reference files: exit codes and what is printed."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from nas.interop.original_state import to_original
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.space import Darts

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_reference.py"
Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def main() -> Main:
    specification = importlib.util.spec_from_file_location("check_reference", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


def altered(source: Path, target: Path, changes: dict[str, np.ndarray | None]) -> str:
    """A copy of a .npz file with entries replaced, or left out where the change is None."""
    with np.load(source, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    np.savez(target, **{name: array for name, array in (content | changes).items() if array is not None})
    return str(target)


def test_nasbench201_files_are_reproduced(main: Main, data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(data_folder / name) for name in ("nasbench201_eval_c4_n1.npz", "nasbench201_parameters.json")]
    assert main(files) == 0
    printed = capsys.readouterr().out
    assert "eval_logits" in printed
    assert printed.splitlines()[-1] == "13 of 13 quantities within tolerance"


def test_published_genotypes_are_reproduced(main: Main, data_folder: Path, tmp_path: Path) -> None:
    content = json.loads((data_folder / "published_genotypes.json").read_text())
    content = {name: content[name] for name in ("DARTS_V2", "AmoebaNet")}
    (tmp_path / "counts").write_text(json.dumps(content))  # recognised by what it holds, not by its name
    assert main([str(tmp_path / "counts")]) == 0
    content["DARTS_V2"]["imagenet_C48_L14"]["parameters_total"] += 1
    (tmp_path / "counts").write_text(json.dumps(content))
    assert main([str(tmp_path / "counts")]) == 1


def test_evaluation_of_darts_is_reproduced(main: Main, reference_folder: Path, tmp_path: Path) -> None:
    source = reference_folder / "darts_v2_eval_c4_l5.npz"
    assert main([str(source)]) == 0
    logits = np.load(source)["eval_logits"] + np.array([1e-9, *[0.0] * 9])
    assert main([altered(source, tmp_path / "altered.npz", {"eval_logits": logits})]) == 1


def test_search_is_reproduced_and_every_quantity_counts(
    main: Main, reference_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = reference_folder / "darts_search_c4_l3.npz"
    content = np.load(source)
    genotype = json.loads(str(content["second/genotype_after"]))
    genotype["reduce"][0][0] = "max_pool_3x3"
    changes = {
        "first/grad_alphas_normal": content["first/grad_alphas_normal"] * (1 + 1e-7),
        "second/grad_alphas_reduce": content["second/grad_alphas_reduce"] * (1 + 1e-4),
        "second/alphas_normal_after": content["second/alphas_normal_after"] * (1 + 1e-4),
        "second/genotype_after": np.array(json.dumps(genotype)),
    }
    assert main([altered(source, tmp_path / "altered.npz", changes)]) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().endswith(("ok", "past"))]
    assert {row[0] for row in rows if row[-1] == "past"} == set(changes)
    assert len(rows) == 18


def test_recurrent_networks_are_reproduced_and_every_quantity_counts(
    main: Main, reference_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = reference_folder / "recurrent" / "rnn_eval_n8_t7.npz"
    content = np.load(source)
    changes = {
        "enas/eval_log_probabilities": content["enas/eval_log_probabilities"] * (1 + 1e-9),
        "darts_v1/dropout/grad/encoder.weight": content["darts_v1/dropout/grad/encoder.weight"] * (1 + 1e-9),
        "training/average_after/decoder.bias": content["training/average_after/decoder.bias"] * (1 + 1e-9),
    }
    assert main([altered(source, tmp_path / "altered.npz", changes)]) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().endswith(("ok", "past"))]
    assert {row[0] for row in rows if row[-1] == "past"} == set(changes)
    assert len(rows) == 139


@pytest.mark.slow
def test_the_recurrent_search_is_reproduced(
    main: Main, reference_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(reference_folder / "recurrent" / "rnn_search_n8_t6.npz")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "483 of 483 quantities within tolerance"


def test_numbers_that_are_not_finite_are_past_any_tolerance(main: Main, data_folder: Path, tmp_path: Path) -> None:
    source = data_folder / "nasbench201_eval_c4_n1.npz"
    logits = np.load(source)["eval_logits"]
    logits[0, 0] = np.nan
    assert main([altered(source, tmp_path / "altered.npz", {"eval_logits": logits})]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": None},
        {"arch": np.array("|none~0|")},
        {"eval_logits": None},
        {"eval_logits": np.zeros((2, 11))},
        {"x": np.zeros(3)},
        {"x": np.zeros((2, 1, 16, 16))},
        {"x": np.array("images")},
        {"config": np.array("{")},
        {"config": np.array("[" * 100_000)},
        {"config": np.array('{"C": 5, "N": 1, "classes": 10}')},
        {"config": np.array('{"C": 4, "N": 1000000000, "classes": 10}')},
        {"config": np.array('{"C": "4", "N": 1, "classes": 10}')},
        {"state/classifier.bias": None},
        {"state/classifier.bias": np.array(["a"])},
        {"state/more": np.zeros(1)},
    ],
)
def test_files_that_cannot_be_replayed(
    changes: dict[str, np.ndarray | None],
    main: Main,
    data_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = altered(data_folder / "nasbench201_eval_c4_n1.npz", tmp_path / "altered.npz", changes)
    assert main([file]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"{file} cannot be replayed: ")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 no archive",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"3",
        b'{"NASNet": 3}',
        b'{"NASNet": {"genotype": {}}}',
        b'{"Cell": {"genotype": {"normal": [["skip_connect", 0], ["skip_connect", 1]], "normal_concat": [2], '
        b'"reduce": [["skip_connect", 0], ["skip_connect", 1]], "reduce_concat": [2]}}}',  # and no counts
        b'[{"arch": "|none~0|", "channels": 16}]',
        b"index,arch\n0,|none~0|\n",
    ],
)
def test_unknown_files(content: bytes, main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unknown").write_bytes(content)
    assert main([str(tmp_path / "unknown")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_missing_and_good_files_in_one_call(
    main: Main, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (data_folder / "nasbench201_eval_c4_n1.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:400] + bytes([whole[400] ^ 255]) + whole[401:])
    names = [tmp_path / "half.npz", tmp_path / "flipped.npz", tmp_path / "missing.npz", tmp_path]
    files = [str(data_folder / "nasbench201_eval_c4_n1.npz"), *map(str, names)]
    assert main(files) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "1 of 1 quantities within tolerance, 4 of 5 files unusable"
    assert printed.err.count("\n") == 4


def tiny_search() -> dict[str, np.ndarray]:
    """A search with one step whose results are made up."""
    torch.manual_seed(0)
    space = Darts(channels=2, cells=3, steps=1, multiplier=1, stem_multiplier=1, signature=Signature((1, 8, 8), 2))
    state = to_original(supernet := space.supernet(Softmax(Temperature())), supernet.state_dict())
    constants = {"C": 2, "layers": 3, "classes": 2, "steps": 1, "multiplier": 1, "stem_multiplier": 1, "lr": 0.1}
    constants |= {"momentum": 0.9, "weight_decay": 0.0, "arch_lr": 0.1, "arch_weight_decay": 0.0, "grad_clip": 5}
    rest = {"arch_betas": [0.5, 0.999], "search_steps": 1, "finite_difference_scale": 0.01}
    edges = [["skip_connect", 0], ["skip_connect", 1]]
    genotype = {"normal": edges, "normal_concat": [2], "reduce": edges, "reduce_concat": [2]}
    content = {f"init/{name}": tensor.numpy() for name, tensor in state.items()}
    content |= {"x": np.random.default_rng(0).normal(size=(2, 2, 1, 8, 8)), "y": np.zeros((2, 2), dtype=np.int64)}
    content |= {"config": np.array(json.dumps(constants | rest))}
    content |= {"first/val_logits": np.zeros((2, 2)), "first/val_loss": np.zeros(())}
    for order in ("first", "second"):
        content |= {f"{order}/train_losses_1_steps": np.zeros(1), f"{order}/stem_weight_after": np.zeros((2, 1, 3, 3))}
        content |= {f"{order}/{kind}_after": np.zeros((2, 8)) for kind in ("alphas_normal", "alphas_reduce")}
        content |= {f"{order}/grad_alphas_{cell}": np.zeros((2, 8)) for cell in ("normal", "reduce")}
        content |= {f"{order}/classifier_weight_after": np.zeros(supernet.classifier.weight.shape)}
        content |= {f"{order}/genotype_after": np.array(json.dumps(genotype))}
    return content


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({}, 1, "first/val_logits"),
        ({"init/classifier.bias": np.full(2, np.nan)}, 1, "second/genotype_after"),
        ({"init/alphas_reduce": None}, 2, "it has no entry init/alphas_reduce"),
        ({"init/alphas_normal": np.zeros(8)}, 2, "its entry init/alphas_normal has 1 dimensions"),
        ({"y": np.full((2, 2), 2)}, 2, "a label that is none of 2 classes"),
        ({"config": {"arch_betas": [0.5, 1.0]}}, 2, "arch_betas=[0.5, 1.0] instead of numbers below 1"),
        ({"config": {"search_steps": 2}}, 2, "no two batches for each of 2 steps"),
        ({"second/genotype_after": np.array("{}")}, 2, "genotype=[]"),
    ],
)
def test_searches_that_are_past_or_cannot_be_replayed(
    changes: dict[str, Any], code: int, told: str, main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tiny_search()
    if "config" in changes:
        changes = {"config": np.array(json.dumps(json.loads(str(content["config"])) | changes["config"]))}
    content = {name: array for name, array in (content | changes).items() if array is not None}
    np.savez(tmp_path / "search.npz", **content)
    assert main([str(tmp_path / "search.npz")]) == code
    printed = capsys.readouterr()
    assert told in (printed.err if code == 2 else printed.out)
    assert printed.err.count("\n") == (code == 2)


def test_searches_are_replayed_in_the_order_of_the_original(script: Callable[[str], ModuleType]) -> None:
    """The fast supernet sums in another order, which a finite difference can magnify a millionfold."""
    darts, reference = script("replays.darts"), script("replays.reference")
    assert darts.SearchReplay(reference.ArrayFile(tiny_search())).space.implementation == "plain"
