"""The statistics of the comparison, and its way through a whole run."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("compare_methods")


def test_intervals_are_students(script: ModuleType) -> None:
    values = [97.0, 98.0, 98.5, 97.5]
    low, high = stats.t.interval(0.95, 3, loc=97.75, scale=stats.sem(values))
    assert script.half_interval(values) == pytest.approx((high - low) / 2)


def results(script: ModuleType, **accuracies: list[float]) -> list[object]:
    return [
        script.Result("samples", method, seed, accuracy, 10, 20, 30.0, 40.0, 5)
        for method, own in accuracies.items()
        for seed, accuracy in enumerate(own)
    ]


def test_pairs_are_compared_seed_by_seed(script: ModuleType) -> None:
    random = [0.900 + 0.001 * seed for seed in range(10)]
    better = [value + 0.01 + 0.0001 * seed for seed, value in enumerate(random)]
    found = results(script, random=random, genetic=better, tpe=random[:9])
    tests = script.paired_tests("samples", found)
    pair = next(one for one in tests if (one.first, one.second) == ("random", "genetic"))
    assert pair.p == pytest.approx(2 / 2**10)  # all ten differences have one sign
    assert pair.difference == pytest.approx(-1.045)
    assert pair.p_holm == pytest.approx(3 * 2 / 2**10)
    same = next(one for one in tests if (one.first, one.second) == ("random", "tpe"))
    assert (same.seeds, same.p) == (9, 1.0)
    told = script.sentence("samples", found, tests)
    assert "genetic has the highest mean" in told
    assert "ahead of random, tpe" in told
    level = script.sentence("samples", results(script, random=random, tpe=random), [])
    assert "ahead of none beyond chance" in level


@pytest.mark.slow
def test_a_whole_comparison_is_made_once_and_said_again(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare_methods.py", "--data", "digits", "--seeds", "0", "1", "--samples", "4000"]
    arguments += ["--methods", "gradient, joint", "random", "tpe", "--folder", str(tmp_path / "runs")]
    sizes = ["data.split={train:400,validation:100,test:300}", "training.batch_size=32", "final.epochs=2"]
    layers = [
        "space.layers=[{type:conv,filters:[4,8],kernel_size:[1,3]},{type:pool,pool_size:2},{type:dense,units:[8,16]}]"
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, *sizes, *layers])
    assert script.main() == 0
    first = capsys.readouterr().out
    folder = tmp_path / "runs"
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert all(int(row["samples"]) <= 4000 for row in rows if row["budget"] == "samples")
    spent = {row["method"]: float(row["multiply_adds"]) for row in rows if row["budget"] == "multiply-adds"}
    assert spent["random"] > 0.7 * spent["gradient, joint"]
    for name in ("tables.txt", "tests.csv", "anytime.csv", "anytime.png"):
        assert (folder / name).stat().st_size > 0
    result = json.loads((folder / "random-0" / "final" / "result.json").read_text())
    assert result["epochs"] == 2
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert script.main() == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == stamps
    monkeypatch.setattr(sys, "argv", [*arguments, *sizes, *layers, "training.momentum=0.5"])
    assert script.main() == 1
    assert "was made with other settings" in capsys.readouterr().err
