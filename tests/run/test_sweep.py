"""Multiruns: no job decides over the others, and a sweep that is started again goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from nas.errors import InvalidValue
from nas.run.sweep import JobRecord, Sweep, refuse_other_job
from tests.run.test_ownership import Holder
from tests.test_commands import ROOT, call, start

SMALL = ("experiment=debug", "data=digits", "search.epochs=1", "tracking.tensorboard=false", "tracking.console=quiet")


def sweep(*arguments: str, folder: Path) -> tuple[int, str, str]:
    return call("train_search.py", "--multirun", *SMALL, *arguments, "hydra.sweep.dir=sw", folder=folder)


@pytest.mark.parametrize(
    ("codes", "before", "after", "sentence"),
    [
        ([0, 0], 0, 0, "sweep: 2 of 2 jobs done: "),
        ([0, 1, 2], 0, 1, "sweep: 1 of 3 jobs done; failed: 1 (seed=1), 2 (seed=2); go on with: "),
        ([2, 2], 0, 2, "sweep: 0 of 2 jobs done; failed: 0 (seed=0), 1 (seed=1); go on with: "),
        ([0, None], 1, 1, "sweep: 1 of 2 jobs done; failed: 1 (seed=1); go on with: "),  # killed
        ([0, 75], 75, 75, "sweep: 1 of 2 jobs done; stopped: 1 (seed=1); go on with: "),
        ([75, 1], 0, 1, "sweep: 0 of 2 jobs done; failed: 1 (seed=1); stopped: 0 (seed=0); go on with: "),
    ],
)
def test_what_a_sweep_says_at_its_end(
    codes: list[int | None],
    before: int,
    after: int,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, code in enumerate(codes):
        JobRecord(number, ["data=digits", f"seed={number}"], code).write(tmp_path)
    assert Sweep(tmp_path, ExitStack()).conclude("train_search.py", before) == after
    output, error = capsys.readouterr()
    assert (output + error).startswith(sentence)
    assert (output + error).count("\n") == 1


def test_a_sweep_without_jobs_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Sweep(tmp_path, ExitStack()).conclude("train_search.py", 0) == 2
    assert "has no jobs" in capsys.readouterr().err


def test_another_job_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("- seed=0\n- tracking.console=quiet\n")
    refuse_other_job(tmp_path / "0", ["tracking.console=auto", "seed=0"], "job 0")
    with pytest.raises(InvalidValue, match="job 0 began there with seed=0, not with seed=5; name another"):
        refuse_other_job(tmp_path / "0", ["seed=5"], "job 0")


@pytest.mark.slow
def test_a_job_that_fails_does_not_decide_over_the_others_and_the_sweep_goes_on(tmp_path: Path) -> None:
    code, _, error = sweep("seed=0,-1,1", folder=tmp_path)
    assert code == 1
    assert error.splitlines()[-1].startswith("sweep: 2 of 3 jobs done; failed: 1 (seed=-1); go on with: python ")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sw/*/candidate.json")}
    assert {path.parent.name for path in before} == {"0", "2"}
    code, output, _ = sweep("seed=0,-1,1", folder=tmp_path)
    assert code == 1
    assert output.count("is done already") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    code, output, error = sweep("seed=0,7,1", folder=tmp_path)  # what failed had begun nothing
    assert code == 0, error
    assert output.splitlines()[-1] == "sweep: 3 of 3 jobs done: sw"
    code, _, error = sweep("seed=5", folder=tmp_path)
    assert code == 2
    assert "job 0 began there with" in error


@pytest.mark.slow
def test_a_sweep_that_is_stopped_resumes_its_job_and_runs_the_rest(tmp_path: Path) -> None:
    longer = ("search.epochs=30", "search.checkpoint_every=5", "seed=0,1", "hydra.sweep.dir=sw")
    process = start("train_search.py", "--multirun", *SMALL, *longer, folder=tmp_path)
    while not list(tmp_path.glob("sw/0/checkpoints/*.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped: 0 (" in error.splitlines()[-1]
    assert not (tmp_path / "sw" / "1").exists()
    code, output, error = call("train_search.py", "--multirun", *SMALL, *longer, folder=tmp_path)
    assert code == 0, error
    assert "resumed at step " in output
    assert len(list(tmp_path.glob("sw/*/candidate.json"))) == 2


@pytest.mark.slow
def test_a_sweep_of_another_process_is_refused(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "sw")
    code, output, error = sweep("seed=0,1", folder=tmp_path)
    holder.kill()
    assert (code, output) == (2, "")
    assert error.startswith("train_search.py: hydra.sweep.dir=sw is not allowed: process ")
    assert error.count("\n") == 1
    assert [path.name for path in (tmp_path / "sw").iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_retraining_sweep_skips_what_cannot_be_read(tmp_path: Path) -> None:
    code, _, error = call("train_search.py", *SMALL, "hydra.run.dir=a", folder=tmp_path)
    assert code == 0, error
    arguments = ("--multirun", "candidate=a,nothere", "final.epochs=1")
    code, _, error = call("train_final.py", *arguments, folder=tmp_path)
    assert code == 1
    assert "failed: 1 (candidate=nothere)" in error
    assert len(list(tmp_path.glob("runs/sweep_final/*/0/result.json"))) == 1


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_another_launcher_keeps_the_jobs_apart(launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))  # the workers'
    package = f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"
    pytest.importorskip(package, reason=f"pip install hydra-{launcher.partition('_')[0]}-launcher")
    code, _, error = sweep("seed=0,-1,1", f"hydra/launcher={launcher}", folder=tmp_path)
    assert code == 1, error
    assert error.splitlines()[-1].startswith("sweep: 2 of 3 jobs done; failed: 1 (seed=-1); go on with: ")
    code, _, error = sweep("seed=0,-1,1", f"hydra/launcher={launcher}", folder=tmp_path)
    assert code == 1, error
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("sw/jobs/*.json"))]
    assert [one["code"] for one in records] == [0, 2, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "package"),
    [("hydra/launcher=rq", "hydra-rq-launcher"), ("hydra/sweeper=nevergrad", "hydra-nevergrad-sweeper")],
)
def test_a_missing_launcher_names_its_package(option: str, package: str, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train_search.py"), "--multirun", option, "seed=0,1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f" -m pip install {package}.\n")
    assert done.stderr.count("\n") == 1
