"""The benchmark of tasks: n-grams and fields against closed forms, its verdicts, and one small run of everything."""

import csv
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture
def benchmark(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmark_tasks")


@pytest.fixture
def baselines(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("task_baselines")


@pytest.fixture
def data(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("task_data")


def test_n_gram_by_hand(baselines: ModuleType) -> None:
    # "0 1 0 1 0 2": 0 three times, 1 twice, 2 once; behind 0 come 1, 1, 2.
    known, weight = [0, 1, 0, 1, 0, 2], 2.0
    share = weight * 3 / 4  # three different tokens
    unigram = [(count + share / 4) / (6 + share) for count in (3, 2, 1, 0)]
    behind_0 = weight * 2 / 3
    bigram = [(count + behind_0 * unigram[token]) / (3 + behind_0) for token, count in enumerate((0, 2, 1, 0))]
    assert sum(unigram) == pytest.approx(1)
    assert sum(bigram) == pytest.approx(1)
    nats = baselines.nats_per_token(known, [0, 2, 3, 1], 4, 2, weight)
    # Nothing has ever followed 2 or 3: there the unigram is all that is known.
    expected = [unigram[0], bigram[2], unigram[3], unigram[1]]
    assert nats == pytest.approx([-math.log(one) for one in expected], rel=1e-12)


def test_n_grams_are_distributions(baselines: ModuleType) -> None:
    known = np.random.default_rng(0).integers(0, 3, 40).tolist()
    for context in ([0, 1, 2], [2, 2, 2], [1, 0, 1]):
        nats = [baselines.nats_per_token(known, [*context, token], 4, 4, 1.0)[-1] for token in range(4)]
        assert sum(math.exp(-one) for one in nats) == pytest.approx(1, rel=1e-12)


def test_pressure_of_a_uniform_square(data: ModuleType) -> None:
    """Against the Fourier series of Poisson's equation."""
    odd = np.arange(1, 200, 2)
    first, second = np.meshgrid(odd, odd)
    sines = np.sin(first * np.pi / 2) * np.sin(second * np.pi / 2)
    centre = (16 / np.pi**4 * sines / (first * second * (first**2 + second**2))).sum()
    found = data.darcy_pressure(np.full((31, 31), 2.0))
    assert found[15, 15] == pytest.approx(centre / 2, rel=2e-3)
    assert found == pytest.approx(found.T)
    assert found == pytest.approx(found[::-1])


def test_categories_become_columns(baselines: ModuleType) -> None:
    found = baselines.one_hot(torch.tensor([[0.5, 2.0, 0.0], [-1.0, 0.0, 1.0]]), (3, 2))
    assert found.tolist() == [[0.5, 0, 0, 1, 1, 0], [-1, 1, 0, 0, 0, 1]]


def test_tables_are_cut_three_to_one(data: ModuleType, tmp_path: Path) -> None:
    wine = next(one for one in data.problems() if one.name == "wine")
    rows = {}
    for part in ("train", "test"):
        with open(wine.files(tmp_path) / f"{part}.csv", newline="") as file:
            rows[part] = list(csv.DictReader(file))
    assert {part: len(of_part) for part, of_part in rows.items()} == {"train": 133, "test": 45}
    assert sum(row["target"] == "class_1" for row in rows["test"]) == 18
    assert wine.overrides(tmp_path)[1] == f"data.file={tmp_path}/wine/train.csv"


def test_level_and_ahead(benchmark: ModuleType, data: ModuleType) -> None:
    diabetes = next(one for one in data.problems() if one.name == "diabetes")
    values = {"linear": [56.0], "MLP": [60.0, 62.0], "search": [58.0, 58.4]}
    found = benchmark.verdict(diabetes, values)
    assert (found.level, found.ahead, found.best) == (True, False, "linear")
    assert found.sentence == "diabetes: search 58.20, behind linear 56.00; ahead of MLP 61.00"
    found = benchmark.verdict(diabetes, values | {"search": [50.0, 80.0]})
    assert found.level  # 4 worse, give or take 15
    found = benchmark.verdict(diabetes, values | {"search": [55.0, 55.2]})
    assert found.ahead
    assert found.sentence == "diabetes: search 55.10, ahead of all (next linear 56.00); ahead of MLP 61.00"
    found = benchmark.verdict(diabetes, values | {"search": [70.0, 70.1]})
    assert not found.level


def test_what_cannot_be_had_is_left_out_in_words(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert benchmark.main(["--tasks", "series", "--data", "GunPoint", "--folder", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert "left out: GunPoint: it is inside aeon, which is not installed: pip install --no-deps aeon" in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "irises"], "--data=irises is not allowed: it must be one of wine"),
        (["--methods", "oracle"], "--methods=oracle is not allowed: it must be one of 1-NN"),
        (["--seeds", "-1"], "--seeds=-1 is not allowed: it must be at least 0"),
        (["--search-steps", "0"], "--search-steps=0 is not allowed: it must be at least 1"),
        (["search.epoch=3", "--data", "wine"], "Could not override 'search.epoch'."),
    ],
)
def test_mistakes(
    benchmark: ModuleType, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert benchmark.main([*arguments, "--folder", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_run_is_kept(benchmark: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    arguments = ["--quick", "--jobs", "1", "--folder", str(tmp_path), "--data", "diabetes", "--methods"]
    asked = [*arguments, "trivial", "linear", "boosting", "MLP", "search"]
    assert benchmark.main(asked) in (0, 1)
    first = capsys.readouterr()
    assert "diabetes: 5 of 5 runs" in first.err
    assert "70.46" in first.out  # the standard deviation around the training part's mean
    assert benchmark.main(asked) in (0, 1)
    second = capsys.readouterr()
    assert second.out == first.out
    assert "5 runs in" not in second.err


@pytest.mark.slow
def test_two_jobs_make_the_runs_that_one_makes(tmp_path: Path) -> None:
    """As a command: what two processes are sent must not hang on the module that was started."""
    pytest.importorskip("pandas")
    script = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_tasks.py"
    asked = ["--data", "wine", "--methods", "linear", "forest", "--seeds", "0", "1"]
    tables = []
    for jobs in ("1", "2"):
        command = [sys.executable, str(script), *asked, "--jobs", jobs, "--folder", str(tmp_path / jobs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "3 of 3 runs" in done.stderr, done.stderr
        tables.append(
            [line.split()[:-1] for line in done.stdout.splitlines() if line.startswith(("  linear", "  forest"))]
        )
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2
