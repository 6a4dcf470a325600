"""How far a run is: a bar in a terminal, one line per epoch elsewhere; and what its steps do, in a profiler's trace."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.profiler import profile, schedule, tensorboard_trace_handler

WAITED_STEPS = 1
WARMUP_STEPS = 1
TRACED_STEPS = 3


class Progress:
    """Shows the steps done, the time left and a few changing values; use it as a context manager.

    Args:
        description: What is being done, such as ``search``.
        total: How many steps the whole run has.
        console: ``auto`` shows a bar if ``stream`` is a terminal and only the epochs' lines if not; ``quiet`` shows
            nothing.
        start: The steps done before, by the run that is now resumed; they do not count in the estimate of the time.
        stream: Where it is shown; standard output if not given.
    """

    def __init__(
        self,
        description: str,
        total: int,
        console: Literal["auto", "quiet"] = "auto",
        start: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._quiet = console == "quiet"
        self._bar: Bar | None = None
        if not self._quiet and self._stream.isatty():
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}", markup=False),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task(description, total=total, completed=start, values="")

    def update(self, step: int, **fields: float | str) -> None:
        """Move the bar to ``step`` steps done and show ``fields`` behind it; numbers with four digits."""
        if self._bar is not None:
            shown = (
                f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in fields.items()
            )
            self._bar.update(self._task, completed=step, values="  ".join(shown))

    def epoch_line(self, text: str) -> None:
        """Leave ``text`` on a line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            # Flushed, because whoever follows a log file waits for this line.
            print(text, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class StepProfiler(Protocol):
    """The training loop calls :meth:`step` after each step."""

    def step(self) -> None: ...


class _NoProfiler:
    def step(self) -> None:
        pass


@contextmanager
def profiled(
    folder: Path, enabled: bool, record_shapes: bool = False, with_stack: bool = False
) -> Iterator[StepProfiler]:
    """Profile the third to fifth step of the block and write their trace to ``<folder>/profiler/*.pt.trace.json``.

    The trace is for chrome://tracing or https://ui.perfetto.dev.

    Call ``step()`` after each step. A block with fewer than three steps leaves no trace, one with fewer than five a
    trace of the steps there were.

    Args:
        folder: The run folder.
        enabled: Whether anything is profiled; if not, ``step()`` does nothing.
        record_shapes: Whether the trace tells the shapes of the operations' inputs.
        with_stack: Whether the trace tells the source lines that called the operations; slow.
    """
    if not enabled:
        yield _NoProfiler()
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler calls a machine without a GPU an error
    with profile(
        schedule=schedule(wait=WAITED_STEPS, warmup=WARMUP_STEPS, active=TRACED_STEPS, repeat=1),
        on_trace_ready=tensorboard_trace_handler(str(folder / "profiler")),
        record_shapes=record_shapes,
        with_stack=with_stack,
    ) as profiler:
        yield profiler
