"""Stopping on Ctrl-C or a scheduler's SIGTERM: at a safe point, and within seconds in any case."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

# The terminal may be closed, too, unless nohup has seen to it that this is no matter.
_HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
# A scheduler warns of its time limit by these, as SLURM's --signal=USR1@60 does. Nobody else's handler is replaced:
# submitit starts its job again by one.
WARNINGS = tuple(one for one in (signal.SIGUSR1, signal.SIGUSR2) if signal.getsignal(one) is signal.SIG_DFL)
SIGNALS = (signal.SIGINT, signal.SIGTERM, *_HANGUP)
STOPPED = 75  # the exit code: EX_TEMPFAIL, try again later
GRACE = 8.0  # seconds; schedulers kill a process that is still there after 10 to 30
ECHO = 1.0  # seconds; who starts a run, uv or a shell's script, may hand on a signal that came to both of them
Item = TypeVar("Item")


class Stopped(Exception):  # noqa: N818 - a run that stops on request is no error
    """The run was asked to stop; its checkpoint is written."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(step, folder)
        self.step, self.folder = step, folder

    def __str__(self) -> str:
        return f"stopped at step {self.step}"


class StopRequested(Exception):  # noqa: N818
    """Something between two steps was cut short because the run was asked to stop."""


def leave_when_stopped() -> None:
    """Let a signal end the process at once, with a sentence: for times when there is no step to finish."""
    for number in (*SIGNALS, *WARNINGS):
        signal.signal(number, _leave)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """In the block, a signal ends the process by itself: in a wait outside of Python no handler of Python's runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in (*SIGNALS, *WARNINGS)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":  # a data-parallel run says it once
        print("stopped; go on with resume=<run folder> if the run had begun, else start it again", file=sys.stderr)
    raise SystemExit(STOPPED)


class StopRequest:
    """Context manager: the first signal sets ``requested``, a second one acts as it did before.

    A step may take longer than a scheduler waits. The process ends ``grace`` seconds after the signal if it is still
    in the context, but not after a warning; the last checkpoint survives that as it survives a kill. What comes within
    ``echo`` seconds of the first signal is the same request.
    """

    def __init__(self, grace: float = GRACE, echo: float = ECHO) -> None:
        self.requested = False
        self.grace, self.echo = grace, echo
        self._requested_at = 0.0
        self._previous: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            free = [one for one in WARNINGS if signal.getsignal(one) in (signal.SIG_DFL, _leave)]
            for number in (*SIGNALS, *free):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()
        if self._timer is not None:
            self._timer.cancel()

    def until_requested(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, until a signal asks to stop.

        Raises:
            StopRequested: A signal did.
        """
        for item in items:
            if self.requested:
                raise StopRequested
            yield item

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number in WARNINGS:  # the time limit itself is still to come
            return
        if self._timer is not None:
            if time.monotonic() - self._requested_at >= self.echo:
                self._restore()
                signal.raise_signal(number)
            return
        self._requested_at = time.monotonic()
        self._timer = threading.Timer(self.grace, _end)
        self._timer.daemon = True
        self._timer.start()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]


def _end() -> None:
    sentence = "stopped in the middle of a step; go on from the last checkpoint with resume=<run folder>\n"
    os.write(sys.stderr.fileno(), sentence.encode())
    os._exit(STOPPED)
