"""A search that begins with another: with what of it, from which, and through a kill."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from nas.errors import InvalidValue, UnusableInput
from nas.run.checkpoint import CheckpointFolder, read_checkpoint
from nas.run.recorded import resumed_configuration
from nas.stopping import Stopped, StopRequest
from train_search import run

CONF = str(Path(__file__).resolve().parents[2] / "conf")
SMALL = ["experiment=debug", "data=digits", "search.epochs=2", "tracking.tensorboard=false", "tracking.console=quiet"]


def settings(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train_search", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beginning") / "old"
    run(settings(), folder)
    return folder


def newest(folder: Path) -> dict:
    state, _ = CheckpointFolder(folder / "checkpoints").newest()
    assert state is not None
    return state


def test_it_begins_with_weights_alpha_and_hyperparameters(old: Path, tmp_path: Path) -> None:
    """Without a step there is nothing to tell apart: the first checkpoint holds what the old run's last one does."""
    config = settings(f"search.from={old}", "search.checkpoint_every=1", "training.keep_checkpoints=1000")
    run(config, tmp_path / "new")
    last = newest(old)
    first = read_checkpoint(tmp_path / "new" / "checkpoints" / "step-00000000.pt")
    assert first["supernet"].keys() == last["supernet"].keys()
    for name, value in last["supernet"].items():
        assert torch.equal(first["supernet"][name], value), name
    for name, raw in last["upper_level"]["hyperparameters"]["raw"].items():
        torch.testing.assert_close(first["upper_level"]["hyperparameters"]["raw"][name], raw, rtol=1e-5, atol=1e-5)
    assert first["guard"]["initial_loss"] == last["guard"]["initial_loss"]
    assert first["step"] == 0


def test_what_it_began_with_is_told(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(settings(f"search.from={old}", "tracking.console=auto"), tmp_path / "new")
    assert f"step {newest(old)['step']} of {old}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["data=mnist5k"],
            "it must be a search of the same space and data: input_shape is 1x8x8 there and 1x28x28 here",
        ),
        (["space.activations=[relu]"], "space.activations is"),
        (["method=random"], "it is for method=gradient, tuned, coarse_to_fine, cross_validated, neighbours"),
        (["method=multi_start"], "it is for method=gradient, tuned, coarse_to_fine, cross_validated, neighbours"),
    ],
)
def test_another_space_data_or_method_is_refused(
    overrides: list[str], sentence: str, old: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValue) as caught:
        run(settings(f"search.from={old}", *overrides), tmp_path / "new")
    assert str(caught.value).startswith(f"search.from={old} is not allowed: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missing", ["candidate.json", "checkpoints"])
def test_a_search_that_has_not_finished_is_refused(missing: str, old: Path, tmp_path: Path) -> None:
    shutil.copytree(old, tmp_path / "old")
    path = tmp_path / "old" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InvalidValue, match="it must be the folder of a search that has finished"):
        run(settings(f"search.from={tmp_path / 'old'}"), tmp_path / "new")


def test_a_wrong_type_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"^search\.from=3 is not allowed: it must be a text or null"):
        run(settings("search.from=3"), tmp_path / "new")


def test_it_ends_with_the_same_bytes_after_a_stop_though_the_old_run_is_gone(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(old, tmp_path / "old")
    config = settings(f"search.from={tmp_path / 'old'}")
    run(config, tmp_path / "undisturbed")
    steps = [0]

    def request(self: StopRequest) -> bool:
        steps[0] += 1
        return steps[0] > 7

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "requested", property(request, lambda *_: None), raising=False)
        with pytest.raises(Stopped):
            run(config, tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    run(config, tmp_path / "new")
    for name in ("candidate.json", "metrics.csv"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert json.loads((tmp_path / "new" / "candidate.json").read_text())["data"] == "digits"
    (tmp_path / "new" / "beginning.pt").write_bytes(b"")
    with pytest.raises(UnusableInput, match=r"beginning\.pt, with which this run began, cannot be read"):
        run(config, tmp_path / "new")


def test_resuming_with_more_epochs_names_the_way(old: Path) -> None:
    (old / ".hydra").mkdir(exist_ok=True)
    (old / ".hydra" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(InvalidValue, match=r"begin a new run from it: search\.from=<run folder>"):
        resumed_configuration([f"resume={old}", "search.epochs=8"], old)
