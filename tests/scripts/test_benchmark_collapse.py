"""The benchmark of collapse: its settings, its tables with made-up results, and one small run of everything."""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SMALL = (
    "data.split={train:32,validation:32,test:64}",
    "training.batch_size=16",
    "space.cells=3",
    "space.final_cells=3",
    "space.final_channels=4",
    "final.epochs=1",
)


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmark_collapse")


def made(script: ModuleType, images: Path) -> Any:
    return script.Benchmark(importlib.import_module("cached_runs").CachedRuns(Path("nowhere"), 1), images, 50)


def test_methods_have_settings_of_their_own(script: ModuleType) -> None:
    benchmark = made(script, Path("nowhere"))
    composed = importlib.import_module("cached_runs").composed
    methods = script.methods(50)
    assert len(set(methods.values())) == len(methods)
    config = composed(benchmark.settings("darts_s2", "pc_darts"), 0)
    assert list(config.space.operations) == ["skip_connect", "sep_conv_3x3"]
    assert (config.search.epochs, config.search.warmup_epochs) == (50, 15)
    assert {"stopping.every=2", "stopping.first_epoch=10"} <= set(methods["robust_darts_es"])
    trained = composed(benchmark.settings("darts_s2"), 0)
    assert (config.data.split.train, trained.data.split.train) == (300, 600)
    assert (
        config.search.architecture.rate,
        composed(benchmark.settings("darts_s2", "gaea"), 0).search.architecture.rate,
    ) == (0.03, 1.0)


def test_images_are_shrunk_and_always_the_same(script: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "other"):
        script.write_images(tmp_path / name)
    for name, side in {script.SEARCHED: 7, script.RETRAINED: 14}.items():
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
        with np.load(tmp_path / "one" / name) as content:
            assert content["x"].shape == (5000, side, side)
            assert np.bincount(content["y"]).tolist() == [500] * 10


@pytest.mark.slow
def test_every_method_goes_with_every_space(script: ModuleType, tmp_path: Path) -> None:
    script.write_images(tmp_path)
    benchmark = made(script, tmp_path)
    for space in script.SPACES:
        for name in script.methods(50):
            benchmark.check(space, name)


class MadeUp:
    """Stands in for the kept runs: the normal cell of a seed has so many skips as its method says, and each of them
    costs a tenth of the accuracy."""

    computed = 0

    def __init__(self, script: ModuleType, skips: dict[str, Sequence[int]], fails: str = "") -> None:
        self.script, self.skips, self.fails = script, skips, fails

    def outcomes(self, runs: Sequence[Any], what: str) -> list[Any]:
        outcome = importlib.import_module("cached_runs").Outcome
        if "trainings" in what:
            architectures = [json.loads(run.candidate)["architecture"] for run in runs]
            return [outcome(validation_accuracy=0.5, test_accuracy=0.9 - 0.1 * skips) for skips in architectures]
        found = []
        for run, name in zip(runs, (name for name in self.skips if name != "random"), strict=True):
            candidate = {
                "hyperparameters": {},
                **dict.fromkeys(("schema", "data", "space", "schedule", "schedule_end"), 0),
                "architecture": self.skips[name][run.seed],
            }
            failed = name == self.fails and run.seed == 0
            found.append(outcome(failure="it diverged") if failed else outcome(seconds=60.0, candidate=candidate))
        return found


def run(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, skips: dict[str, Sequence[int]], fails: str = ""
) -> int:
    monkeypatch.setattr(script, "CachedRuns", lambda *_: MadeUp(script, skips, fails))
    monkeypatch.setattr(script, "skips", lambda search: search.candidate["architecture"])
    drawn = skips.get("random", [])
    monkeypatch.setattr(
        script,
        "drawn",
        lambda search, seed: replace(search, candidate={**search.candidate, "architecture": drawn[seed]}),
    )
    monkeypatch.setattr(script, "write_images", lambda folder: None)
    monkeypatch.setattr(script.Benchmark, "check", lambda *_: None)
    seeds = [str(seed) for seed in range(len(skips["darts"]))]
    options = ["--methods", *list(skips)[1:], "--seeds", *seeds, "--spaces", "darts_s2", "--folder", str(folder)]
    return int(script.main(options))


