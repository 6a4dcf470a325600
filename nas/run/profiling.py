"""A trace of a few training steps, for chrome://tracing or https://ui.perfetto.dev."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from torch.profiler import profile, schedule, tensorboard_trace_handler

WAITED_STEPS = 1
WARMUP_STEPS = 1
TRACED_STEPS = 3


class StepProfiler(Protocol):
    """What the training loop tells that a step is over."""

    def step(self) -> None: ...


class _NoProfiler:
    def step(self) -> None:
        pass


@contextmanager
def profiled(
    folder: Path, enabled: bool, record_shapes: bool = False, with_stack: bool = False
) -> Iterator[StepProfiler]:
    """Profile the third to fifth step of the block and write their trace to ``<folder>/profiler/*.pt.trace.json``.

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
    with profile(
        schedule=schedule(wait=WAITED_STEPS, warmup=WARMUP_STEPS, active=TRACED_STEPS, repeat=1),
        on_trace_ready=tensorboard_trace_handler(str(folder / "profiler")),
        record_shapes=record_shapes,
        with_stack=with_stack,
    ) as profiler:
        yield profiler
