"""Kills searches and retrainings with SIGKILL at random moments and resumes them: nothing may be lost.

    python scripts/chaos.py --kills 50

Every method is run once undisturbed. Then it is killed again and again: by the clock, and inside the writing of a
checkpoint (half of it written, before it takes its name, just after). Each time the same command resumes it. At the end
its files must have the bytes of the undisturbed run; a process that has a checkpoint and starts over is lost. Meanwhile
a second process tries to take the folder: it must fail as long as the run lives, and succeed once it is killed.
Processes are forked from one that has imported everything, so that a life costs no seconds of imports. Exit code 0
where every kill was survived, 1 where one was not.
"""

import argparse
import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import nas.baselines.search
import nas.run.checkpoint
from nas.report.tables import comparison_table, print_table
from nas.run.checkpoint import CheckpointFolder
from nas.run.ownership import OwnedByAnother, owned

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "experiment=debug",
    "search.epochs=2",
    "final.epochs=4",
    "tracking.tensorboard=false",
    "data.split={train: 640, validation: 200, test: 397}",
)
BLACK_BOX = (*SMALL, "evaluation.epochs=1", "training.batch_size=64")
SUBJECTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "gradient": ("train_search.py", (*SMALL, "search.checkpoint_every=3"), ("candidate.json", "metrics.csv")),
    "tuned": (
        "train_search.py",
        (*SMALL, "method=tuned", "method.trials=3", "search.checkpoint_every=3"),
        ("candidate.json", "metrics.csv"),
    ),
    **{
        method: ("train_search.py", (*BLACK_BOX, f"method={method}", *more), ("candidate.json", "metrics.csv"))
        for method, more in {
            "random": ("budget.evaluations=24",),
            "genetic": ("budget.evaluations=24", "method.strategy.population=6"),
            "evolution": ("budget.evaluations=20", "method.strategy.population=6"),
            "mu_plus_lambda": ("budget.evaluations=25",),
            "reinforce": ("budget.evaluations=20",),
            "reinforce_lstm": ("budget.evaluations=20",),
            "hyperband": ("budget.evaluations=20", "evaluation.epochs=3", "evaluation.rungs=[1,2]"),
            "tpe": ("budget.evaluations=20",),
        }.items()
    },
    "retraining": ("train_final.py", ("final.checkpoint_every=3",), ("result.json", "metrics.csv", "weights.pt")),
}
FAILED, STOLEN = 1, 3
WRITING = ("half of a checkpoint written", "checkpoint not yet renamed", "checkpoint just renamed")
CLOCK = "by the clock"


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def strike_while_writing(moment: str, number: int) -> None:
    """Make this process kill itself at ``moment`` of the ``number``-th checkpoint that it writes."""
    written = [0]

    class HalfWritten:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "HalfWritten":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            kill_oneself()

    def is_struck(path: Path) -> bool:
        written[0] += path.name.startswith((".step-", "step-"))
        return written[0] == number and path.name.startswith((".step-", "step-"))

    replace = os.replace

    def opened(path: Path, mode: str) -> Any:
        file = open(path, mode)  # noqa: SIM115 - the caller closes it
        return HalfWritten(file) if is_struck(path) else file

    def replacing(source: Path, destination: Path) -> None:
        struck = is_struck(destination)
        if struck and moment == WRITING[1]:
            kill_oneself()
        replace(source, destination)
        if struck:
            kill_oneself()

    if moment == WRITING[0]:
        nas.run.checkpoint.open = opened  # type: ignore[attr-defined]
    else:
        os.replace = replacing  # type: ignore[assignment]


