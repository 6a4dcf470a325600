"""The loop that the gradient search, the black-box searches and the retraining share.

It goes from the newest checkpoint to the end of a job, and deals with all that is not the job's own: checkpoints, a
signal that asks to stop, the record, the progress bar, the profiler, numbers that are not finite.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from nas.device.transfer import keep_freed_memory
from nas.distributed import Ranks
from nas.run.checkpoint import loading
from nas.run.finiteness import MOST_ROLLBACKS, ROLLBACK_DIVISOR, NotFinite, OnNonFinite, require_finite
from nas.run.folder import RunFolder
from nas.run.progress import Progress, profiled
from nas.run.tracking import SilentTracker, Tracker, TrackingSettings
from nas.stopping import Stopped, StopRequest, StopRequested
from nas.tasks import PLAIN_CLASSIFICATION, Task

log = logging.getLogger(__name__)
Start = Literal["fresh", "resumed", "rolled back"]


@dataclass(frozen=True)
class Session:
    """What a job may use while it runs.

    Attributes:
        tracker: The record.
        progress: The progress bar, and lines above it.
        request: Whether somebody has asked to stop; the loop looks at it after every step.
    """

    tracker: Tracker
    progress: Progress
    request: StopRequest


class Job(Protocol):
    """What the loop runs.

    Attributes:
        step: Steps done.
        rollbacks: How often the loop has gone back to an earlier checkpoint because a number was not finite.
    """

    @property
    def step(self) -> int: ...

    rollbacks: int

    def place(self) -> tuple[int, int]:
        """How far it is for the progress bar, and how far it goes."""
        ...

    def begin(self, session: Session, start: Start) -> None:
        """Get ready, once the state of an earlier session is loaded."""
        ...

    def finished(self) -> bool: ...

    def advance(self) -> None:
        """Do one step."""
        ...

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        ...

    def end(self) -> None:
        """Do what comes after the last step, once or again.

        Raises:
            StopRequested: Somebody asked to stop meanwhile.
        """
        ...

    def tensors(self) -> Mapping[str, Tensor]:
        """What must be finite, and the same on all ranks, in a checkpoint."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, with the ``step`` it was taken at."""
        ...

    def rolled_back(self, state: dict[str, Any]) -> dict[str, Any]:
        """The earlier ``state`` from which the job goes on, with what must not be taken back."""
        ...


class Loop:
    """Runs ``job`` in ``folder``.

    Args:
        description: What the progress bar calls it.
        policy: What a number that is not finite leads to; None leaves it to the caller.
        advice: What the user might then do.
        task: What the recorded numbers are.

    Attributes:
        tracker_state: Where the record ends, to be opened there again.
    """

    def __init__(
        self,
        job: Job,
        description: str,
        folder: RunFolder,
        tracking: TrackingSettings,
        ranks: Ranks,
        policy: OnNonFinite | None = None,
        advice: str = "",
        task: Task = PLAIN_CLASSIFICATION,
    ) -> None:
        self.job, self.description, self.folder, self.tracking, self.ranks = job, description, folder, tracking, ranks
        self.policy, self.advice, self.task = policy, advice, task
        self.tracker_state: dict[str, int] | None = None

    def run(self) -> None:
        """Run to the end.

        Raises:
            Stopped: A signal asked to stop; the checkpoint is written.
            NotFinite: A number is not finite, and no rollback helps.
            FloatingPointError: An alpha is not finite; the step is named.
        """
        newest = self.folder.newest_checkpoint() if self.ranks.is_first else None
        state: dict[str, Any] | None = self.ranks.share(newest)
        start: Start = "fresh" if state is None else "resumed"
        while True:
            try:
                return self._run_from(state, start)
            except NotFinite as fault:
                if self.policy is None:
                    raise
                state, start = self._rolled_back(fault), "rolled back"
            except FloatingPointError as error:
                raise FloatingPointError(f"step {self.job.step}: {error}") from error

    def _run_from(self, state: dict[str, Any] | None, start: Start) -> None:
        job = self.job
        if state is not None:
            self.ranks.require_as_many(state)
            with loading(state):
                job.rollbacks = state.get("rollbacks", 0)
                job.load_state_dict(state)
        keep_freed_memory()
        done, total = job.place()
        console = self.tracking.console if self.ranks.is_first else "quiet"
        with (
            StopRequest() as request,
            self.open_tracker(None if state is None else state["tracker"]) as tracker,
            Progress(self.description, total, console, start=done) as progress,
            profiled(self.folder.path, self.tracking.profiler and self.ranks.is_first) as profiler,
        ):
            job.begin(Session(tracker, progress, request), start)
            if start != "resumed":  # after a rollback at once, or a kill would undo it
                self._save(tracker)
            while not job.finished():
                job.advance()
                profiler.step()
                if self.ranks.any(request.requested) and not job.finished():
                    self._stop(tracker)
                if job.due():
                    self._save(tracker)
            try:
                job.end()
            except StopRequested:
                self._stop(tracker)
            self._save(tracker)

    def _rolled_back(self, fault: NotFinite) -> dict[str, Any]:
        """The state of the last checkpoint, from which the job goes on at a lower learning rate.

        Raises:
            NotFinite: The policy is another one, there were too many rollbacks, or no checkpoint can be read; with all
                of this said.
        """
        rollbacks = self.job.rollbacks
        state = self.ranks.share(self.folder.checkpoints.newest()[0] if self.ranks.is_first else None)
        good = "no checkpoint is good" if state is None else f"the last good checkpoint is of step {state['step']}"
        if state is None or self.policy != "rollback" or rollbacks >= MOST_ROLLBACKS:
            ways = f", after {rollbacks} rollbacks" if rollbacks else ""
            other = "" if self.policy == "rollback" else ", or set training.on_non_finite=rollback"
            said = f"{ways}; {good}; {self.advice}{other}"
            raise NotFinite(fault.step, fault.quantity, fault.value, said) from fault
        log.info(f"{fault}; {good}: going on from there, the learning rate divided by {ROLLBACK_DIVISOR:g}")
        return self.job.rolled_back(state) | {"rollbacks": rollbacks + 1}

    def open_tracker(self, state: dict[str, int] | None) -> Tracker:
        first = self.ranks.is_first
        return Tracker(self.folder.path, self.tracking, state, self.task) if first else SilentTracker()

    def _stop(self, tracker: Tracker) -> None:
        self._save(tracker)
        raise Stopped(self.job.step, self.folder.path)

    def _save(self, tracker: Tracker) -> None:
        tensors = self.job.tensors()
        require_finite(self.job.step, tensors)
        self.ranks.require_same(self.job.step, tensors)
        state = self.job.state_dict()  # on every rank, as its generators are gathered from all
        self.tracker_state = tracker.state_dict()
        if self.ranks.is_first:
            own = {"step": self.job.step, "rollbacks": self.job.rollbacks, "ranks": self.ranks.count}
            self.folder.checkpoints.save(self.job.step, {**own, **state, "tracker": self.tracker_state})
