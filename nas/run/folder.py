"""The run folder: where a run writes and finds its newest checkpoint, and which folders are refused to a new run."""

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nas.errors import InvalidValue, UnusableInput, require
from nas.run.checkpoint import CheckpointFolder
from nas.run.overrides import parse_overrides, typed, value_of
from nas.run.ownership import OwnedByAnother, claimed, owned

log = logging.getLogger(__name__)

DATE = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # what a folder is called that nobody has named
LEAST_SPACE = 1_000_000  # bytes: Hydra's files and a first checkpoint


class RunFolder:
    """``path`` with its newest ``keep`` checkpoints."""

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints", keep)

    def below(self, *names: str) -> "RunFolder":
        """The folder of a part of this run, such as one start of several."""
        return RunFolder(self.path.joinpath(*names), self.checkpoints.keep)

    def newest_checkpoint(self, say: Callable[[str], None] = log.info) -> dict[str, Any] | None:
        """The newest readable state. Its step and the files that were passed over are logged.

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
        """Whether a new run would destroy anything; a run killed before its first checkpoint has left nothing."""
        record = self.path / "metrics.csv"
        recorded = record.is_file() and record.stat().st_size > len("step,epoch,tag,value\n")
        starts = any(self.path.glob("starts/*/checkpoints/step-*.pt"))  # of method=multi_start
        evaluated = any(path.is_file() and path.stat().st_size > 0 for path in self.path.glob("*.jsonl"))
        return recorded or starts or evaluated or self.is_finished() or bool(self.checkpoints.files())

    def is_finished(self) -> bool:
        """Whether a search or a retraining has come to its end here."""
        return any((self.path / name).exists() for name in ("candidate.json", "result.json"))

    def refuse_if_occupied(self) -> None:
        """Refuse to start a run where one already is.

        Raises:
            InvalidValue: The folder holds a run.
        """
        if self.holds_a_run():
            ways = f"continue it with {typed('resume', self.path)} or name another with hydra.run.dir="
            raise InvalidValue("hydra.run.dir", self.path, f"that folder holds a run; {ways}")


@contextmanager
def own_run_folder(path: Path, key: str, explicit: bool, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """In the block, this process owns a folder for something new: ``path``, or with a suffix if only a date names it.

    Args:
        key: The setting that names ``path``.
        explicit: Whether the user has named it.
        refuse: Raises InvalidValue if the folder is not free.

    Raises:
        InvalidValue: ``path`` is not free, and has a name of its own.
    """
    if explicit or not DATE.fullmatch(path.name):
        with claimed(path, key, f"wait until it has ended or name another with {key}="):
            refuse(path)
            yield path
        return
    for number in count(1):
        one = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with ExitStack() as stack:
            try:
                stack.enter_context(owned(one))
                refuse(one)
            except (OwnedByAnother, InvalidValue):
                continue
            yield one
            return


def refuse_a_run(folder: Path) -> None:
    """See :meth:`RunFolder.refuse_if_occupied`."""
    RunFolder(folder).refuse_if_occupied()


def refuse_unusable_folder(folder: Path) -> None:
    """Refuse a run folder that cannot be made or written, before Hydra tries and fails with a traceback.

    Raises:
        UnusableInput: It is below a file, may not be written, has too long a name, or the disk is full.
    """
    try:
        existing = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    except OSError as error:
        raise UnusableInput(f"The run cannot be written to {folder}: {str(error.strerror).lower()}.") from error
    if not existing.is_dir():
        raise UnusableInput(f"The run cannot be written to {folder}: {existing} is a file.")
    disk = shutil.disk_usage(existing)
    if disk.total and disk.free < LEAST_SPACE:  # some file systems, on no disk of their own, tell no size
        raise UnusableInput(f"The run cannot be written to {folder}: the disk is full.")
    try:
        TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        why = f"no folder can be made in {existing} ({str(error.strerror).lower()})"
        raise UnusableInput(f"The run cannot be written to {folder}: {why}.") from error


def refuse_occupied_folder(arguments: Sequence[str], default: str | None = None) -> None:
    """Refuse to run where a run already is: before Hydra writes the new configuration over the old one.

    A folder that only Hydra can name (an interpolation, one of a sweep) has to be checked once Hydra has named it.

    Raises:
        InvalidValue: ``hydra.run.dir``, or ``default`` where that is not given, holds a run; or Hydra cannot read an
            argument.
        UnusableInput: It cannot be written.
    """
    for override in parse_overrides(arguments):
        key = override.key_or_group
        named = key not in ("hydra.run.dir", "hydra.sweep.dir") or override.value() not in ("", None)
        require(named, key, "", "it must name a folder")
    folder = value_of(arguments, "hydra.run.dir") or default
    refuse_unusable_folder(Path((folder or value_of(arguments, "hydra.sweep.dir") or "runs").partition("${")[0]))
    if folder is not None:
        refuse_a_run(Path(folder))
