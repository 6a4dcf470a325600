"""SIGTERM in every phase of a run: exit code 75, and the resumed run ends with the bytes of one that was left alone."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nas.search.reader as reader_module
import train_final
import train_search
from nas.evaluation.scratch import TrainedFromScratch
from nas.report import drawing
from nas.run.entry_point import guarded
from nas.search.convergence import Trajectory
from nas.search.gradient_search import GradientSearch
from nas.stopping import SIGNALS, leave_when_stopped
from nas.training.retraining import Retraining

CONF = str(Path(__file__).resolve().parents[2] / "conf")
TINY = ("experiment=debug", "data.split={train: 320, validation: 64, test: 64}", "tracking.console=quiet")
SEARCH = (*TINY, "search.epochs=2", "search.checkpoint_every=4", "discretisation=alone")
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gradient": ("train_search", (*SEARCH, "method=tuned", "method.trials=2", "final.epochs=1")),
    "black box": ("train_search", (*TINY, "method=random", "budget.evaluations=4", "evaluation.epochs=1")),
    "retraining": ("train_final", ("final.checkpoint_every=4", "final.epochs=2")),
}
PHASES: dict[str, tuple[str, Any, str, int]] = {
    "before the first step": ("gradient", GradientSearch, "_initial_loss", 1),
    "a step": ("gradient", Trajectory, "on_step", 7),
    "the supernet's measurement": ("gradient", reader_module, "measure", 1),
    "reading the architecture off": ("gradient", reader_module, "first_images", 2),
    "a line search": ("gradient", TrainedFromScratch, "evaluate", 2),
    "the discretisation gap": ("gradient", train_search, "write_discretisation_gap", 1),
    "the page": ("gradient", train_search, "write_page_if_possible", 1),
    "a candidate's training": ("black box", Retraining, "fit", 3),
    "a step of the retraining": ("retraining", Retraining, "_one_step", 7),
    "the test": ("retraining", train_final, "measure", 1),
}
FILES = ("candidate.json", "metrics.csv", "result.json", "weights.pt", "trajectory.csv")


@cache
def composed(script: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(script, overrides=list(overrides))


def run(kind: str, folder: Path, searched: Path) -> None:
    script, overrides = KINDS[kind]
    own = (*TINY, *overrides, f"candidate={searched}") if script == "train_final" else overrides
    config = deepcopy(composed(script, own))
    module = train_final if script == "train_final" else train_search
    guarded(lambda: module.run(config, folder), f"{script}.py", folder)


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """In one format: the font of a PDF takes long, and these runs are many."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(drawing, "FORMATS", ("svg",))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each kind that nobody stopped; the first one's candidate is that of the retraining."""
    folder = tmp_path_factory.mktemp("undisturbed")
    found = {kind: folder / kind.replace(" ", "_") for kind in KINDS}
    for kind, path in found.items():
        run(kind, path, found["gradient"])
    return found


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of the entry points, which end the process where nothing that takes long goes on."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    leave_when_stopped()
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def signalling(work: Callable[..., Any], number: int) -> Callable[..., Any]:
    """``work``, before whose ``number``-th call this process gets a SIGTERM."""
    calls: list[int] = []

    def signalled(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return work(*arguments, **settings)

    return signalled


def tensorboard(folder: Path) -> dict[str, list[int]]:
    """The steps of every scalar and picture, as TensorBoard shows them."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    kinds = {"scalars": events.Scalars, "images": events.Images}
    return {tag: [event.step for event in of(tag)] for kind, of in kinds.items() for tag in events.Tags()[kind]}


def assert_same_end(folder: Path, other: Path) -> None:
    for name in FILES:
        assert (folder / name).exists() == (other / name).exists(), name
        if (other / name).exists():
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(folder.rglob("*.partial"))
    assert tensorboard(folder) == tensorboard(other)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("phase", PHASES)
def test_a_run_stopped_in_any_phase_goes_on_to_the_same_end(
    phase: str,
    undisturbed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, owner, name, number = PHASES[phase]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, signalling(getattr(owner, name), number))
        with pytest.raises(SystemExit) as caught:
            run(kind, tmp_path / "run", undisturbed["gradient"])
    assert caught.value.code == 75
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("stopped")
    run(kind, tmp_path / "run", undisturbed["gradient"])
    assert "resumed at step " in capsys.readouterr().out or phase == "before the first step"
    assert_same_end(tmp_path / "run", undisturbed[kind])


def test_the_checkpoint_before_a_damaged_one_leads_to_the_same_end(
    undisturbed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trajectory.on_step
    with monkeypatch.context() as patched:
        patched.setattr(Trajectory, "on_step", signalling(step, 7))
        with pytest.raises(SystemExit):
            run("gradient", tmp_path / "run", undisturbed["gradient"])
    older, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert (older.name, newest.name) == ("step-00000005.pt", "step-00000007.pt")
    os.truncate(newest, newest.stat().st_size // 2)
    capsys.readouterr()
    run("gradient", tmp_path / "run", undisturbed["gradient"])
    said = capsys.readouterr().out
    assert f"{newest} is incomplete or has been changed; taking the one before.\nresumed at step 5\n" in said
    assert_same_end(tmp_path / "run", undisturbed["gradient"])
    shutil.rmtree(tmp_path / "run")