def test_collapse_and_what_prevents_it_are_told(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    skips = {"darts": [8, 7] * 4, "darts_pt": [2, 3] * 4, "gaea": [8, 6] * 4, "fair_darts": [8] * 8, "random": [4] * 8}
    assert run(script, monkeypatch, tmp_path, skips) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0]: " ".join(line.split()) for line in printed.splitlines() if line.strip()}
    assert rows["darts_pt"] == "darts_pt 2.50 ± 0.53 50.00 ± 0.00 65.00 ± 5.35 60 8"
    assert rows["random"].startswith("random 4.00 ± 0.00 50.00 ± 0.00 50.00 ± 0.00")
    said = [line.removeprefix("darts_s2: ") for line in printed.splitlines() if line.startswith("darts_s2: ")]
    better = (
        "darts_pt ({}, p 0.023), gaea ({}, p 0.250); significantly darts_pt".format(*of)
        for of in (("-5.0", "-0.5"), ("+50.0", "+5.0"))
    )
    assert said == [
        "DARTS collapses: beside random cells +3.50 skips (p 0.016) and -35.00 points (p 0.016)",
        f"fewer skips than DARTS: on average {next(better)}",
        f"a higher test accuracy than DARTS: on average {next(better)}",
    ]
    assert printed.endswith(f"collapse: 40 of 40 searches done and retrained: {tmp_path}\n")


@pytest.mark.parametrize(
    ("darts", "random", "said"),
    [
        ([2] * 8, [3] * 8, "DARTS does not collapse: beside random cells -1.00 skips (p 0.016) and +10.00 points"),
        ([4] * 2, [3] * 2, "DARTS leans to a collapse that is not significant: beside random cells +1.00 skips (p 1.0"),
    ],
    ids=["fewer", "two_seeds"],
)
def test_no_collapse_is_told(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    darts: list[int],
    random: list[int],
    said: str,
) -> None:
    assert run(script, monkeypatch, tmp_path, {"darts": darts, "random": random}) == 0
    printed = capsys.readouterr().out
    assert f"darts_s2: {said}" in printed
    assert "darts_s2: no method can be compared with DARTS\n" in printed


def test_too_few_seeds_are_told(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, monkeypatch, tmp_path, {"darts": [8] * 5, "darts_pt": [0] * 5}) == 0
    said = "darts_pt (-8.0, p 0.062); significantly none (5 seed(s) cannot show it for 1 method(s), 6 can)"
    assert f"fewer skips than DARTS: on average {said}\n" in capsys.readouterr().out
    assert run(script, monkeypatch, tmp_path, {"darts": [0] * 6, "darts_pt": [8] * 6}) == 0
    assert "fewer skips than DARTS: none on average; significantly none\n" in capsys.readouterr().out


def test_a_failed_search_is_a_line_and_the_exit_code(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, monkeypatch, tmp_path, {"darts": [8, 8], "gaea": [1, 1]}, "gaea") == 1
    said = capsys.readouterr()
    assert said.err == "failed: darts_s2, gaea, seed 0: it diverged\n"
    assert "collapse: 3 of 4 searches done" in said.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--methods", "snas"], "--methods=snas is not allowed: it must be one of darts, sdarts_rs"),
        (["--jobs", "0"], "--jobs=0 is not allowed"),
        (["--epochs", "0"], "--epochs=0 is not allowed"),
        (["--seeds", "-1"], "--seeds=-1 is not allowed"),
        (["regulariser=beta_decay", "--methods", "gaea"], "relaxation=Simplex is not allowed"),
        (["final.epoch=3", "--methods", "gaea"], "Could not override 'final.epoch'."),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert script.main(["--spaces", "darts_s2", "--folder", str(tmp_path / "runs"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"benchmark_collapse.py: {said}")
    assert not (tmp_path / "runs").exists()


def test_a_stopped_benchmark_says_how_to_go_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MadeUp, "outcomes", stopped)
    assert run(script, monkeypatch, tmp_path, {"darts": [8], "gaea": [1]}) == 75
    assert "the same command goes on (0 runs were added)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_run_is_kept(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--methods",
        "sdarts_rs",
        "random",
        "--spaces",
        "darts_s2",
        "--seeds",
        "0",
        "--epochs",
        "1",
        "--jobs",
        "1",
    ]
    command = [*options, "--folder", str(tmp_path), *SMALL]
    assert script.main(command) == 0
    first = capsys.readouterr()
    assert "searches: 2 of 2 runs" in first.err
    assert script.main(command) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err == ""
