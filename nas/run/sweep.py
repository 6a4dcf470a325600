"""A multirun: its folder, what became of its jobs, and what it says at the end.

Every job notes in ``<sweep folder>/jobs/<number>.json`` how it ended, since a launcher may run it in another process or
on another machine. No job decides over the others; the sweep's exit code says whether one failed.
"""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from nas.errors import InvalidValue
from nas.run.checkpoint import make_folder, write_atomically
from nas.run.folder import RunFolder, own_run_folder
from nas.run.overrides import as_typed, escaped, overridden_key, typed, typed_script
from nas.run.recorded import recorded_configurations, recorded_overrides, trust_prefix
from nas.stopping import STOPPED

log = logging.getLogger(__name__)

FAILED, BAD_INPUT = 1, 2


@dataclass(frozen=True)
class JobRecord:
    """How a job of a sweep ended.

    Attributes:
        number: Its place in the sweep.
        overrides: What was set for it on the command line.
        code: Its exit code; None while it runs, and for ever where it was killed.
    """

    number: int
    overrides: list[str]
    code: int | None

    def write(self, sweep: Path) -> None:
        make_folder(sweep / "jobs")
        write_atomically(sweep / "jobs" / f"{self.number}.json", (json.dumps(vars(self)) + "\n").encode())


@dataclass
class Sweep:
    """The sweep that this process leads; its folder is this process's own."""

    folder: Path
    stack: ExitStack

    def records(self) -> list[JobRecord]:
        found = (json.loads(path.read_text(encoding="utf-8")) for path in (self.folder / "jobs").glob("*.json"))
        return sorted((JobRecord(**one) for one in found), key=lambda record: record.number)

    def conclude(self, command: str, code: int) -> int:
        """Say in one line what became of the jobs, and return the exit code of the sweep.

        Args:
            command: The entry point's file name.
            code: How Hydra's part of the sweep ended.
        """
        self.stack.close()
        records = self.records()
        if not records:
            if code == 0:
                print(f"{command}: the sweep has no jobs: one of its settings has no values.", file=sys.stderr)
            return code or BAD_INPUT
        common = set.intersection(*(set(one.overrides) for one in records)) if len(records) > 1 else set()
        done = [one for one in records if one.code == 0]
        stopped = [one for one in records if one.code == STOPPED]
        failed = [one for one in records if one not in done and one not in stopped]
        told = [f"{len(done)} of {len(records)} jobs done"]
        for word, some in (("failed", failed), ("stopped", stopped)):
            if some:
                told.append(f"{word}: {', '.join(_in_words(one, common) for one in some)}")
        if not failed and not stopped and not code:
            print(f"sweep: {told[0]}: {self.folder}")
            return 0
        print(f"sweep: {'; '.join(told)}; go on with: {self._command_to_go_on(command)}", file=sys.stderr)
        if failed:
            return BAD_INPUT if all(one.code == BAD_INPUT for one in records) else FAILED
        return STOPPED if stopped else code

    def _command_to_go_on(self, command: str) -> str:
        rest = [one for one in sys.argv[1:] if not one.lstrip("+").startswith("hydra.sweep.dir=")]
        trust = trust_prefix(*recorded_configurations(one.parent for one in self.folder.glob("*/.hydra")))
        return " ".join(
            [f"{trust}{typed_script(command)}", *map(shlex.quote, rest), typed("hydra.sweep.dir", self.folder)]
        )


def _in_words(record: JobRecord, common: set[str]) -> str:
    return f"{record.number} ({', '.join(one for one in record.overrides if one not in common) or 'as all'})"


_leading: list[Sweep] = []


def led_sweep() -> Sweep | None:
    """The sweep that this process leads; None in a single run, and in a job that a launcher runs elsewhere."""
    return _leading[-1] if _leading else None


class SweepRefused(BaseException):  # Hydra turns an Exception of a callback into a warning, and goes on
    """The sweep cannot begin, because of ``reason``."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class OwnsSweepFolder(Callback):
    """Hydra calls it: claims the sweep's folder before anything is written there."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder of the sweep.

        Raises:
            SweepRefused: Another process owns it, or it holds a run.
        """
        try:
            self._claim(config)
        except Exception as error:
            raise SweepRefused(error) from error

    def _claim(self, config: DictConfig) -> None:
        key = "hydra.sweep.dir"
        explicit = any(overridden_key(one) == key for one in as_typed(config.hydra.overrides.hydra))
        stack = ExitStack()
        wanted = Path(str(config.hydra.sweep.dir))
        folder = stack.enter_context(own_run_folder(wanted, key, explicit, lambda path: _refuse_other(path, explicit)))
        for record in (folder / "jobs").glob("*.json"):
            record.unlink()
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = escaped(str(folder))
            if folder != wanted:  # the jobs are composed anew, from the overrides
                (argument,) = shlex.split(typed(key, folder))
                config.hydra.overrides.hydra.append(argument)
        _leading.append(Sweep(folder, stack))


def _refuse_other(folder: Path, explicit: bool) -> None:
    """Refuse a sweep's folder that holds a run; one that holds a sweep may only be named, to go on with it."""
    if RunFolder(folder).holds_a_run() or (not explicit and (folder / "multirun.yaml").exists()):
        raise InvalidValue("hydra.sweep.dir", folder, "that folder holds a run; name another")


def refuse_other_job(folder: Path, overrides: Sequence[str], name: str) -> None:
    """Refuse to go on with a job of a sweep that was another one before.

    Args:
        folder: The job's folder.
        overrides: What is set for the job now.
        name: What the job is called in the sentence.

    Raises:
        InvalidValue: The run in ``folder`` began with other settings.
    """
    before, now = (
        sorted(one for one in some if not overridden_key(one).startswith("tracking"))
        for some in (recorded_overrides(folder), overrides)
    )
    if before != now:
        allowed = f"{name} began there with {' '.join(before) or 'no settings'}, not with {' '.join(now) or 'none'}"
        raise InvalidValue("hydra.sweep.dir", folder.parent, f"{allowed}; name another")
