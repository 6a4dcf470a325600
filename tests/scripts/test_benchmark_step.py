"""The benchmark of a search step, on spaces so small that it ends at once; its figures mean nothing then."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas.spaces.darts import Darts
from nas.spaces.nasbench201 import NasBench201

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_step.py"
TINY = {"channels": 2, "cells": 3, "steps": 1, "multiplier": 1, "stem_multiplier": 1}


@pytest.fixture
def full_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_step", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "benchmark_step", module)  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def script(full_script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = full_script
    shape: Any = {"input_shape": (3, 8, 8), "classes": 10}
    monkeypatch.setattr(module, "SHAPE", (3, 8, 8))
    monkeypatch.setattr(module, "darts", lambda **_: lambda which: Darts(**TINY, implementation=which, **shape))
    monkeypatch.setattr(module, "nasbench201", lambda which: NasBench201(2, 1, which, **shape))
    return module


def test_quick_run_prints_every_line_and_sums_up(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "keep_freed_memory", lambda: None)
    code = script.main(["--quick", "--repeats", "1", "--figure", str(tmp_path / "growth.png")])
    lines = capsys.readouterr().out.splitlines()
    figures = [line for line in lines if line.startswith(("reached", "MISSED"))]
    missed = sum(line.startswith("MISSED") for line in figures)
    assert len(figures) == 9
    assert lines[-1] == f"search step: {9 - missed} of 9 targets reached"
    assert code == (1 if missed else 0)
    assert (tmp_path / "growth.png").stat().st_size > 1000
    assert any("GPU" in line for line in lines)


@pytest.mark.slow
def test_the_other_spaces_have_tables(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.nasbench201_lines(script.Kept(None, ""), 1)
    script.macro_lines(script.Kept(None, ""), 1)
    text = capsys.readouterr().out
    assert "NAS-Bench-201" in text
    assert "macro space" in text


def test_what_compiling_brings_and_takes_is_a_table(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {"tiny": script.Case(script.darts(), 4, compiled=True)}
    monkeypatch.setattr(script, "COMPILED", cases)
    asked: list[tuple[str, int]] = []

    def in_own_process(name: str, steps: int, folder: str) -> list[float]:
        assert Path(folder).is_dir()
        asked.append((name, steps))
        return [90.0 if len(asked) == 1 else 30.0, *[0.25] * steps]

    monkeypatch.setattr(script, "in_own_process", in_own_process)
    kept = script.Kept(None, "")
    for _ in range(2):  # what is measured is kept
        assert script.compiled_lines(kept, 1) == []
    assert [name for name, _ in asked] == ["tiny", "tiny"]
    (line, _) = (line for line in capsys.readouterr().out.splitlines() if "tiny" in line)
    assert line.split()[3] == "0.25"
    assert line.split()[-2:] == ["90", "30"]


def test_every_size_of_the_growth_is_one_that_the_space_has(full_script: ModuleType) -> None:
    for points in full_script.sweeps_of(16).values():
        assert all(case.space("fast").name == "darts" for _, case in points)


def test_what_was_kept_is_not_measured_again(script: ModuleType, tmp_path: Path) -> None:
    taken: list[str] = []

    class Case:
        device, warm_up = "cpu", 1

        def __init__(self, name: str) -> None:
            self.name = name

        def step(self) -> Any:
            return lambda: taken.append(self.name)

    cases, path = {"one": Case("one"), "two": Case("two")}, tmp_path / "kept.json"
    first = script.measured("title", cases, 2, script.Kept(path, "setting"))
    assert taken == ["one", "two"] * 3  # once to warm up
    more = script.measured("title", cases, 3, script.Kept(path, "setting"))
    assert taken == ["one", "two"] * 5
    assert more["one"].seconds[:2] == first["one"].seconds
    assert script.measured("title", cases, 3, script.Kept(path, "setting")) == more
    assert taken == ["one", "two"] * 5
    script.measured("title", cases, 3, script.Kept(path, "another setting"))
    assert taken == ["one", "two"] * 9


def test_a_count_below_one_is_refused(script: ModuleType) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--repeats", "0"])
    assert ended.value.code == 2
