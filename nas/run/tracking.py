"""What a run records about itself: ``metrics.csv``, ``timing.csv`` and TensorBoard's event files.

The record survives a kill: a checkpoint holds :meth:`Tracker.state_dict`, and a tracker opened with it forgets whatever
was recorded after that checkpoint, so that the resumed run leaves the same ``metrics.csv`` as an uninterrupted one.
"""

import csv
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from torch import Tensor

from nas.device.transfer import as_numbers
from nas.errors import UnusableInput, require
from nas.tasks import PLAIN_CLASSIFICATION, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# TensorBoard's page of custom scalars: what matters first. The tags are regular expressions.
LAYOUT = {
    "search": {
        "losses of both levels": ["Multiline", ["train/loss$", "validation/loss$"]],
        "learning rate": ["Multiline", ["hyperparameters/learning_rate$"]],
        "other hyperparameters": ["Multiline", ["hyperparameters/(?!learning_rate)"]],
        "entropy of the choices": ["Multiline", ["entropy/"]],
        "interventions": ["Multiline", ["intervention/", "guard/restarts$"]],
    },
    "details": {
        "probabilities": ["Multiline", ["probability/"]],
        "gradient norms": ["Multiline", ["gradient/"]],
        "population": ["Multiline", ["population/", "policy/", "best/score$"]],
        "samples spent": ["Multiline", ["budget/samples$"]],
    },
}
COLUMNS = ("step", "epoch", "tag", "value")
EVENTS = "events/"  # what the names of TensorBoard's files begin with in a tracker's state
BUFFERED_RECORDS = 256
BUFFERED_SECONDS = 10.0


@dataclass(frozen=True)
class TrackingSettings:
    """What is recorded and shown.

    Attributes:
        tensorboard: Whether TensorBoard's event files are written.
        console: ``auto`` shows a progress bar in a terminal and one line per epoch elsewhere, ``quiet`` neither.
        log_every: Steps from one step-level record to the next.
        profiler: Whether a trace of a few early steps is written.
    """

    tensorboard: bool = True
    console: Literal["auto", "quiet"] = "auto"
    log_every: int = 10
    profiler: bool = False

    def __post_init__(self) -> None:
        require(self.log_every >= 1, "log_every", self.log_every, "it must be at least 1")


def layout(task: Task) -> dict[str, dict[str, Any]]:
    """:data:`LAYOUT` with what tells how well a network does at ``task``: what is glanced at, and the main measure."""
    main, glanced = task.measures[0], task.glanced
    steps, ends = [f"train/{glanced}$", f"validation/{glanced}$"], [f"best/{main.name}$", f"test/{main.name}$"]
    if task.glances_at_main:
        charts = {main.words: steps + ends}
    else:
        charts = {glanced.replace("_", " "): steps, main.words: [f"supernet/validation_{main.name}$", *ends]}
    first, *others = LAYOUT["search"].items()
    return {**LAYOUT, "search": dict([first, *((name, ["Multiline", tags]) for name, tags in charts.items()), *others])}


