"""The tables of results: what is run, resumed and left alone, and what the exit code says."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.run.candidate_file import CandidateFile, read_candidate_file
from nas.signature import Signature
from nas.spaces.darts.space import Darts

Script = Callable[[str], ModuleType]
ENTRY_POINT = """
import json, sys
from pathlib import Path
values = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = Path(values.get("resume") or values["hydra.run.dir"])
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with open(folder / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
if "fail" in values:
    sys.exit(1)
(folder / "result.json").write_text(json.dumps({"test_accuracy": 0.5, "parameters": 10}))
(folder / "candidate.json").write_text("{}")
(folder / "metrics.csv").write_text("step,epoch,tag,value\\n1,0,budget/samples,7.0\\n2,0,budget/samples,9.0\\n")
"""


@pytest.fixture
def command_runs(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with entry points in place of the real ones that only say how they were called."""
    module = script("command_runs")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("train_search.py", "train_final.py"):
        (tmp_path / name).write_text(ENTRY_POINT)
    return module


def test_what_is_there_is_not_run_again_and_what_was_begun_is_resumed(command_runs: ModuleType, tmp_path: Path) -> None:
    runs = command_runs.CommandRuns(tmp_path / "runs", ["a=1"])
    folder = runs.search("joint search, bad start", 3, ["b=2"])
    assert folder == tmp_path / "runs" / "joint_search_bad_start-3"
    assert (folder / "calls").read_text() == f"b=2 a=1 seed=3 hydra.run.dir={folder}\n"
    assert runs.search("joint search, bad start", 3, ["b=2"]) == folder
    (folder / "candidate.json").unlink()
    runs.search("joint search, bad start", 3, ["b=2"])
    assert (folder / "calls").read_text().splitlines()[1:] == [f"resume={folder}"]

    final = folder / "final"
    assert runs.retrain(folder, final, 3) == runs.retrain(folder, final, 3) == {"test_accuracy": 0.5, "parameters": 10}
    assert (final / "calls").read_text() == f"candidate={folder} a=1 seed=3 hydra.run.dir={final}\n"
    assert runs.failures == []


def test_a_failed_run_is_told_and_left_out(command_runs: ModuleType, tmp_path: Path) -> None:
    runs = command_runs.CommandRuns(tmp_path / "runs", ["fail=1"])
    searched = runs.search("s", 0)
    result = runs.retrain(searched, searched / "final", 0)
    assert result is None
    assert [failure.split()[0] for failure in runs.failures] == ["train_search.py", "train_final.py"]
    good = {"test_accuracy": 0.25, "parameters": 4}
    row = command_runs.Row.of([good, None, good], [searched])
    assert row == command_runs.Row([25.0, 25.0], [4, 4], [], [])


def test_a_row_has_the_means_of_its_runs(command_runs: ModuleType, tmp_path: Path) -> None:
    folder = command_runs.CommandRuns(tmp_path / "runs", []).search("s", 0)
    results = [{"test_accuracy": 0.9, "parameters": 1000}, {"test_accuracy": 0.8, "parameters": 2000}]
    cells = command_runs.Row.of(results, [folder]).cells("name")
    assert cells == ("name", "2", "85.00 ± 7.07", "80.00", "1,500", "9", "-")


def test_random_candidates_have_the_hyperparameters_of_their_seed(command_runs: ModuleType, tmp_path: Path) -> None:
    space = Darts(steps=2, multiplier=2, signature=Signature((1, 28, 28), 10))
    searches = {}
    for seed, rate in {0: 0.1, 1: 0.2}.items():
        options = {choice.name: choice.options[0] for choice in space.choices}
        candidate = Candidate(Architecture(space.name, options), Hyperparameters({"learning_rate": rate}))
        searches[seed] = tmp_path / str(seed)
        searches[seed].mkdir()
        CandidateFile(candidate, space, "mnist5k", "cosine").write(searches[seed] / "candidate.json")
    runs = command_runs.CommandRuns(tmp_path / "runs", [])
    assert runs.random_candidate(tmp_path / "failed", 0, 0) is None
    assert runs.retrain(None, tmp_path / "final", 0) is None
    written = [runs.random_candidate(searches[index % 2], index % 2, index) for index in range(4)]
    found = [read_candidate_file(path).candidate for path in written]
    assert [candidate.hyperparameters["learning_rate"] for candidate in found] == [0.1, 0.2, 0.1, 0.2]
    assert len({candidate.architecture for candidate in found}) == 4
    texts = [path.read_text() for path in written]
    for index in range(4):
        runs.random_candidate(searches[index % 2], index % 2, index)
    assert [path.read_text() for path in written] == texts


def test_found_and_random_genotypes_are_trained_alike_and_a_failed_search_is_left_out(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("reproduce_darts_cells")
    trained: list[tuple[Path, Path, int]] = []

    def searched(self: Any, name: str, seed: int) -> Path:
        folder = tmp_path / f"search-{seed}"
        folder.mkdir()
        if seed != 5:
            (folder / "candidate.json").touch()
        return folder

    def retrained(self: Any, candidate: Path | None, folder: Path, seed: int) -> dict[str, Any] | None:
        if candidate is None:
            return None
        trained.append((candidate, folder, seed))
        return {"test_accuracy": 0.9 if folder.parent.name.startswith("search") else 0.5, "parameters": 1}

    def random(self: Any, search: Path, seed: int, index: int) -> Path | None:
        return tmp_path / f"random-{index}.json" if (search / "candidate.json").exists() else None

    monkeypatch.setattr(module.CommandRuns, "search", searched)
    monkeypatch.setattr(module.CommandRuns, "retrain", retrained)
    monkeypatch.setattr(module.CommandRuns, "random_candidate", random)
    rows = module.measured(module.CommandRuns(tmp_path, []), [3, 4, 5], jobs=2)
    assert rows[module.SEARCH].accuracies == [90.0, 90.0]
    assert rows[module.RANDOM].accuracies == [50.0] * 7  # numbers 2, 5 and 8 have no hyperparameters to take
    seeds = {candidate.name: seed for candidate, _, seed in trained if candidate.name.startswith("random")}
    assert seeds == {f"random-{index}.json": 3 + index % 3 for index in range(10) if index % 3 != 2}
    assert len({folder for _, folder, _ in trained}) == 9


@pytest.mark.parametrize(
    ("found", "random", "failures", "code"),
    [
        ([95.0, 93.0], [90.0, 96.0], [], 0),
        ([95.0, 93.0], [95.0, 93.0], [], 1),
        ([95.0], [90.0], ["a run"], 1),
        ([], [90.0], [], 1),
        ([95.0], [], [], 1),
    ],
)
def test_the_exit_code_says_whether_the_search_beats_random_genotypes(
    found: list[float],
    random: list[float],
    failures: list[str],
    code: int,
    script: Script,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = script("reproduce_darts_cells")
    rows = {
        name: module.Row(values, [10.0] * len(values), [], [])
        for name, values in {module.SEARCH: found, module.RANDOM: random}.items()
    }
    assert module.report(rows, [0, 1], failures) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"DARTS cells: {int(code == 0 or bool(failures))} of 1 targets reached, {len(failures)} runs failed"


@pytest.mark.parametrize(
    ("joint", "random", "bad", "code"),
    [(98.5, 98.0, 98.0, 0), (98.5, 98.6, 98.0, 1), (98.1, 98.0, 98.0, 1), (98.5, 98.0, 97.4, 1)],
)
def test_the_main_result_has_three_targets(joint: float, random: float, bad: float, code: int, script: Script) -> None:
    module = script("reproduce_main_result")
    means = {"joint search": joint, "joint search, bad start": bad, module.RANDOM: random}
    rows = {name: module.Row([value], [10.0], [], []) for name, value in means.items()}
    assert module.report(rows, [0], []) == code


def test_the_settings_of_the_darts_cells_compose(script: Script) -> None:
    from hydra import compose, initialize_config_dir

    module = script("reproduce_darts_cells")
    conf = str(Path(__file__).resolve().parents[2] / "conf")
    with initialize_config_dir(conf, version_base="1.3"):
        config = compose("train_search", overrides=list(module.SETTINGS))
    assert config.space._target_ == "nas.spaces.Darts"
    assert sum(config.data.split[part] for part in ("train", "validation", "test")) == 5000
    assert json.dumps(config.hyperparameters.learning_rate.initial) == "0.05"
