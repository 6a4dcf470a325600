"""A truth: the same rows for any number of jobs, resumed rows, mistakes in one sentence."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from nas.evaluation.truth import read_truth

SMALL = (
    "experiment=debug",
    "data.split.train=64",
    "data.split.validation=40",
    "data.split.test=40",
    "final.epochs=2",
)


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("make_truth")


def called(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["make_truth.py", *SMALL, *arguments])
    code = script.main()
    assert isinstance(code, int)
    return code


def without_times(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    place = lines[1].split(",").index("cpu_seconds")
    return [lines[0], *(",".join(row.split(",")[:place] + row.split(",")[place + 1 :]) for row in lines[1:])]


@pytest.mark.slow  # two processes import everything anew
def test_two_jobs_write_the_same(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, two = (tmp_path / f"{name}.csv" for name in ("one", "two"))
    assert called(script, monkeypatch, "--rows", "4", "--repeats", "2x1", "--output", str(one)) == 0
    assert called(script, monkeypatch, "--rows", "4", "--repeats", "2x1", "--jobs", "2", "--output", str(two)) == 0
    assert without_times(one) == without_times(two)


def test_a_resumed_run_writes_the_same(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, grown = (tmp_path / f"{name}.csv" for name in ("one", "grown"))
    assert called(script, monkeypatch, "--rows", "4", "--repeats", "2x1", "--output", str(one)) == 0
    rows = grown.with_name("grown.csv.rows")
    kept: list[str] = []
    write = script.Truth.write
    monkeypatch.setattr(script.Truth, "write", lambda self, path: kept.append(rows.read_text()) or write(self, path))
    assert called(script, monkeypatch, "--rows", "2", "--repeats", "0x0", "--output", str(grown)) == 0
    rows.write_text(kept[0] + '{"number": 2, "rep')  # what a kill leaves behind
    trained: list[int] = []
    train = script.trained_row
    monkeypatch.setattr(script, "trained_row", lambda *given: trained.append(given[2]) or train(*given))
    assert called(script, monkeypatch, "--rows", "4", "--repeats", "2x1", "--output", str(grown)) == 0
    assert trained == [0, 2, 2, 3]  # the repeat of 0, then what was missing
    assert without_times(grown) == without_times(one)
    assert capsys.readouterr().out.splitlines()[-1].startswith("truth: 6 trainings of 4 candidates; test accuracy at")


def test_a_row_is_what_the_evaluator_would_have_found(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "truth.csv.gz"
    assert called(script, monkeypatch, "--rows", "2", "--repeats", "0x0", "--output", str(path)) == 0
    truth = read_truth(path)
    scratch = importlib.import_module("nas.evaluation.scratch")
    objective = importlib.import_module("nas.evaluation.objective")
    problem = script.problem_of(script.typed_configuration(SMALL))
    row = truth.rows[1]
    monkeypatch.setattr(type(problem.setup), "seed_for", lambda self, candidate: row.seed)
    score = objective.Fixed({"accuracy": 1.0}, 0.0, {}, space=problem.setup.space)
    evaluator = scratch.TrainedFromScratch(problem.epochs, setup=problem.setup, objective=score)
    (found,) = evaluator.evaluate([row.candidate])
    assert row.results["validation_loss"] == pytest.approx(found.metrics["loss"], rel=1e-9)
    assert row.results["validation_accuracy"] == found.metrics["accuracy"]
    assert (row.results["samples"], row.results["multiply_adds"]) == (found.cost.samples, found.cost.multiply_adds)
    assert row.losses[-1] == pytest.approx(row.results["validation_loss"], rel=1e-5)
    assert len(row.losses) == len(row.accuracies) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--rows", "1"), "--rows=1 is not allowed: it must be at least 2"),
        (("--rows", "3", "--repeats", "4x1"), "--repeats=4x1"),
        (("--repeats", "lots"), "--repeats=lots"),
        (("--jobs", "0"), "--jobs=0"),
        (("data.split.train=0",), "data.split.train=0"),
        (("nothing=1",), "nothing"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    assert called(script, monkeypatch, *arguments, "--output", str(tmp_path / "truth.csv")) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_configuration_are_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "truth.csv"
    held = json.dumps({"data": "another"})
    path.with_name("truth.csv.rows").write_text(f"{held}\n")
    assert called(script, monkeypatch, "--rows", "2", "--repeats", "0x0", "--output", str(path)) == 2
    assert "holds rows of another configuration" in capsys.readouterr().err
    assert path.with_name("truth.csv.rows").read_text() == f"{held}\n"
