"""The two commands as a user types them: what they write and print."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nas.run.candidate_file import read_candidate_file

ROOT = Path(__file__).resolve().parent.parent
BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # no run needs more than such a locale
SMALL = ("experiment=debug", "search.epochs=3", "final.epochs=6")


def start(script: str, *arguments: str, folder: Path, **variables: str) -> "subprocess.Popen[str]":
    """The command in a process of its own, with ``folder`` as working directory."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    pipe = subprocess.PIPE
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def call(script: str, *arguments: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    process = start(script, *arguments, folder=folder, **variables)
    output, error = process.communicate(timeout=300)
    return process.returncode, output, error


def recorded(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """An undisturbed search and its retraining: the run folder, and what the two commands printed."""
    folder = tmp_path_factory.mktemp("finished")
    code, searched, error = call("train_search.py", *SMALL, "hydra.run.dir=run", folder=folder, **BARE)
    assert (code, error) == (0, "")
    code, retrained, error = call("train_final.py", "candidate=run", folder=folder)
    assert (code, error) == (0, "")
    return folder / "run", searched, retrained


def test_a_search_learns_a_network_that_works(finished: tuple[Path, str, str]) -> None:
    run, searched, retrained = finished
    result = json.loads((run / "final" / "result.json").read_text())
    assert result["test_accuracy"] > 0.9
    assert {"test_loss", "parameters", "seed", "epochs", "candidate"} <= result.keys()
    assert result["epochs"] == 6  # inherited from the search's own settings
    found = read_candidate_file(run / "candidate.json")
    assert result["candidate"] == found.to_json()
    assert f"candidate={run.name}" in searched or str(run) in searched
    for name in ("data", "architecture", "hyperparameters", "parameters", "search time", "test accuracy"):
        assert name in retrained


def test_both_commands_end_with_the_page_the_next_command_and_the_folder(finished: tuple[Path, str, str]) -> None:
    run, searched, retrained = finished
    page, following, done = searched.splitlines()[-3:]
    assert page.startswith("page: ")
    assert page.endswith("run/report.html")
    called = shlex.split(following.removeprefix("next: "))  # typed from another folder, for any shell
    assert os.path.samefile(shutil.which(called[0]) or called[0], sys.executable)
    assert called[1] == str(ROOT / "train_final.py")
    assert done.endswith(str(run))
    page, following, done = retrained.splitlines()[-3:]
    assert page == "page: run/report.html"  # the search's, with its retraining
    assert re.match(r"next: \S*python\S* -m nas\.report compare ", following)
    assert done.endswith("result.json")
    html = (run / "report.html").read_text()
    result = json.loads((run / "final" / "result.json").read_text())
    assert f"{100 * result['test_accuracy']:.2f} % test accuracy" in html
    files = ("environment.json", "discretisation.json", "figures/architecture.svg", "final/network.py")
    assert all((run / name).is_file() for name in files)


def test_the_result_can_be_rebuilt_from_its_files(finished: tuple[Path, str, str]) -> None:
    run, _, _ = finished
    found = read_candidate_file(run / "candidate.json")
    network = found.space.network(found.candidate.architecture)
    network.load_state_dict(torch.load(run / "final" / "weights.pt", weights_only=True))
    result = json.loads((run / "final" / "result.json").read_text())
    assert sum(parameter.numel() for parameter in network.parameters()) == result["parameters"]


def test_the_promised_tags_are_recorded(finished: tuple[Path, str, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _, _ = finished
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    promised = {
        *("train/loss", "train/accuracy", "validation/loss", "validation/accuracy"),
        *("supernet/validation_loss", "supernet/validation_accuracy", "step/training_loss", "step/validation_loss"),
        *("hyperparameters/learning_rate", "hyperparameters/dropout", "hyperparameters/weight_decay"),
        *("gradient/weights", "gradient/architecture", "gradient/learning_rate", "gradient/dropout"),
        *("guard/restarts", "budget/samples", "probability/layer1.filters/8", "entropy/layer1.filters"),
        *("throughput/samples_per_second", "time/epoch_seconds", "time/total_seconds"),
    }
    assert promised <= scalars
    assert "architecture" in events.Tags()["images"]
    assert any(tag.startswith("_hparams_") for tag in events.summary_metadata)
    in_metrics = {row["tag"] for row in recorded(run / "metrics.csv")}
    in_timing = {row["tag"] for row in recorded(run / "timing.csv")}
    assert not in_metrics & in_timing
    assert in_metrics | in_timing <= scalars
    assert not any(tag.startswith(("time/", "throughput/")) for tag in in_metrics)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    finished: tuple[Path, str, str], tmp_path: Path
) -> None:
    run, _, _ = finished
    quiet = ("tracking.console=quiet", "tracking.tensorboard=false")
    assert call("train_search.py", *SMALL, *quiet, "hydra.run.dir=same", folder=tmp_path)[0] == 0
    for name in ("candidate.json", "metrics.csv"):
        assert (tmp_path / "same" / name).read_bytes() == (run / name).read_bytes()
    assert not (tmp_path / "same" / "tensorboard").exists()
    code, output, _ = call("train_search.py", *SMALL, *quiet, "seed=1", "hydra.run.dir=other", folder=tmp_path)
    assert code == 0
    assert len(output.strip().splitlines()) == 1
    assert (tmp_path / "other" / "metrics.csv").read_bytes() != (run / "metrics.csv").read_bytes()


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[str]") -> None:
    """Until a checkpoint of ``step`` or later is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.stem.split("-")[1]) >= step for path in (folder / "checkpoints").glob("step-*.pt")):
            return
        time.sleep(0.005)
    pytest.fail(f"no checkpoint of step {step}: {process.communicate()}")


def resumed_step(output: str) -> int:
    lines = [line for line in output.splitlines() if line.startswith("resumed at step ")]
    assert len(lines) == 1
    return int(lines[0].rpartition(" ")[2])


@pytest.mark.slow  # several processes; searches are killed and resumed in one process elsewhere
def test_a_search_killed_three_times_ends_with_the_same_bytes(finished: tuple[Path, str, str], tmp_path: Path) -> None:
    run, _, _ = finished
    arguments: tuple[str, ...] = (*SMALL, "search.checkpoint_every=4", "hydra.run.dir=killed")
    steps = []
    for step in (4, 20, 32):  # of 45; an epoch has 15, so that all three are inside one
        process = start("train_search.py", *arguments, folder=tmp_path)
        wait_for_step(tmp_path / "killed", step, process)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        steps += [resumed_step(output)] if "resume=killed" in arguments else []
        assert not (tmp_path / "killed" / "candidate.json").exists()
        arguments = ("resume=killed",)
    code, output, error = call("train_search.py", "resume=killed", folder=tmp_path)
    assert code == 0, error
    steps.append(resumed_step(output))
    assert all(step > 0 for step in steps)
    assert steps == sorted(steps)
    for name in ("candidate.json", "metrics.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.slow  # several processes
def test_a_retraining_stopped_and_killed_ends_with_the_same_bytes(
    finished: tuple[Path, str, str], tmp_path: Path
) -> None:
    run, _, _ = finished
    arguments: tuple[str, ...] = (f"candidate={run}", "final.checkpoint_every=5", "hydra.run.dir=again")
    process = start("train_final.py", *arguments, folder=tmp_path)
    wait_for_step(tmp_path / "again", 15, process)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate()
    assert process.returncode == 75, error
    assert "resume=" in error
    process = start("train_final.py", "resume=again", folder=tmp_path)
    wait_for_step(tmp_path / "again", 60, process)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert resumed_step(output) >= 15
    code, output, error = call("train_final.py", "resume=again", folder=tmp_path)
    assert code == 0, error
    assert resumed_step(output) >= 60
    for name in ("result.json", "metrics.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (run / "final" / name).read_bytes()
    weights = [torch.load(folder / "weights.pt", weights_only=True) for folder in (tmp_path / "again", run / "final")]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


@pytest.mark.slow
def test_an_occupied_folder_is_left_alone(finished: tuple[Path, str, str]) -> None:
    run, _, _ = finished
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for script, arguments in (
        ("train_search.py", ("experiment=debug", f"hydra.run.dir={run}")),
        ("train_final.py", (f"candidate={run}",)),
    ):
        code, _, error = call(script, *arguments, folder=run.parent)
        assert code == 2
        assert "hydra.run.dir" in error
        assert len(error.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_multirun_makes_a_run_per_seed(tmp_path: Path) -> None:
    arguments = ("--multirun", *SMALL, "search.epochs=2", "seed=0,1,2", "hydra.sweep.dir=sweep")
    code, _, error = call("train_search.py", *arguments, folder=tmp_path)
    assert code == 0, error
    assert len(list(tmp_path.glob("sweep/*/candidate.json"))) == 3


@pytest.mark.slow
def test_submitit_makes_a_run_per_seed(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'nas[cluster]'")
    arguments = ("--multirun", *SMALL, "search.epochs=1", "seed=0,1,2", "hydra.sweep.dir=sweep")
    code, _, error = call("train_search.py", *arguments, "hydra/launcher=submitit_local", folder=tmp_path)
    assert code == 0, error
    assert len(list(tmp_path.glob("sweep/*/candidate.json"))) == 3


@pytest.mark.slow
def test_ray_makes_a_run_per_seed(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install 'nas[cluster]'")
    arguments = ("--multirun", *SMALL, "search.epochs=1", "seed=0,1,2", "hydra.sweep.dir=sweep")
    code, _, error = call("train_search.py", *arguments, "hydra/launcher=ray", folder=tmp_path)
    assert code == 0, error
    assert len(list(tmp_path.glob("sweep/*/candidate.json"))) == 3


@pytest.mark.slow
def test_candidates_evaluated_on_ray_are_those_of_processes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'nas[cluster]'")
    arguments = ("experiment=debug", "method=random", "budget.evaluations=6", "evaluation.epochs=1")
    for name, more in (("alone", ()), ("loky", ("jobs=2",)), ("ray", ("jobs=2", "backend=ray"))):
        overrides = [f"evaluation.{one}" for one in more]
        code, _, error = call("train_search.py", *arguments, *overrides, f"hydra.run.dir={name}", folder=tmp_path)
        assert code == 0, error
    for name in ("loky", "ray"):
        for file in ("candidate.json", "metrics.csv"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "alone" / file).read_bytes(), (name, file)


@pytest.mark.slow  # whole processes
def test_a_run_of_an_older_layout_can_be_retrained_and_read(data_folder: Path, tmp_path: Path) -> None:
    """The files name classes by the modules that held them then, and a setting that is gone."""
    shutil.copytree(data_folder / "old_run", tmp_path / "old")
    config = (tmp_path / "old" / ".hydra" / "config.yaml").read_text()
    assert "_target_: nas.bilevel.hyperparameters.LearningRate" in config
    assert "pair: present" in config
    code, output, error = call(
        "train_final.py",
        "candidate=old",
        "final.epochs=1",
        "hydra.run.dir=again",
        "data.split.train=64",
        folder=tmp_path,
    )
    assert code == 0, error
    assert "test accuracy" in output
    before = json.loads((tmp_path / "old" / "final" / "result.json").read_text())
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    assert result["candidate"] == before["candidate"]
    assert result["hyperparameters"] == before["hyperparameters"]
    command = [sys.executable, "-m", "nas.report", str(tmp_path / "old")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"page: {tmp_path / 'old' / 'report.html'}\n"), done.stderr


def test_a_candidate_of_an_older_layout_is_rebuilt(data_folder: Path) -> None:
    for file, parameters in (("candidate.json", 9_650), ("darts_candidate.json", 418_972)):
        found = read_candidate_file(data_folder / "old_run" / file)
        network = found.space.network(found.candidate.architecture)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
