"""The loop with a job that only counts: checkpoints, requests to stop, resuming, rollbacks."""

import csv
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.distributed import Ranks
from nas.errors import UnusableInput
from nas.run.finiteness import NotFinite
from nas.run.folder import RunFolder
from nas.run.loop import Loop, Session, Start
from nas.run.tracking import TrackingSettings
from nas.stopping import Stopped, StopRequested
from tests.killing import Killed

STEPS, EVERY = 10, 4


class Counting:
    """A job that adds random numbers to a weight and records the sum; ``disturb`` comes before every step."""

    def __init__(self, disturb: Callable[["Counting"], None] = lambda job: None) -> None:
        self.step, self.rollbacks, self.ended = 0, 0, 0
        self.rate, self.paid = 1.0, 0
        self.weight = torch.zeros(2)
        self.generator = torch.Generator().manual_seed(0)
        self.disturb = disturb
        self.course: list[str] = []

    def place(self) -> tuple[int, int]:
        return self.step, STEPS

    def begin(self, session: Session, start: Start) -> None:
        self.session = session
        self.course.append(f"begin {start} at {self.step}")
        if start == "rolled back":
            self.rate /= 2

    def finished(self) -> bool:
        return self.step >= STEPS

    def advance(self) -> None:
        self.disturb(self)
        self.weight += self.rate * torch.rand(2, generator=self.generator)
        self.step, self.paid = self.step + 1, self.paid + 1
        self.course.append("advance")
        self.session.tracker.scalar("weight", self.weight.sum(), self.step, 0)

    def due(self) -> bool:
        return self.step % EVERY == 0

    def end(self) -> None:
        self.course.append("end")
        self.ended += 1

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight}

    def state_dict(self) -> dict[str, Any]:
        own = {"rate": self.rate, "paid": self.paid, "weight": self.weight.clone()}
        return {**own, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.rate, self.paid = state["step"], state["rate"], state["paid"]
        self.weight = state["weight"].clone()
        self.generator.set_state(state["generator"])

    def rolled_back(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "paid": self.paid}


def loop_for(job: Counting, folder: Path, policy: Any = None) -> Loop:
    tracking = TrackingSettings(tensorboard=False, console="quiet")
    return Loop(job, "counting", RunFolder(folder, keep=9), tracking, Ranks(), policy, "count more slowly")


def run(folder: Path, disturb: Callable[[Counting], None] = lambda job: None, policy: Any = None) -> Counting:
    job = Counting(disturb)
    loop_for(job, folder, policy).run()
    return job


def checkpoints(folder: Path) -> list[int]:
    return RunFolder(folder).checkpoints.steps()


def metrics(folder: Path) -> bytes:
    return (folder / "metrics.csv").read_bytes()


def before(step: int, act: Callable[[Counting], object], times: int = 1) -> Callable[[Counting], None]:
    """Act before the step that follows ``step`` steps, the first ``times`` times."""
    left = [times]

    def disturb(job: Counting) -> None:
        if job.step == step and left[0]:
            left[0] -= 1
            act(job)

    return disturb


def spoil(job: Counting) -> None:
    job.weight[0] = torch.nan


def kill(job: Counting) -> None:
    raise Killed


def test_it_begins_advances_and_ends_with_checkpoints_between(tmp_path: Path) -> None:
    job = run(tmp_path)
    assert job.course == ["begin fresh at 0", *["advance"] * STEPS, "end"]
    assert checkpoints(tmp_path) == [0, 4, 8, 10]
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))


def test_what_was_finished_ends_once_more_and_advances_no_further(tmp_path: Path) -> None:
    first = run(tmp_path)
    recorded = metrics(tmp_path)
    again = run(tmp_path)
    assert again.course == [f"begin resumed at {STEPS}", "end"]
    assert torch.equal(again.weight, first.weight)
    assert metrics(tmp_path) == recorded


