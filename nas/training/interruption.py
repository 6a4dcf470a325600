"""Stopping at a safe point on Ctrl-C or a scheduler's SIGTERM."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818 - a run that stops on request is no error
    """The run was asked to stop; its checkpoint is written."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder


class StopRequest:
    """Context manager: the first signal sets ``requested``, a second one acts as it did before."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]
