"""Two commands at once: whose the run folder is, and that what is recorded is what ran."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.test_commands import ROOT, call, start

QUICK = ("experiment=debug", "data=digits", "search.epochs=2", "final.epochs=1", "tracking.tensorboard=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("owners")
    code, _, error = call("train_search.py", *QUICK, "hydra.run.dir=run", folder=folder)
    assert code == 0, error
    return folder / "run"


def both(one: "subprocess.Popen[str]", two: "subprocess.Popen[str]") -> list[tuple[int, str, str]]:
    ends = [process.communicate(timeout=300) for process in (one, two)]
    return [(process.returncode, *end) for process, end in zip((one, two), ends, strict=True)]


def when_held(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not (folder / ".lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_two_default_searches_at_once_have_a_folder_each(tmp_path: Path) -> None:
    ends = both(*(start("train_search.py", *QUICK, f"seed={seed}", folder=tmp_path) for seed in (1, 2)))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert not any("resumed" in output for _, output, _ in ends)
    folders = sorted((tmp_path / "runs" / "search").iterdir())
    seeds = {yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["seed"] for folder in folders}
    assert len(folders) == 2
    assert seeds == {1, 2}
    for _, output, _ in ends:
        assert sum(output.rstrip().endswith(str(folder)) for folder in folders) == 1


@pytest.mark.slow
def test_two_searches_of_one_name_are_one_search(tmp_path: Path) -> None:
    one = start("train_search.py", *QUICK, "seed=1", "hydra.run.dir=a", folder=tmp_path)
    when_held(tmp_path / "a")
    code, output, error = call("train_search.py", *QUICK, "seed=2", "hydra.run.dir=a", folder=tmp_path)
    assert (code, output) == (2, "")
    assert error.startswith("train_search.py: hydra.run.dir=")
    assert error.count("\n") == 1
    assert one.wait(timeout=300) == 0
    one.communicate()
    assert yaml.safe_load((tmp_path / "a" / ".hydra" / "config.yaml").read_text())["seed"] == 1
    assert "seed=1" in (tmp_path / "a" / ".hydra" / "overrides.yaml").read_text()


@pytest.mark.slow
def test_two_retrainings_of_a_lone_candidate_have_a_folder_each(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "candidate.json", tmp_path)
    arguments = ("train_final.py", "candidate=candidate.json", "data=digits", "final.epochs=1")
    ends = both(start(*arguments, folder=tmp_path), start(*arguments, folder=tmp_path))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert len(list((tmp_path / "runs" / "final").glob("*/result.json"))) == 2


@pytest.mark.slow
def test_a_run_is_resumed_by_one_and_read_by_nobody_who_writes(tmp_path: Path) -> None:
    long = (*QUICK, "search.epochs=200", "search.checkpoint_every=5", "hydra.run.dir=run")
    first = start("train_search.py", *long, folder=tmp_path)
    while not list((tmp_path / "run").glob("checkpoints/*.pt")):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=60) == 75
    first.communicate()
    second = start("train_search.py", "resume=run", folder=tmp_path)
    when_held(tmp_path / "run")
    code, _, error = call("train_search.py", "resume=run", folder=tmp_path)
    assert code == 2
    assert error == (
        f"train_search.py: resume=run is not allowed: process {second.pid} (train_search.py) is writing into it; "
        "wait until it has ended.\n"
    )
    command = [sys.executable, "-m", "nas.report", str(tmp_path / "run")]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert page.returncode == 2
    assert f"process {second.pid} (train_search.py) is writing into it" in page.stderr
    second.kill()
    second.communicate()
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("multirun", [False, True])
def test_relative_paths_are_of_the_folder_where_the_command_was_typed(
    multirun: bool, run: Path, tmp_path: Path
) -> None:
    arguments = ["candidate=run/candidate.json", "final.checkpoint=final weights.pt", "data=digits", "final.epochs=0"]
    shutil.copytree(run, tmp_path / "run")
    call("train_final.py", "candidate=run", "hydra.run.dir=trained", "final.epochs=1", folder=tmp_path)
    shutil.copy(tmp_path / "trained" / "weights.pt", tmp_path / "final weights.pt")
    arguments[1] = "final.checkpoint='final weights.pt'"
    flags = ["--multirun", "seed=0,1", "hydra.sweep.dir=out"] if multirun else ["hydra.run.dir=out"]
    code, _, error = call("train_final.py", *flags, *arguments, "hydra.job.chdir=true", folder=tmp_path)
    assert code == 0, error
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json")]
    first = json.loads((tmp_path / "trained" / "result.json").read_text())
    assert [one["test_loss"] for one in results] == [first["test_loss"]] * (2 if multirun else 1)


@pytest.mark.slow
def test_a_run_is_resumed_from_any_folder(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    code, _, error = call("train_final.py", "candidate=run", "final.epochs=1", "hydra.run.dir=out", folder=tmp_path)
    assert code == 0, error
    (tmp_path / "elsewhere").mkdir()
    code, _, error = call("train_final.py", "resume=../out", folder=tmp_path / "elsewhere")
    assert code == 0, error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a b", "a=b", "a,b", "[x]", "it's ☃, [x]=é", "back\\slash'", "${x}"])
def test_what_is_printed_works_when_typed(name: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / name)
    from nas.run.overrides import typed

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    script = ROOT / "train_search.py"
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def shell(line: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", f"exec {line}"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    resumed = shell(f"{sys.executable} {script} {typed('resume', name)}")
    assert resumed.returncode == 0, resumed.stderr
    following = next(line for line in resumed.stdout.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    retrained = shell(following.replace("python", sys.executable, 1))
    assert retrained.returncode == 0, (following, retrained.stderr)
    assert (tmp_path / name / "final" / "result.json").exists()
    following = next(line for line in retrained.stdout.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    compared = shell(following.removesuffix(" <another run folder>").replace("python", sys.executable, 1))
    assert compared.returncode == 0, (following, compared.stderr)