class Tracker:
    """Records scalars in the CSV files and in TensorBoard; figures, texts and the final summary in TensorBoard only.

    ``step`` always counts the run's optimiser steps. Everything that belongs to a step must be recorded before the
    :meth:`state_dict` that goes into the checkpoint of that step.

    Args:
        folder: The run folder; it is created if need be. Without ``state`` its CSV files are started afresh.
        settings: Whether TensorBoard is written; the other settings concern other parts of the run.
        state: What :meth:`state_dict` returned, to go on from there.
        task: What the numbers are, by which TensorBoard's charts are laid out.

    Raises:
        UnusableInput: A CSV file lacks rows that ``state`` says it has.
    """

    def __init__(
        self,
        folder: Path,
        settings: TrackingSettings,
        state: Mapping[str, int] | None = None,
        task: Task = PLAIN_CLASSIFICATION,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        metrics, timing = folder / "metrics.csv", folder / "timing.csv"
        if state is not None:
            # Both before either is cut: a refused run folder stays as it was.
            _require_size(metrics, state["metrics_bytes"])
            _require_size(timing, state["timing_bytes"])
        self._metrics = _RecordFile(metrics, None if state is None else state["metrics_bytes"])
        self._timing = _RecordFile(timing, None if state is None else state["timing_bytes"])
        self._last_step = -1 if state is None else state["step"]
        self._pending: list[_Record] = []
        self._written_at = time.monotonic()
        self._closed = False
        self._events = None
        if settings.tensorboard:
            # Here and not above: it also imports TensorFlow where that is installed, which takes seconds.
            from torch.utils.tensorboard import SummaryWriter

            _wait_for_a_later_name(folder / "tensorboard")
            _cut_events(folder / "tensorboard", state or {})
            # For a TensorBoard that has read it already: hides what was recorded after the last checkpoint's step.
            purge_step = self._last_step + 1
            self._events = SummaryWriter(folder / "tensorboard", purge_step=purge_step, max_queue=BUFFERED_RECORDS)
            self._events.add_custom_scalars(layout(task))

    def scalar(self, tag: str, value: float | Tensor, step: int, epoch: int) -> None:
        """Record a number that is the same in every run with this seed: a loss, an accuracy, a learned value.

        Args:
            tag: Its name, such as ``search/validation_loss``.
            value: A number or a tensor with one element, which is copied now but read only when a batch of records is
                written, so that a GPU need not be waited for at every step.
            step: The optimiser step it belongs to.
            epoch: The epoch of that step.
        """
        self._record(self._metrics, tag, value, step, epoch)

    def scalars(self, values: Mapping[str, float | Tensor], step: int, epoch: int) -> None:
        """Record several numbers of one step by their tags."""
        for tag, value in values.items():
            self.scalar(tag, value, step, epoch)

    def timing(self, tag: str, value: float | Tensor, step: int, epoch: int) -> None:
        """Record a duration or a throughput, like :meth:`scalar` but in ``timing.csv``."""
        self._record(self._timing, tag, value, step, epoch)

    def figure(self, tag: str, figure: "Figure", step: int) -> None:
        """Show a matplotlib figure in TensorBoard."""
        self._last_step = max(self._last_step, step)
        if self._events is not None:
            # close=False: the figure is the caller's, who may go on to save it.
            self._events.add_figure(tag, figure, step, close=False)

    def text(self, tag: str, text: str, step: int) -> None:
        """Show a text in TensorBoard, which reads it as Markdown."""
        self._last_step = max(self._last_step, step)
        if self._events is not None:
            self._events.add_text(tag, text, step)

    def final(self, hyperparameters: Mapping[str, object], metrics: Mapping[str, float | Tensor]) -> None:
        """Put the run into TensorBoard's HPARAMS tab: what was set and what came out.

        Args:
            hyperparameters: Numbers, texts and truth values; anything else is shown as text.
            metrics: Final numbers. Their scalars are named ``final/<name>``, lest one joins a curve of that name.
        """
        if self._events is None:
            return
        from torch.utils.tensorboard.summary import hparams

        shown = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in hyperparameters.items()
        }
        values = {f"final/{name}": float(value) for name, value in metrics.items()}
        step = max(self._last_step, 0)
        # SummaryWriter.add_hparams would put the same three summaries into a run of their own, apart from the curves.
        for summary in hparams(shown, values):
            self._events._get_file_writer().add_summary(summary, step)
        for tag, value in values.items():
            self._events.add_scalar(tag, value, step)

    def flush(self) -> None:
        """Return only when everything recorded so far is written, and the CSV files are safe on the disk."""
        self._write_pending()
        self._metrics.flush()
        self._timing.flush()
        if self._events is not None:
            self._events.flush()

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps: the size of each file in bytes and the last step; flushes first."""
        self.flush()
        sizes = {"metrics_bytes": self._metrics.size(), "timing_bytes": self._timing.size(), "step": self._last_step}
        files = [] if self._events is None else _event_files(Path(self._events.log_dir))
        return sizes | {f"{EVENTS}{path.name}": path.stat().st_size for path in files}

    def close(self) -> None:
        """Flush and close all files; nothing can be recorded afterwards. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as files:  # each is closed, whatever becomes of the others
            for file in (self._metrics, self._timing, self._events):
                if file is not None:
                    files.callback(file.close)
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _record(self, file: "_RecordFile", tag: str, value: float | Tensor, step: int, epoch: int) -> None:
        if isinstance(value, Tensor):
            # A copy, because the caller may go on to change the tensor in place.
            value = value.detach().reshape(()).clone()
        self._pending.append(_Record(file, tag, value, step, epoch, time.time()))
        self._last_step = max(self._last_step, step)
        # The clock decides only when rows reach the files, never what they say.
        late = time.monotonic() - self._written_at > BUFFERED_SECONDS
        if late or len(self._pending) >= BUFFERED_RECORDS:
            self._write_pending()

    def _write_pending(self) -> None:
        for record, value in zip(self._pending, as_numbers([record.value for record in self._pending]), strict=True):
            record.file.append(record.step, record.epoch, record.tag, value)
            if self._events is not None:
                self._events.add_scalar(record.tag, value, record.step, walltime=record.time)
        self._pending.clear()
        self._written_at = time.monotonic()