def life(script: str, arguments: list[str], log: Path, prepare: Callable[[], None]) -> int:
    """Start the entry point in a fork of this process; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [str(ROOT / script), *arguments]
        nas.baselines.search.SAVE_EVERY = 0.2
        prepare()
        runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(code)


def rival(run: Path, living: int) -> int:
    """Start a process that tries to take the folder ``run`` from the process ``living``; returns its process id.

    It ends with 0 once it has the folder and ``living`` is dead, with ``STOLEN`` if that is alive.
    """
    process = os.fork()
    if process:
        return process
    code = FAILED
    try:
        while not _holds(run, living):
            time.sleep(0.005)
        while True:
            with suppress(OwnedByAnother), owned(run):
                state = Path(f"/proc/{living}/stat")
                dead = not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"
                code = 0 if dead else STOLEN
                break
            time.sleep(0.005)
    finally:
        os._exit(code)


def _holds(run: Path, process: int) -> bool:
    try:
        return bool(json.loads((run / ".lock").read_text())["process"] == process)
    except (OSError, ValueError, KeyError):
        return False


def until_dead(process: int, seconds: float | None = None) -> tuple[bool, int]:
    """Wait for the end of ``process``, and kill it after ``seconds``; whether it was killed, and its exit code."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, 0 if deadline is None else os.WNOHANG)
        if found:
            return os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)


