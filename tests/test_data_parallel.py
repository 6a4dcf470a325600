"""torchrun as a user types it: two processes, one run folder, the same bytes from run to run and after a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("experiment=debug", "search.epochs=2", "final.epochs=3", "tracking.console=quiet")

pytestmark = pytest.mark.slow


def start(script: str, *arguments: str, folder: Path, ranks: int = 2) -> "subprocess.Popen[str]":
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    command = [sys.executable, *launch, str(ROOT / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def call(script: str, *arguments: str, folder: Path, ranks: int = 2) -> tuple[int, str, str]:
    process = start(script, *arguments, folder=folder, ranks=ranks)
    output, error = process.communicate(timeout=300)
    return process.returncode, output, error


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    code, output, error = call("train_search.py", *SMALL, "hydra.run.dir=run", folder=folder)
    assert code == 0, error
    assert output.count("searched in") == 1
    code, output, error = call("train_final.py", "candidate=run", folder=folder)
    assert code == 0, error
    assert output.count("test accuracy") == 1
    return folder / "run"


def test_it_searches_and_retrains(finished: Path) -> None:
    result = json.loads((finished / "final" / "result.json").read_text())
    assert result["test_accuracy"] > 0.7
    assert not list(finished.rglob("*.partial"))


def stopped_after(step: int, script: str, *arguments: str, folder: Path) -> None:
    """Run until there is a checkpoint of ``step`` in ``run``; then torchrun gets a SIGTERM."""
    process = start(script, *arguments, "hydra.run.dir=run", folder=folder)
    while not any((folder / "run").glob(f"checkpoints/step-{step:08d}.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, error = process.communicate(timeout=60)
    print(f"{script}: {time.monotonic() - began:.1f} s from SIGTERM to the end of torchrun")
    assert process.returncode == 1  # torchrun's own
    assert "; go on " in error, error  # after a step, or on a busy machine from the checkpoint before it


def test_a_stopped_run_goes_on_to_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    stopped_after(8, "train_search.py", *SMALL, "search.checkpoint_every=4", folder=tmp_path)
    assert not (tmp_path / "run" / "candidate.json").exists()
    code, output, error = call("train_search.py", "resume=run", folder=tmp_path, ranks=0)
    assert code == 2
    assert "resume it with torchrun --nproc-per-node 2" in error
    code, output, error = call("train_search.py", "resume=run", folder=tmp_path)
    assert code == 0, error
    assert output.count("resumed at step ") == 1
    for name in ("candidate.json", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_stopped_retraining_goes_on_to_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    stopped_after(6, "train_final.py", f"candidate={finished}", "final.checkpoint_every=2", folder=tmp_path)
    assert not (tmp_path / "run" / "result.json").exists()
    code, output, error = call("train_final.py", "resume=run", folder=tmp_path)
    assert code == 0, error
    assert output.count("resumed at step ") == 1
    for name in ("metrics.csv", "weights.pt"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / "final" / name).read_bytes()


def test_a_fast_supernet_of_cells_searches_with_synchronised_batch_norm(tmp_path: Path) -> None:
    cells = ("space=nasbench201", "space.channels=4", "space.cells_per_stage=1", "data=digits")
    small = (
        "training.batch_size=64",
        "search.epochs=1",
        "search.warmup_epochs=0",
        "search.checkpoint_every=2",
        "tracking.console=quiet",
    )
    split = "data.split={train: 640, validation: 128, test: 128}"
    code, _, error = call("train_search.py", *cells, *small, split, "hydra.run.dir=run", folder=tmp_path)
    assert code == 0, error  # at every checkpoint the processes compare their weights
    assert (tmp_path / "run" / "candidate.json").exists()


def test_a_mistake_is_told_once_and_nobody_waits(tmp_path: Path) -> None:
    code, _, error = call("train_search.py", *SMALL, "training.batch_size=1", "hydra.run.dir=run", folder=tmp_path)
    assert code != 0
    assert error.count("training.batch_size=1 is not allowed") == 1
    code, _, error = call("train_search.py", *SMALL, "training.batch_size=33", "hydra.run.dir=run", folder=tmp_path)
    assert code != 0
    assert error.count("it must be a multiple of the 2 processes") == 1