@pytest.mark.parametrize("step", [0, 3, 4, 7, 9])
def test_a_killed_job_goes_on_to_the_same_state_and_record(step: int, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", before(step, kill))
    resumed = run(tmp_path / "killed")
    assert resumed.course[0] == f"begin resumed at {step - step % EVERY}"
    assert torch.equal(resumed.weight, whole.weight)
    assert resumed.paid == whole.paid == STEPS
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_ends_it_after_the_step_with_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped) as stop:
        run(tmp_path / "stopped", before(5, lambda job: signal.raise_signal(number)))
    assert (stop.value.step, stop.value.folder) == (6, tmp_path / "stopped")
    assert checkpoints(tmp_path / "stopped")[-1] == 6
    resumed = run(tmp_path / "stopped")
    assert resumed.course == ["begin resumed at 6", *["advance"] * 4, "end"]
    assert torch.equal(resumed.weight, whole.weight)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_a_request_during_the_last_step_is_too_late(tmp_path: Path) -> None:
    job = run(tmp_path, before(STEPS - 1, lambda job: signal.raise_signal(signal.SIGINT)))
    assert job.ended == 1


def test_an_end_that_is_cut_short_is_saved_before_and_made_again(tmp_path: Path) -> None:
    class Cut(Counting):
        def end(self) -> None:
            raise StopRequested

    with pytest.raises(Stopped) as stop:
        loop_for(Cut(), tmp_path).run()
    assert stop.value.step == STEPS
    assert run(tmp_path).course == [f"begin resumed at {STEPS}", "end"]


def test_a_rollback_goes_on_from_the_last_good_checkpoint_and_pays_for_what_it_takes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nas")
    job = run(tmp_path, before(6, spoil), "rollback")
    assert job.course == ["begin fresh at 0", *["advance"] * 8, "begin rolled back at 4", *["advance"] * 6, "end"]
    assert job.rollbacks == 1
    assert job.rate == 0.5
    assert job.paid == STEPS + 4
    assert bool(job.weight.isfinite().all())
    assert caplog.messages == [
        "step 8: an entry of weight is nan; the last good checkpoint is of step 4: going on from there, "
        "the learning rate divided by 4"
    ]
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1)), "none twice, none missing"
    assert not any(row["value"] == "nan" for row in rows)


def test_a_rollback_outlives_a_kill(tmp_path: Path) -> None:
    spoiling = before(6, spoil)

    def disturb(job: Counting) -> None:
        spoiling(job)
        if job.rollbacks and job.step == 4:
            kill(job)  # right after the rollback

    with pytest.raises(Killed):
        run(tmp_path, disturb, "rollback")
    again = run(tmp_path, policy="rollback")
    assert again.course[0] == "begin resumed at 4"
    assert (again.rollbacks, again.rate, again.paid) == (1, 0.5, STEPS + 4)


def test_what_does_not_heal_ends_it(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"after 5 rollbacks; the last good .* step 4; count more slowly$"):
        run(tmp_path, before(6, spoil, times=100), "rollback")


@pytest.mark.parametrize("policy", ["restart", "stop"])
def test_another_policy_says_what_would_help(policy: str, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"of step 4; count more slowly, or set training\.on_non_finite=rollback$"):
        run(tmp_path, before(6, spoil), policy)
    assert checkpoints(tmp_path) == [0, 4], "what is not finite is never saved"


def test_without_a_policy_the_caller_sees_what_was_not_finite(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"^step 8: an entry of weight is nan$"):
        run(tmp_path, before(6, spoil))


def test_a_checkpoint_of_another_job_is_told_in_a_sentence(tmp_path: Path) -> None:
    run(tmp_path)

    class Other(Counting):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            super().load_state_dict({**state, "weight": state["bias"]})

    with pytest.raises(UnusableInput, match="The checkpoint of step 10 does not fit"):
        loop_for(Other(), tmp_path).run()


def test_the_record_is_opened_again_where_it_ended(tmp_path: Path) -> None:
    loop = loop_for(Counting(), tmp_path)
    loop.run()
    with loop.open_tracker(loop.tracker_state) as tracker:
        tracker.scalar("afterwards", 1.0, STEPS, 0)
    lines = metrics(tmp_path).decode().splitlines()
    assert len(lines) == 1 + STEPS + 1
    assert lines[-1] == f"{STEPS},0,afterwards,1.0"