class SilentTracker(Tracker):
    """Records nothing: for the ranks of a data-parallel run that are not the first."""

    def __init__(self) -> None:
        pass

    def figure(self, tag: str, figure: "Figure", step: int) -> None:
        pass

    def text(self, tag: str, text: str, step: int) -> None:
        pass

    def final(self, hyperparameters: Mapping[str, object], metrics: Mapping[str, float | Tensor]) -> None:
        pass

    def flush(self) -> None:
        pass

    def state_dict(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass

    def _record(self, file: "_RecordFile", tag: str, value: float | Tensor, step: int, epoch: int) -> None:
        pass

    # What scalar and timing hand to _record.
    _metrics = _timing = None  # type: ignore[assignment]


@dataclass(frozen=True)
class _Record:
    """One scalar that waits to be written; ``time`` in seconds since 1970, for TensorBoard's axis."""

    file: "_RecordFile"
    tag: str
    value: float | Tensor
    step: int
    epoch: int
    time: float


class _RecordFile:
    """A CSV file with one row per record; it is started afresh, or cut to ``size`` bytes and continued."""

    def __init__(self, path: Path, size: int | None) -> None:
        if size is not None:
            os.truncate(path, size)
        self._file = path.open("w" if size is None else "a", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        if size is None:
            self._rows.writerow(COLUMNS)

    def append(self, step: int, epoch: int, tag: str, value: float) -> None:
        self._rows.writerow((step, epoch, tag, repr(value)))

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def size(self) -> int:
        """The bytes on the disk, which are all there are after :meth:`flush`."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()


def _require_size(path: Path, size: int) -> None:
    if not path.is_file():
        raise UnusableInput(f"The run cannot be resumed because {path} is missing.")
    if path.stat().st_size < size:
        raise UnusableInput(
            f"The run cannot be resumed because {path} has {path.stat().st_size} bytes"
            f" and had {size} when the checkpoint was written."
        )
    with path.open("rb") as record:
        record.seek(max(0, size - 1))
        last = record.read(1)
    if size and last != b"\n":
        raise UnusableInput(
            f"The run cannot be resumed because {path} has changed since the checkpoint was written, as where another "
            f"program has saved it: no line of it ends at byte {size}."
        )


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def _cut_events(folder: Path, state: Mapping[str, int]) -> None:
    """Take off TensorBoard's files what a run recorded after the checkpoint with ``state``."""
    if state and not any(name.startswith(EVENTS) for name in state):
        return  # it kept no events
    for path in _event_files(folder):
        size = state.get(f"{EVENTS}{path.name}")
        if size is None:
            path.unlink()
        elif size < path.stat().st_size:
            os.truncate(path, size)


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait until the clock has left the second of the newest event file in ``folder``.

    TensorBoard reads event files in the order of their names, which begin with the second they were made in; a purge
    reaches only what was read before it. A clock that was set back by more than that is not waited for.
    """
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    if seconds:
        time.sleep(min(max(max(seconds) + 1 - time.time(), 0.0), 1.0))
