"""Exit codes and their one sentence; the way from resume= to the run."""

import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from nas.distributed import Ranks
from nas.errors import InvalidValue, RunFailed, UnusableInput
from nas.run.checkpoint import CheckpointFolder
from nas.run.entry_point import _refuse_flags, guarded, messages_on_console, run_resumed
from nas.run.overrides import parse_overrides, typed_script
from nas.stopping import Stopped

ROOT = Path(__file__).resolve().parents[2]


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
            f"stopped at step 12; go on with: {typed_script('train_search.py')} resume=runs/a",
        ),
        (FloatingPointError("alpha is not finite"), 1, "train_search.py: alpha is not finite."),
        (
            ConfigAttributeError("Missing key data\n    full_key: data"),
            2,
            "train_search.py: The configuration cannot be read: Missing key data.",
        ),
        (
            ConfigCompositionException(
                "In 'base': Could not find 'data/x'\n\nAvailable options in 'data':\n\tdigits\n"
            ),
            2,
            "train_search.py: The configuration cannot be composed: In 'base': Could not find 'data/x'; "
            "Available options in 'data': digits.",
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


def test_what_the_package_logs_is_printed_once_and_only_in_an_entry_point(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("nas.search.anything")
    caplog.set_level(logging.INFO)  # as Hydra does, the root logger has a handler and lets all pass
    guarded(lambda: guarded(lambda: log.info("100 % of it"), "train_search.py"), "train_search.py")
    assert capsys.readouterr() == ("100 % of it\n", "")
    assert caplog.messages == []
    log.info("without a word")
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["without a word"]


def test_only_the_first_rank_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (1, 0):
        monkeypatch.setattr("nas.run.entry_point.current_ranks", lambda rank=rank: Ranks(rank, 2))
        with messages_on_console():
            logging.getLogger("nas.run").info(f"rank {rank}")
    assert capsys.readouterr().out == "rank 0\n"


def test_a_worker_process_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with messages_on_console():
        tell = joblib.delayed(logging.getLogger("nas.evaluation").info)
        joblib.Parallel(n_jobs=2)([tell("one"), tell("two")])
    assert capfd.readouterr() == ("", "")


def test_a_mistake_in_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 // 0, "train_search.py")


def test_a_result_passes() -> None:
    assert guarded(lambda: 5, "train_search.py") == 5


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


@pytest.mark.parametrize(
    ("config", "own", "other"),
    [({"seed": 3}, "train_search.py", "train_final.py"), ({"candidate": "x"}, "train_final.py", "train_search.py")],
)
def test_a_run_of_the_other_script_is_refused_with_its_command(
    config: dict[str, Any], own: str, other: str, tmp_path: Path
) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(config), tmp_path / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create([]), tmp_path / ".hydra" / "overrides.yaml")
    with pytest.raises(InvalidValue, match=rf"it is a run of {own}: {re.escape(typed_script(own))} resume="):
        run_resumed([f"resume={tmp_path}"], lambda *_: None, command=other)
    assert run_resumed([f"resume={tmp_path}"], lambda *_: None, command=own)


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


def test_a_word_that_is_no_setting_is_named() -> None:
    for arguments in (["-m", "seed=0", "--config-dir", "x"], ["--cfg", "job", "a=1"], ["~seed"], ["--help"]):
        _refuse_flags(arguments)
    with pytest.raises(UnusableInput, match="'3' is no setting: it must be key=value, with no space beside the ="):
        _refuse_flags(["search.epochs=", "3"])


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (("-m", "data=table,digits"), "a sweep over data=table,digits reads it before there is a job with one of them"),
        (("-m", "data=glob(arr*)"), "a sweep over data=glob(arr*) reads it before there is a job with one of them"),
        (("-m", "data=interval(1,2)"), "a sweep over data=interval(1,2) reads it before there is a job"),
        (("data=digits",), "data knows augmentation, split; it is a setting of data=arrays, table, text, time_series"),
    ],
)
def test_a_setting_of_one_of_the_options_of_a_sweep_is_typed_for_each_job(
    arguments: Sequence[str], allowed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*arguments, "data.file=a b.csv"]
    monkeypatch.setattr("sys.argv", ["train_search.py", *arguments])

    def work() -> None:
        # A sweep is composed without what it varies.
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            compose("train_search", [one for one in arguments[-2:] if "-m" not in arguments or one.startswith("data.")])

    with pytest.raises(SystemExit) as caught:
        guarded(work, "train_search.py")
    assert caught.value.code == 2
    _, told = capsys.readouterr()
    assert told.startswith(f"train_search.py: data.file=a b.csv is not allowed: {allowed}")
    if "-m" in arguments:
        (typed,) = [one for one in shlex.split(told) if "choice" in one]
        assert parse_overrides([typed])[0].value().list == ["a b.csv"]
