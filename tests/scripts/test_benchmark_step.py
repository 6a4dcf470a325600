"""The benchmark of a search step, on spaces so small that it ends at once; its figures mean nothing then."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas.errors import RunFailed
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_step.py"
TINY = {"channels": 2, "cells": 3, "steps": 1, "multiplier": 1, "stem_multiplier": 1}


@pytest.fixture
def full_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # it imports a module beside it
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
    shape: Any = {"signature": Signature((3, 8, 8), 10)}
    monkeypatch.setattr(module, "SHAPE", (3, 8, 8))
    monkeypatch.setattr(module, "darts", lambda **_: lambda which: Darts(**TINY, implementation=which, **shape))
    monkeypatch.setattr(module, "nasbench201", lambda which: NasBench201(2, 1, which, **shape))
    return module


@pytest.mark.slow  # every kind of step
def test_quick_run_prints_every_line_and_sums_up(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "keep_freed_memory", lambda: None)
    code = script.main(["--quick", "--repeats", "1", "--figure", str(tmp_path / "growth.png")])
    lines = capsys.readouterr().out.splitlines()
    figures = [line for line in lines if line.startswith(("reached", "MISSED"))]
    missed = sum(line.startswith("MISSED") for line in figures)
    assert len(figures) == 13
    assert lines[-1] == f"search step: {13 - missed} of 13 targets reached"
    assert code == (1 if missed else 0)
    assert (tmp_path / "growth.png").stat().st_size > 1000
    assert any("GPU" in line for line in lines)
    assert " ".join(" ".join(lines).split()).count("(medians of 1)") == 4  # three tables and the data


def test_quick_run_leaves_out_rows_and_not_repeats(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, tuple[list[str], int]] = {}

    def measured(title: str, cases: dict[str, Any], repeats: int, kept: Any) -> dict[str, Any]:
        taken[title] = list(cases), repeats
        return {name: script.Cost([2.0, 1.0, 3.0], 1e9) for name in cases}

    monkeypatch.setattr(script, "measured", measured)
    monkeypatch.setattr(script, "keep_freed_memory", lambda: None)
    assert script.main(["--quick", "--parts", "first_order", "second_order", "data"]) == 1
    assert {repeats for _, repeats in taken.values()} == {5}
    (quick,) = (names for title, (names, _) in taken.items() if "other kinds" in title)
    script.main(["--parts", "second_order", "second_order_batch64", "nasbench201"])
    full = {title: names for title, (names, _) in taken.items()}
    assert set(full["DARTS, the other kinds of steps, batch 16"]) - set(quick) == {f"{script.AHEAD}, fast"}
    for title in ("DARTS, the other kinds of steps, batch 64", "NAS-Bench-201, 16 channels, 5 cells a stage, batch 64"):
        assert {f"{kind}, fast" for kind in ("finite difference", "exact", script.JOINT)} <= set(full[title])


def test_growth_is_judged_in_time_and_memory(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(title: str, cases: dict[str, Any], repeats: int, kept: Any) -> dict[str, Any]:
        return {size: script.Cost([2.0 * int(size)] * repeats, 1e6 * int(size) ** 2) for size in cases}

    monkeypatch.setattr(script, "measured", measured)
    for quick, sizes in ((True, 4), (False, 15)):
        targets = script.growth(script.Kept(None, ""), 5, quick, tmp_path / "growth.png")
        found = [(target.value, target.reached) for target in targets]
        assert found == [pytest.approx((1.0, True)), pytest.approx((2.0, False))] * 2
        names = ("channels", "cells", "batch", "edges", "operations")
        rows = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith(names)]
        assert len(rows) == sizes


@pytest.mark.slow  # every kind of step
def test_every_one_shot_step_is_compared_with_that_of_darts(
    full_script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, shape = full_script, {"signature": Signature((3, 8, 8), 10)}
    monkeypatch.setattr(script, "SHAPE", (3, 8, 8))
    small: dict[str, Any] = TINY | {"channels": 4}
    monkeypatch.setattr(
        script, "darts", lambda **more: lambda which: Darts(**small, **more, implementation=which, **shape)
    )
    targets = script.one_shot_lines(script.Kept(None, ""), 2, 1)
    bounds = {target.text.partition(": ")[2].partition(" of a step")[0]: target.bound for target in targets}
    assert bounds == {
        "partial channels, k = 4, time": 0.55,
        "partial channels, k = 4, peak memory, share of that of DARTS": 0.5,
        "GDAS, sampled, time": 0.35,
        "beta-DARTS, time": 1.05,
        "DrNAS, time": 1.05,
        "GAEA, time": 1.05,
        "DARTS-, time": 1.1,
        "SDARTS-RS, time": 1.05,
    }
    assert not any(target.at_least for target in targets)
    assert "SDARTS-ADV: " in capsys.readouterr().out


def test_a_one_shot_step_is_compared_turn_by_turn(full_script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    costs = {"DARTS": ([1.0, 10.0, 2.0], 4.0), "GDAS, sampled": ([0.3, 4.0, 1.0], 1.0)}
    ((text, ratio, bound),) = sys.modules["one_shot_steps"].targets_of(costs, "batch 16")
    assert (text, ratio, bound) == ("batch 16: GDAS, sampled, time of a step, share of that of DARTS", 0.4, 0.35)
    assert capsys.readouterr().out == "GDAS, sampled: 0.40 of a step of DARTS in time, 0.25 in memory\n"


def test_a_growth_from_nothing_has_no_exponent(script: ModuleType) -> None:
    assert script.exponent([2, 8], [3.0, 24.0]) == pytest.approx(1.5)
    assert math.isnan(script.exponent([1, 2], [0.0, 1.0]))
    assert math.isnan(script.exponent([1, 2], [math.nan, 1.0]))


def test_memory_on_a_gpu_is_beyond_what_was_allocated(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated = {"now": 300, "peak": 900}
    monkeypatch.setattr(script.torch.cuda, "memory_allocated", lambda: allocated["now"])
    monkeypatch.setattr(script.torch.cuda, "max_memory_allocated", lambda: allocated["peak"])
    monkeypatch.setattr(script.torch.cuda, "reset_peak_memory_stats", lambda: allocated.update(peak=300))
    peak = script.PeakMemory("cuda")
    peak.reset()
    allocated["peak"] = 750
    assert peak.beyond() == 450


class GpuCase:
    """Of a GPU that is not there: its step fails at the given call."""

    device, warm_up = "cuda", 1

    def __init__(self, fails_at: int, error: Exception) -> None:
        self.fails_at, self.error, self.calls = fails_at, error, 0

    def step(self) -> Any:
        def step() -> None:
            self.calls += 1
            if self.calls == self.fails_at:
                raise self.error

        return step


@pytest.mark.parametrize("fails_at", [1, 2, 3])
@pytest.mark.parametrize("error", [RunFailed("no compiler"), RuntimeError("out of memory\nmore"), RuntimeError()])
def test_a_case_that_fails_on_a_gpu_is_a_line(
    script: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
    error: Exception,
) -> None:
    for name in ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(script.torch.cuda, name, lambda: 0)
    monkeypatch.setattr(script.gc, "collect", lambda: 0)  # it takes long where many tests have left their objects
    cases = {"good": GpuCase(0, error), "bad": GpuCase(fails_at, error)}
    costs = script.measured("title", cases, 2, script.Kept(None, ""))
    assert list(costs) == ["good"]
    assert len(costs["good"].seconds) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("failed   title: bad: ")
    assert line.endswith((str(error) or "RuntimeError").splitlines()[0])
    script.show("title", costs, {"good": "bad"})  # without what its ratios are to
    cases["bad"].device, cases["bad"].calls = "cpu", 0
    with pytest.raises(type(error)):
        script.measured("on the CPU", cases, 2, script.Kept(None, ""))


def test_a_gpu_run_prints_what_was_not_measured(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(script.torch.cuda, "get_device_name", lambda: "a GPU")

    def measured(title: str, cases: dict[str, Any], repeats: int, kept: Any) -> dict[str, Any]:
        return {name: script.Cost([4.0 if name == "plain" else 1.0], 1.0) for name in cases if "bf16" not in name}

    monkeypatch.setattr(script, "measured", measured)
    assert script.gpu_lines(script.Kept(None, ""), 1) == []
    text = capsys.readouterr().out
    assert "reached  GPU, batch 16: fast: 4.00 (at least 3)" in text
    assert "GPU, batch 16: fast, compiled, bf16, recorded: not measured" in text


def test_data_are_compared_with_the_fastest_step_of_cpu_and_gpu(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "measured", lambda *_: {"16": script.Cost([2.0], 1.0)})
    monkeypatch.setattr(script, "samples_delivered", lambda batch, device: {"cpu": 1000.0, "cuda": 8000.0}[device])
    kept = script.Kept(None, "")
    (target,) = script.data_lines(kept, 1, (16,))
    assert target.value == pytest.approx(1000 / 16)
    assert "16 consumed by the fastest step, with batches of 16 on the CPU" in capsys.readouterr().out
    monkeypatch.setattr(script.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(script.torch.cuda, "get_device_name", lambda: "a GPU")
    kept.turns[script.gpu_title(64)] = [{"plain": 0.6, "fast": seconds} for seconds in (0.1, 0.2, 0.4)]
    (target,) = script.data_lines(kept, 1, (16,))
    assert target.value == pytest.approx(8000 / 640)
    assert "640 consumed by the fastest step, with batches of 64 on the GPU" in capsys.readouterr().out


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

    def in_own_process(name: str, steps: int, folder: str) -> tuple[list[float], dict[str, float]]:
        assert Path(folder).is_dir()
        asked.append((name, steps))
        graphs = {"graphs": 24.0, "graphs later": 0.0, "graph breaks": 3.0}
        return [90.0 if len(asked) == 1 else 30.0, *[0.25] * steps], graphs

    monkeypatch.setattr(script, "in_own_process", in_own_process)
    kept = script.Kept(None, "")
    for _ in range(2):  # what is measured is kept
        assert script.compiled_lines(kept, 1) == []
    assert [name for name, _ in asked] == ["tiny", "tiny"]
    (line, _) = (line for line in capsys.readouterr().out.splitlines() if "tiny" in line)
    assert line.split()[3] == "0.25"
    assert line.split()[-5:] == ["90", "30", "24", "0", "3"]


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
    with_another = {**cases, "three": Case("three")}
    assert len(script.measured("title", with_another, 2, script.Kept(path, "another setting"))["one"].seconds) == 2
    assert taken[18:] == ["one", "two", "three"] * 3


def test_a_count_below_one_is_refused(script: ModuleType) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--repeats", "0"])
    assert ended.value.code == 2
