"""Exit codes and their one sentence; the way from resume= to the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from nas.errors import InvalidValue, RunFailed, UnusableInput
from nas.run.checkpoint import CheckpointFolder
from nas.run.entry_point import guarded, refuse_groups_without_option, run_resumed
from nas.stopping import Stopped


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            InvalidValue("seed", -1, "it must be at least 0"),
            2,
            "train_search.py: seed=-1 is not allowed: it must be at least 0.",
        ),
        (UnusableInput("The file x cannot be read."), 2, "train_search.py: The file x cannot be read."),
        (
            Stopped(12, Path("runs/a")),
            75,
            "stopped at step 12; go on with: python train_search.py resume=runs/a",
        ),
        (FloatingPointError("alpha is not finite"), 1, "train_search.py: alpha is not finite."),
        (
            ConfigAttributeError("Missing key data\n    full_key: data"),
            2,
            "train_search.py: The configuration cannot be read: Missing key data.",
        ),
        (RunFailed("It died."), 1, "train_search.py: It died."),
        (
            KeyboardInterrupt(),
            75,
            "train_search.py: interrupted between steps; go on with resume=<run folder> if it had begun",
        ),
    ],
)
def test_expected_ends_have_a_code_and_one_sentence(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        guarded(work, "train_search.py")
    assert caught.value.code == code
    assert capsys.readouterr() == ("", sentence + "\n")


def test_a_mistake_in_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 // 0, "train_search.py")


def test_a_result_passes() -> None:
    assert guarded(lambda: 5, "train_search.py") == 5


CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("relaxation=null", "relaxation=null is not allowed: it must be one of gumbel_softmax, gumbel_softmax_hard, "),
        ("+experiment=null", "experiment=null"),
        ("data=3", "data=3 is not allowed: it must be one of "),
        ("method=1e400", "method=1e400"),
        ("training=[1, 2]", "training=[1, 2] is not allowed: it must be one of default, or left out."),
        ("data=[digits,null]", "data=[digits,null] is not allowed"),
        ("space=true", "space=true"),
        ("scale=", "scale=null is not allowed: it must be one of full, small, or left out."),
        ("hypergradient@hyperparameters.gradient=null", "hypergradient@hyperparameters.gradient=null"),
    ],
)
def test_a_group_needs_an_option(argument: str, named: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        refuse_groups_without_option(["seed=1", argument], CONF)
    assert str(caught.value).startswith(named)


def test_settings_may_be_null_and_groups_be_chosen() -> None:
    refuse_groups_without_option(["training.gradient_clip=null", "data=digits", "resume=null", "--help"], CONF)


def test_resuming_runs_the_run_with_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create({"seed": 3, "tracking": {"console": "auto"}}), tmp_path / ".hydra" / "config.yaml")
    with pytest.raises(InvalidValue, match="killed before it began"):
        run_resumed([f"resume={tmp_path}"], lambda *_: None)
    OmegaConf.save(OmegaConf.create(["seed=3"]), tmp_path / ".hydra" / "overrides.yaml")
    calls: list[tuple[Any, Path]] = []

    def run(config: DictConfig, folder: Path) -> None:
        calls.append((OmegaConf.to_container(config), folder))

    assert run_resumed([f"resume={tmp_path}", "tracking.console=quiet"], run)
    assert calls == [({"seed": 3, "tracking": {"console": "quiet"}}, tmp_path)]
    with pytest.raises(InvalidValue, match=r"^seed=4"):
        run_resumed([f"resume={tmp_path}", "seed=4"], run)
    assert len(calls) == 1


def test_a_run_killed_before_its_first_checkpoint_begins_as_it_would_have(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create({"seed": 0, "device": "cpu"}), tmp_path / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create(["seed=0"]), tmp_path / ".hydra" / "overrides.yaml")
    seen: list[Any] = []

    def begin(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
        seen.append(list(overrides))
        return OmegaConf.merge(config, {"device": "inherited"})

    def run(config: DictConfig, folder: Path) -> None:
        seen.append(config.device)

    assert run_resumed([f"resume={tmp_path}"], run, begin)
    CheckpointFolder(tmp_path / "checkpoints").save(0, {"step": 0})
    assert run_resumed([f"resume={tmp_path}"], run, begin)
    assert seen == [["seed=0"], "inherited", "cpu"]


@pytest.mark.parametrize("arguments", [[], ["seed=1"], ["resume=null"], ["--help"]])
def test_without_resume_hydra_takes_over(arguments: list[str]) -> None:
    def run(config: DictConfig, folder: Path) -> None:
        raise AssertionError("nothing is to be resumed")

    assert not run_resumed(arguments, run)
