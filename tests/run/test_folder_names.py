"""Folders of any name: what is printed for typing names the same folder in Hydra's hands, and the run goes there."""

import shlex
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

import train_final
from nas.run.entry_point import run_composed
from nas.run.overrides import typed
from nas.run.recorded import recorded_configuration
from nas.run.sweep import led_sweep

CONF = Path(train_final.__file__).parent / "conf"
NAMES = ["${x}", "${oc.env:HOME}", "a\\${x}", "???", "it's [x]=,", "{a: 1}"]


def composed(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[DictConfig, Path]:
    """The configuration and the folder with which ``script`` calls its run; there is nothing that runs."""
    seen: list[tuple[DictConfig, Path]] = []

    def compose_and_run(config: DictConfig) -> int:
        return run_composed(f"{script}.py", lambda config, path: seen.append((config, path)), config)

    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=script)(compose_and_run)()
    ((config, path),) = seen
    return config, path


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(request.param)


def test_a_retraining_goes_into_the_folder_of_its_candidate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(name).mkdir()
    config, path = composed("train_final", shlex.split(typed("candidate", name)), monkeypatch)
    assert Path(str(config.candidate)) == Path(name)
    assert path == Path.cwd() / name / "final"
    assert [one.name for one in Path.cwd().iterdir()] == [name]
    assert Path(str(recorded_configuration(path).candidate)) == Path(name)


def test_a_search_goes_into_its_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = composed("train_search", shlex.split(typed("hydra.run.dir", name)), monkeypatch)
    assert path == Path.cwd() / name
    assert [one.name for one in Path.cwd().iterdir()] == [name]


def test_a_sweep_goes_into_its_folder_and_below_one_of_any_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(name).mkdir()
    monkeypatch.chdir(name)
    _, path = composed("train_search", ["-m", "seed=3", *shlex.split(typed("hydra.sweep.dir", name))], monkeypatch)
    sweep = led_sweep()
    assert sweep is not None
    sweep.stack.close()
    assert path == Path.cwd() / name / "0"
    assert [one.name for one in Path.cwd().iterdir()] == [name]


def test_a_run_from_a_folder_of_any_name_finds_its_paths_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typed_in = Path(name).absolute()
    (typed_in / "images").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.chdir(typed_in)
        _, path = composed("train_search", ["data=imagenet", "data.folder=images", "hydra.run.dir=run"], patched)
    config = recorded_configuration(path)
    assert Path(OmegaConf.select(config, "data.folder")) == typed_in / "images"
