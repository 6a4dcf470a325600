"""The run folder: where a run writes, how it is found again, and how its configuration comes back."""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.errors import InvalidValue, UnusableInput
from nas.run.checkpoint import CheckpointFolder, write_atomically

LEAST_SPACE = 1_000_000  # bytes: Hydra's files and a first checkpoint


class RunFolder:
    """``path`` with its newest ``keep`` checkpoints."""

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints", keep)

    def below(self, *names: str) -> "RunFolder":
        """The folder of a part of this run."""
        return RunFolder(self.path.joinpath(*names), self.checkpoints.keep)

    def newest_checkpoint(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest readable state, telling which step it is from and which files were passed over.

        Raises:
            UnusableInput: There are checkpoints, and none can be read.
        """
        state, complaints = self.checkpoints.newest()
        for complaint in complaints:
            say(f"{complaint}; taking the one before.")
        if state is None and complaints:
            raise UnusableInput(f"No checkpoint in {self.checkpoints.folder} can be read.")
        if state is not None:
            say(f"resumed at step {state['step']}")
        return state

    def holds_a_run(self) -> bool:
        """Whether anything would be lost here: a run that was killed before its first checkpoint may begin again."""
        record = self.path / "metrics.csv"
        recorded = record.is_file() and record.stat().st_size > len("step,epoch,tag,value\n")
        results = any((self.path / name).exists() for name in ("candidate.json", "result.json"))
        return recorded or results or bool(self.checkpoints.files())

    def refuse_if_occupied(self) -> None:
        """Refuse to start a run where one already is.

        Raises:
            InvalidValue: The folder holds a run.
        """
        if self.holds_a_run():
            ways = f"continue it with resume={self.path} or name another with hydra.run.dir="
            raise InvalidValue("hydra.run.dir", self.path, f"that folder holds a run; {ways}")


def argument_value(arguments: Sequence[str], key: str) -> str | None:
    """The value of the last ``key=value`` among the command line's ``arguments``, quotes removed."""
    found = None
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if separator and name.lstrip("+") == key:
            found = value.strip("'\"")
    return None if found in (None, "", "null") else found


def refuse_unusable_folder(folder: Path) -> None:
    """Refuse a run folder that cannot be made or written, before Hydra tries and tells it with a traceback.

    Raises:
        UnusableInput: It is below a file, may not be written, or the disk is full.
    """
    existing = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise UnusableInput(f"The run cannot be written to {folder}: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UnusableInput(f"The run cannot be written to {folder}: {existing} is read-only.")
    if shutil.disk_usage(existing).free < LEAST_SPACE:
        raise UnusableInput(f"The run cannot be written to {folder}: the disk is full.")


def refuse_occupied_folder(arguments: Sequence[str], default: str | None = None) -> None:
    """Refuse to run where a run already is: before Hydra writes the new configuration over the old one.

    A folder that only Hydra can name (an interpolation, one of a sweep) has to be checked once Hydra has named it.

    Raises:
        InvalidValue: ``hydra.run.dir``, or ``default`` where that is not given, holds a run.
        UnusableInput: It cannot be written.
    """
    folder = argument_value(arguments, "hydra.run.dir") or default
    refuse_unusable_folder(Path((folder or argument_value(arguments, "hydra.sweep.dir") or "runs").partition("${")[0]))
    if folder is not None:
        RunFolder(Path(folder)).refuse_if_occupied()


def overrides_of(folder: Path) -> list[str]:
    """The command line that began the run in ``folder``.

    Raises:
        InvalidValue: It was killed before Hydra had written its configuration.
    """
    path = folder / ".hydra" / "overrides.yaml"  # what Hydra writes last
    try:
        return [str(override) for override in OmegaConf.load(path)]
    except Exception as error:  # the YAML parser's own errors have no common base that omegaconf exports
        raise InvalidValue("resume", folder, "that run was killed before it began: start it again") from error


def _require_trusted(entry: object, path: Path) -> None:
    """See to it that a recorded configuration, which may come from elsewhere, names nothing to call but this package.

    Raises:
        UnusableInput: It does, and ``NAS_TRUST`` does not list that package.
    """
    if isinstance(entry, list):
        for one in entry:
            _require_trusted(one, path)
    if isinstance(entry, dict):
        package, dot, _ = str(entry.get("_target_")).partition(".")  # without a dot there is nothing to call
        trusted = ("nas", *filter(None, os.environ.get("NAS_TRUST", "").split(",")))
        if dot and package not in trusted:
            raise UnusableInput(
                f"The run's configuration {path} would call {str(entry['_target_'])[:120]!r}: if it is your own, "
                "list its package in the environment variable NAS_TRUST."
            )
        for one in entry.values():
            _require_trusted(one, path)


def seal_configuration(folder: Path) -> None:
    """Put the fingerprint of a run's configuration beside it, as ``sha256sum`` does, once that is known to be good."""
    path = folder / ".hydra" / "config.yaml"
    if path.is_file():  # Hydra can be told to write none
        line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        write_atomically(_seal(path), line.encode())


def break_seal(folder: Path) -> None:
    """Forget the fingerprint that an earlier start may have left, killed before anything was kept."""
    _seal(folder / ".hydra" / "config.yaml").unlink(missing_ok=True)


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _require_unchanged(path: Path) -> None:
    """See to it that a configuration has its fingerprint, if that is there.

    Raises:
        UnusableInput: It has another one.
    """
    try:
        recorded, content = _seal(path).read_bytes().split()[:1], path.read_bytes()
    except OSError:  # removed on purpose, or the run was killed before it began
        return
    if recorded != [hashlib.sha256(content).hexdigest().encode()]:
        raise UnusableInput(
            f"The run's configuration {path} has been changed since the run began; if that was on purpose, remove "
            f"{_seal(path)}."
        )


def resumed_configuration(arguments: Sequence[str], folder: Path) -> DictConfig:
    """The configuration of the run in ``folder``, with the overrides of ``tracking`` among ``arguments``.

    Raises:
        InvalidValue: An argument would change what is computed, or the folder holds no run.
        UnusableInput: Its configuration cannot be read, or is not the one that began.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise InvalidValue("resume", folder, "it must be the folder of a run, with .hydra/config.yaml in it")
    _require_unchanged(path)
    try:
        config = OmegaConf.load(path)
    except (OSError, OmegaConfBaseException, ValueError) as error:
        raise UnusableInput(f"The run's configuration {path} cannot be read.") from error
    except Exception as error:  # as above
        raise UnusableInput(f"The run's configuration {path} is not readable YAML.") from error
    if not isinstance(config, DictConfig):
        raise UnusableInput(f"The run's configuration {path} is not a group of settings.")
    _require_trusted(OmegaConf.to_container(config, resolve=False), path)
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if name.lstrip("+") == "resume":
            continue
        if not separator or not name.startswith("tracking."):
            raise InvalidValue(name, value, "with resume= only tracking.* may be set; the run keeps its own settings")
        known = config.get("tracking")
        setting = name.removeprefix("tracking.")
        if not isinstance(known, DictConfig) or setting not in known:
            raise InvalidValue(name, value, "there is no such setting")
        try:
            known[setting] = OmegaConf.from_dotlist([f"x={value}"]).x
        except Exception as error:  # as above
            raise InvalidValue(name, value, "it is not readable YAML") from error
    return config
