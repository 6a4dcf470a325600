"""Running evaluations in parallel processes, through joblib."""

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from nas.configuration import optional_module
from nas.errors import require

Result = TypeVar("Result")


@dataclass(frozen=True)
class Jobs:
    """How many processes work at a time, and whose they are.

    Every call computes on one thread, in this process too: sums are then the same whatever the number of jobs.

    Args:
        jobs: Processes; 1 works in this one.
        backend: ``loky`` starts processes on this machine, ``ray`` takes those of a Ray cluster.

    Raises:
        InvalidValue: ``jobs`` is below 1.
        UnusableInput: Ray is not installed.
    """

    jobs: int = 1
    backend: Literal["loky", "ray"] = "loky"

    def __post_init__(self) -> None:
        require(self.jobs >= 1, "jobs", self.jobs, "it must be at least 1")
        if self.backend == "ray":
            optional_module("ray.util.joblib", "cluster").register_ray()

    def map(self, work: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> list[Result]:
        """``work(*arguments)`` for each of ``calls``, in their order."""
        if self.jobs == 1 or len(calls) == 1:
            return [_on_one_thread(work, *arguments) for arguments in calls]
        from joblib import Parallel, delayed

        found: list[Result] = Parallel(n_jobs=self.jobs, backend=self.backend)(
            delayed(_elsewhere)(work, *arguments) for arguments in calls
        )
        return found


def _on_one_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(*arguments)
    finally:
        torch.set_num_threads(threads)


def _elsewhere(work: Callable[..., Result], *arguments: Any) -> Result:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the run's own decides
    return _on_one_thread(work, *arguments)
