"""Real faults in the middle of a run: one sentence, exit code 1, and a last checkpoint from which nothing is lost."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from nas.run.entry_point import guarded, messages_on_console
from nas.run.overrides import typed_script
from nas.search.convergence import Trajectory
from nas.stopping import Stopped, StopRequest, StopRequested
from train_search import run

CONF = str(Path(__file__).resolve().parents[2] / "conf")
TINY = (
    "experiment=debug",
    "search.epochs=2",
    "search.checkpoint_every=4",
    "data.split.train=640",
    "data.split.validation=64",
    "tracking.console=quiet",
)


def settings(*overrides: str) -> Any:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train_search", overrides=[*TINY, *overrides])


def ended(work: Callable[[], Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """How the entry point would have ended: exit code and what it says, which must be one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        guarded(work, "train_search.py", folder)
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return caught.value.code, error


def stopped_at(step: int, config: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until after ``step``, where a signal asks to stop."""
    record, steps = Trajectory.on_step, []

    def signalled(trajectory: Any, seen: Any) -> None:
        record(trajectory, seen)
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Trajectory, "on_step", signalled)
        with pytest.raises(Stopped):
            run(config, folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(settings(), folder)
    return folder


def assert_goes_on(config: Any, folder: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resumed once the fault is gone, the run ends with the bytes of one that had none."""
    capsys.readouterr()
    with messages_on_console():
        run(config, folder)
    assert "resumed at step " in capsys.readouterr().out
    for name in ("candidate.json", "metrics.csv"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    assert not list(folder.rglob("*.partial"))


def test_a_limit_on_file_sizes(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings()
    stopped_at(6, config, tmp_path, monkeypatch)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        code, error = ended(lambda: run(config, tmp_path), tmp_path, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert "checkpoints/step-00000008.pt: the file has reached the largest size" in error
    assert f"the checkpoint of step 6 is kept: {typed_script('train_search.py')} resume=" in error
    assert_goes_on(config, tmp_path, undisturbed, capsys)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Write into ``path`` until the disk is full."""
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings()
    with small_disk(tmp_path, "8m"):
        folder = tmp_path / "run"
        stopped_at(6, config, folder, monkeypatch)
        ballast = tmp_path / "ballast"
        fill(ballast)
        code, error = ended(lambda: run(config, folder), folder, capsys)
        assert code == 1
        assert "the disk is full" in error.lower()
        assert "the checkpoint of step 6 is kept" in error
        ballast.unlink()
        assert_goes_on(config, folder, undisturbed, capsys)


def test_a_folder_that_may_no_longer_be_written(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = settings(), os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others, and root may write everywhere
    try:
        stopped_at(6, config, folder, monkeypatch)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if root:
            os.seteuid(65534)
        try:
            code, error = ended(lambda: run(config, folder), folder, capsys)
        finally:
            if root:
                os.seteuid(0)
        assert code == 1
        assert "it may not be read or written; the checkpoint of step 6 is kept" in error
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert_goes_on(config, folder, undisturbed, capsys)
    finally:
        shutil.rmtree(folder)


def test_a_run_folder_that_vanishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, folder = Trajectory.on_step, tmp_path / "run"

    def removing(trajectory: Any, seen: Any) -> None:
        record(trajectory, seen)
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(Trajectory, "on_step", removing)
    code, error = ended(lambda: run(settings("tracking.tensorboard=false"), folder), folder, capsys)
    assert code == 1
    assert "vanished" in error


def test_images_that_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, number in (("train", 24), ("val", 4)):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for index in range(number):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "images" / split / label / f"{index}.png")
    config = settings(
        "data=imagenet",
        f"data.folder={tmp_path / 'images'}",
        "data.size=8",
        "data.shorter_side=8",
        "data.workers=0",
        "data.split={train: null, validation: 8}",
        "training.batch_size=8",
    )
    folder = tmp_path / "run"
    stopped_at(6, config, folder, monkeypatch)
    before = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    shutil.rmtree(tmp_path / "images" / "train" / "b")
    code, error = ended(lambda: run(config, folder), folder, capsys)
    assert code == 2
    assert str(tmp_path / "images") in error
    assert {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()} == before


def test_too_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = "space.layers=[{type: conv, filters: 65536, kernel_size: 7}, {type: conv, filters: 65536, kernel_size: 7}]"
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, limits[1]))
    try:
        code, error = ended(lambda: run(settings(layers), tmp_path / "run"), tmp_path / "run", capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert code == 1
    assert "out of memory (784 GiB more were needed): lower training.batch_size, space.channels" in error


def test_numbers_that_overflow_are_named_with_their_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = settings(
        "hyperparameters=fixed", "hyperparameters.learning_rate.initial=1e30", "training.gradient_clip=null"
    )
    code, error = ended(lambda: run(huge, tmp_path / "run"), tmp_path / "run", capsys)
    assert code == 1
    assert " is nan; the last good checkpoint is of step 0; lower hyperparameters.learning_rate.initial" in error


def test_too_little_memory_on_a_gpu_names_what_would_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of")

    code, error = ended(work, tmp_path, capsys)
    assert code == 1
    assert "The GPU is out of memory (20.00 GiB more were needed)" in error
    assert all(name in error for name in ("training.batch_size", "space.channels", "hypergradient=first_order"))


def test_an_operation_without_a_second_derivative_names_the_strategies_that_need_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        query = torch.randn(1, 1, 4, 8, requires_grad=True)
        outputs = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        (gradient,) = torch.autograd.grad(outputs.sum(), query, create_graph=True)
        gradient.square().sum().backward()

    code, error = ended(work, tmp_path, capsys)
    assert code == 1
    assert "no second derivative (_scaled_dot_product_flash_attention_for_cpu_backward): hypergradient=first" in error
    assert "hypergradient=finite_difference" in error


def test_a_worker_that_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        kill = joblib.delayed(lambda: os.kill(os.getpid(), signal.SIGKILL))
        joblib.Parallel(n_jobs=2)([kill(), kill()])

    code, error = ended(work, tmp_path, capsys)
    assert code == 1
    assert "A worker process was killed" in error


def test_a_step_that_takes_too_long_ends_within_the_grace_period(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with StopRequest(grace=0.2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 75
    assert capfd.readouterr().err.count("\n") == 1


def test_a_long_measurement_is_cut_short() -> None:
    with StopRequest() as request:
        batches = request.until_requested(range(10))
        assert [next(batches), next(batches)] == [0, 1]
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            next(batches)