@dataclass
class Subject:
    """One entry point with one method: what became of its kills."""

    name: str
    folder: Path
    seed: int
    survived: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    contested: int = 0
    lives: int = 0
    runs: int = 0
    seconds: float = 0.0
    checkpoints: int = 1

    def __post_init__(self) -> None:
        self.script, arguments, self.files = SUBJECTS[self.name]
        self.arguments = list(arguments)
        self.random = random.Random(f"{self.seed}/{self.name}")
        self.undisturbed = self.folder / self.name / "undisturbed"

    def begin(self, candidate: Path | None) -> bool:
        """The undisturbed run; returns whether it ended well."""
        if candidate is not None:
            self.arguments.append(f"candidate={candidate}")
        began = time.monotonic()
        code = self._life(self.undisturbed, lambda: None, None)[1]
        self.seconds = time.monotonic() - began
        steps = CheckpointFolder(self.undisturbed / "checkpoints").steps()
        self.checkpoints = max(2, steps[-1] // 3 if steps else 2)
        if code != 0:
            self.lost.append(f"the undisturbed run ended with {code}: see {self._log(self.undisturbed)}")
        return code == 0

    def _log(self, run: Path) -> Path:
        return run.with_name(f"{run.name}.log")

    def _life(self, run: Path, prepare: Callable[[], None], seconds: float | None) -> tuple[bool, int]:
        """Begin or resume ``run``; whether it was killed, and its exit code."""
        run.parent.mkdir(parents=True, exist_ok=True)
        resumable = (run / ".hydra" / "overrides.yaml").exists()
        arguments = [f"resume={run}"] if resumable else [*self.arguments, f"hydra.run.dir={run}"]
        self.lives += 1
        living = life(self.script, arguments, self._log(run), prepare)
        other = rival(run, living)
        killed, code = until_dead(living, seconds)
        _, ended = until_dead(other, 2.0 if killed else 0.0)
        if killed and ended == STOLEN:
            self.lost.append(f"a second process took {run} while the run lived")
        if killed and ended == 0:
            self.contested += 1
        return killed, code

    def torment(self, kills: int) -> None:
        """Kill runs until ``kills`` were delivered, and see every run through to its end."""
        while kills > 0 and not self.lost:
            run = self.folder / self.name / f"run-{self.runs}"
            self.runs += 1
            delivered: list[str] = []
            finished = False
            while not finished and not self.lost:
                how, prepare, seconds = self._strike() if kills > len(delivered) else ("", lambda: None, None)
                before = self._newest_whole(run)
                size = self._log(run).stat().st_size if self._log(run).exists() else 0
                killed, code = self._life(run, prepare, seconds)
                self._check_resumption(run, before, size, killed)
                if killed:
                    delivered.append(how)
                elif code == 0:
                    finished = True
                else:
                    self.lost.append(f"ended with {code} after {len(delivered)} kills: see {self._log(run)}")
            if finished:
                self._compare(run)
            if not self.lost:
                self.survived.update(delivered)
                shutil.rmtree(run)
            kills -= len(delivered)

    def _strike(self) -> tuple[str, Callable[[], None], float | None]:
        """How the next life ends: its name, what arms it, and after how many seconds a clock strikes."""
        if self.random.random() < 0.5:
            return CLOCK, lambda: None, self.random.uniform(0.0, 0.8 * self.seconds)
        moment, number = self.random.choice(WRITING), self.random.randint(1, max(2, self.checkpoints // 3))
        return moment, lambda: strike_while_writing(moment, number), None

    @staticmethod
    def _newest_whole(run: Path) -> int | None:
        steps = CheckpointFolder(run / "checkpoints").steps()
        return steps[-1] if steps else None

    def _check_resumption(self, run: Path, before: int | None, size: int, killed: bool) -> None:
        """A life that found a checkpoint has to go on from it, if it lived long enough to say so."""
        with open(self._log(run), encoding="utf-8", errors="replace") as log:
            log.seek(size)
            said = log.read()
        resumed = re.search(r"^resumed at step (\d+)$", said, re.MULTILINE)
        steps = int(resumed[1]) if resumed else None
        after = self._newest_whole(run)
        if before is None:
            return
        if (steps is None and not killed) or (steps is not None and steps < before):
            self.lost.append(f"had a checkpoint of step {before} and went on from {steps}: see {self._log(run)}")
        if after is None or after < before:
            self.lost.append(f"the checkpoint of step {before} is gone: see {run}")

    def _compare(self, run: Path) -> None:
        for name in self.files:
            if (run / name).read_bytes() != (self.undisturbed / name).read_bytes():
                self.lost.append(f"{run / name} is not that of the undisturbed run")
        left = [str(path) for path in run.rglob("*.partial") if not path.name.startswith(".step-")]
        if left:
            self.lost.append(f"temporary files are left: {', '.join(left)}")


def report(subjects: list[Subject], kills: int) -> int:
    kinds = (CLOCK, *WRITING)
    rows = [
        (one.name, *(str(one.survived[kind]) for kind in kinds), str(one.runs), "lost" if one.lost else "identical")
        for one in subjects
    ]
    columns = ("", *(f"killed: {kind}" for kind in kinds), "runs", "final files")
    print_table(comparison_table("Kills survived", columns, rows))
    for one in subjects:
        for loss in one.lost:
            print(f"lost: {one.name}: {loss}", file=sys.stderr)
    survived = sum(one.survived.total() for one in subjects)
    contested = sum(one.contested for one in subjects)
    lost = sum(bool(one.lost) for one in subjects)
    print(f"{contested} of the killed runs kept a second process from their folder, which had it once they were dead")
    print(
        f"chaos: {survived} of {max(kills, survived)} kills survived, {lost} of {len(subjects)} subjects lost something"
    )
    return 0 if not lost and survived >= kills else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="over all subjects together")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--folder", type=Path, default=Path("runs/chaos"), help="emptied first")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error(f"--kills={arguments.kills} is not allowed: it must be at least 1")
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    torch.set_num_threads(1)
    for script in ("train_search.py", "train_final.py"):
        runpy.run_path(str(ROOT / script), run_name="imported")  # so that the forks have it all
    subjects = [Subject(name, folder, arguments.seed) for name in dict.fromkeys(arguments.subjects)]
    searched: Path | None = None
    for number, subject in enumerate(subjects):
        share = (number + 1) * arguments.kills // len(subjects) - number * arguments.kills // len(subjects)
        if subject.name == "retraining" and searched is None:
            source = Subject("gradient", folder / "searched", arguments.seed)
            source.begin(None)
            searched = source.undisturbed
        if share and subject.begin(searched if subject.name == "retraining" else None):
            searched = subject.undisturbed if subject.name == "gradient" else searched
            subject.torment(share)
        print(f"{subject.name}: {subject.survived.total()} kills survived in {subject.lives} lives", flush=True)
    return report([subject for subject in subjects if subject.lives], arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
