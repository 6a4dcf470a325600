"""One process at a time writes into a folder; its end, even by a kill, frees it."""

import errno
import fcntl
import logging
import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import pytest

from nas.errors import InvalidValue
from nas.run import ownership
from nas.run.folder import own_run_folder, refuse_a_run
from nas.run.ownership import OwnedByAnother, claimed, owned

FORKS = multiprocessing.get_context("fork")


def hold(folder: Path, held: Event) -> None:
    sys.argv = ["holder.py"]
    with owned(folder):
        held.set()
        time.sleep(600)


class Holder:
    """A process that owns ``folder`` until it is killed."""

    def __init__(self, folder: Path) -> None:
        held = FORKS.Event()
        self.process = FORKS.Process(target=hold, args=(folder, held), daemon=True)
        self.process.start()
        assert held.wait(60)

    def kill(self) -> None:
        self.process.kill()  # SIGKILL; without effect on a dead process
        self.process.join()


@pytest.fixture
def holder(tmp_path: Path) -> Holder:
    found = Holder(tmp_path / "run")
    yield found
    found.kill()


def test_a_folder_of_another_process_is_refused_and_a_kill_frees_it(holder: Holder, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue) as caught, claimed(tmp_path / "run", "resume", "wait until it has ended"):
        pass
    assert str(caught.value) == (
        f"resume={tmp_path / 'run'} is not allowed: process {holder.process.pid} (holder.py) is writing into it; "
        "wait until it has ended."
    )
    holder.kill()
    assert (tmp_path / "run" / ".lock").exists()  # what is left of it is no lock
    with owned(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_one_waits_as_long_as_it_is_told(holder: Holder, tmp_path: Path) -> None:
    with pytest.raises(OwnedByAnother), owned(tmp_path / "run", wait=0.3):
        pass


def test_a_block_in_a_block_and_a_link_are_the_same_owner(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with owned(tmp_path / "run"):
        with owned(tmp_path / "link"), owned(tmp_path / "run" / ".." / "run"):
            pass
        assert (tmp_path / "run" / ".lock").exists()


def test_a_default_name_that_is_taken_gets_a_suffix(tmp_path: Path) -> None:
    date = tmp_path / "2026-01-01_00-00-00"
    first = Holder(date)
    (tmp_path / f"{date.name}-2").mkdir()
    (tmp_path / f"{date.name}-2" / "candidate.json").touch()  # a run that has finished meanwhile
    try:
        with own_run_folder(date, "hydra.run.dir", False, refuse_a_run) as own:
            assert own == tmp_path / f"{date.name}-3"
        with (
            pytest.raises(InvalidValue, match=r"process \d+"),
            own_run_folder(date, "hydra.run.dir", True, refuse_a_run),
        ):
            pass
    finally:
        first.kill()
    with own_run_folder(date, "hydra.run.dir", False, refuse_a_run) as own:
        assert own == date


def test_a_child_that_outlives_its_parent_does_not_keep_the_folder(tmp_path: Path) -> None:
    over = FORKS.Event()

    def leave_a_child() -> None:
        with owned(tmp_path / "run"):
            if os.fork() == 0:
                over.wait(60)
            os._exit(0)

    process = FORKS.Process(target=leave_a_child)
    process.start()
    process.join()  # with a limit it would wait for the child
    assert process.exitcode == 0
    with owned(tmp_path / "run"):
        pass
    over.set()


def _take(folder: Path) -> bool:
    try:
        with owned(folder):
            return True
    except OwnedByAnother:
        return False


def test_a_fork_of_the_owner_is_another_process(tmp_path: Path) -> None:
    with owned(tmp_path / "run"), FORKS.Pool(1) as pool:
        assert pool.apply(_take, (tmp_path / "run",)) is False
    assert _take(tmp_path / "run")


def test_a_lock_that_a_network_folder_remembers_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def stat(path: Path) -> os.stat_result:
        if stale:
            raise stale.pop()
        return path.stat()

    monkeypatch.setattr(ownership, "os", SimpleNamespace(**{**vars(os), "stat": stat}))
    with owned(tmp_path / "run"):
        assert not stale


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(ownership, "_told", set())
    caplog.set_level(logging.INFO)
    for _ in range(2):
        with owned(tmp_path / "run"):
            pass
    assert caplog.messages == [
        f"{tmp_path / 'run'} is on a file system without locks: let no two processes write there"
    ]


@pytest.mark.parametrize(
    "name", ["starts/0/checkpoints/step-00000001.pt", "evaluations.jsonl", "line_search.jsonl", "neighbours.jsonl"]
)
def test_a_fresh_run_takes_over_no_part_of_another(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}\n")
    with pytest.raises(InvalidValue, match="holds a run"):
        refuse_a_run(tmp_path)
