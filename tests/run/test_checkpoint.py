"""Files are whole or not used, whatever happens while they are written; of checkpoints the newest are kept."""

import hashlib
import io
import itertools
import multiprocessing
import os
import pickle
import random
import re
import stat
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.errors import RunFailed, UnusableInput
from nas.run.checkpoint import (
    MAGIC,
    BrokenCheckpoint,
    CheckpointFolder,
    is_due,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
)
from nas.run.folder import RunFolder


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "weights": OrderedDict(a=torch.arange(step, step + 5.0), b=torch.tensor(step, dtype=torch.float64)),
        "generator": torch.Generator().manual_seed(step).get_state()[:50],
        "means": {"train/loss": (0.1 + step, 7)},
        "values": [float("nan"), float("inf"), None, True, "text"],
    }


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected or found != found


def step_of(folder: CheckpointFolder) -> tuple[int | None, int]:
    """The newest readable step and how many broken files were passed over."""
    found, complaints = folder.newest()
    return (None if found is None else found["step"]), len(complaints)


def sealed(body: bytes) -> bytes:
    return MAGIC + hashlib.sha256(body).digest() + body


def test_round_trip(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert step_of(folder) == (None, 0)
    folder.save(3, state(3))
    found, complaints = folder.newest()
    assert complaints == []
    assert_equal(found, state(3))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for step in (0, 9, 10, 99, 100, 1000):
        folder.save(step, state(step))
    assert [file.name for file in folder.files()] == [f"step-{step:08d}.pt" for step in (99, 100, 1000)]
    assert step_of(folder) == (1000, 0)
    assert sorted(tmp_path.iterdir()) == folder.files(), "no temporary file is left"


def test_a_file_cut_anywhere_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))
    folder.save(2, state(2))
    newest = folder.files()[-1]
    size = newest.stat().st_size
    for length in [*range(size - 1, size - 40, -1), *range(size - 41, 60, -37), *range(60, -1, -1)]:
        os.truncate(newest, length)
        assert step_of(folder) == (1, 1)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))
    folder.save(2, state(2))
    newest = folder.files()[-1]
    whole = newest.read_bytes()
    generator = random.Random(0)
    for position in [*range(60), *range(60, len(whole), 11), len(whole) - 1]:
        with open(newest, "r+b") as file:
            file.seek(position)
            file.write(bytes([whole[position] ^ 1 << generator.randrange(8)]))
            file.flush()
            assert step_of(folder) == (1, 1)
            file.seek(position)
            file.write(whole[position : position + 1])
    assert step_of(folder) == (2, 0)


def test_a_partial_file_of_a_killed_run_is_ignored_and_replaced(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))
    (tmp_path / ".step-00000002.pt.partial").write_bytes(folder.files()[0].read_bytes()[:100])
    assert step_of(folder) == (1, 0)
    folder.save(2, state(2))
    assert step_of(folder) == (2, 0)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_broken_later_file_pushes_out_no_good_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save(100, state(100))
    folder.save(200, state(200))
    folder.files()[-1].write_bytes(b"")
    assert step_of(folder) == (100, 1)
    folder.save(150, state(150))
    assert step_of(folder) == (150, 0)
    folder.files()[-1].write_bytes(b"")
    assert step_of(folder) == (100, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        MAGIC,
        MAGIC + b"\0" * 31,
        sealed(b""),
        sealed(b"not a torch file"),
        sealed(pickle.dumps({"step": 1}, protocol=2)[:-2]),
        b"NAS-CKPU" + sealed(b"")[8:],
    ],
)
def test_what_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(content)
    with pytest.raises(BrokenCheckpoint, match=r"step-00000001\.pt"):
        read_checkpoint(path)


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(sealed(buffer.getvalue()))
    with pytest.raises(BrokenCheckpoint, match="holds no state"):
        read_checkpoint(path)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.pt"):
        with pytest.raises(BrokenCheckpoint, match="cannot be read"):
            read_checkpoint(path)


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    buffer, trapped = io.BytesIO(), tmp_path / "trapped"
    torch.save({"step": Trap(str(trapped))}, buffer)
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(sealed(buffer.getvalue()))
    with pytest.raises(BrokenCheckpoint, match="no readable state"):
        read_checkpoint(path)
    assert not trapped.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert trapped.exists(), "the trap would have worked"


def test_a_run_says_where_it_goes_on_and_what_it_passes_over(tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path), list[str]()
    assert folder.newest_checkpoint(said.append) is None
    assert said == []
    folder.checkpoints.save(5, state(5))
    folder.checkpoints.save(9, state(9))
    newest = folder.checkpoints.files()[-1]
    os.truncate(newest, 200)
    found = folder.newest_checkpoint(said.append)
    assert found is not None
    assert found["step"] == 5
    assert said == [f"{newest} is incomplete or has been changed; taking the one before.", "resumed at step 5"]


def test_a_run_with_broken_checkpoints_only_does_not_start_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.save(5, state(5))
    os.truncate(folder.checkpoints.files()[0], 10)
    with pytest.raises(UnusableInput, match=r"No checkpoint in .* can be read"):
        folder.newest_checkpoint(lambda _: None)


def test_content_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"first", b"", b"\x00" * 1000):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_the_new_content_is_on_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        events.append("folder" if stat.S_ISDIR(status.st_mode) else f"file of {status.st_size} bytes")
        fsync(descriptor)

    def recording_replace(source: Path, destination: Path) -> None:
        events.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    write_atomically(tmp_path / "file", b"12345")
    assert events == ["file of 5 bytes", "rename", "folder"]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def write() -> None:
        for turn in itertools.count():
            write_atomically(file, bytes([turn % 7]) * 300_000)

    for delay in (0.02, 0.05):
        file.unlink(missing_ok=True)
        process = multiprocessing.get_context("fork").Process(target=write)
        process.start()
        while not file.exists():
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.join()
        content = file.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1


@pytest.mark.parametrize(
    ("every", "epoch", "due"),
    [
        (100, 6, [12, 24, 36, 48, 60]),  # a search of 60 steps on small data
        (100, 32, [32, 64, 96, 100, 128]),
        (100, 390, [100, 200, 300, 390, 400]),
        (4, 3, [3, 4, 6, 8, 9]),
        (1_000_000, 3, []),
    ],
)
def test_a_checkpoint_is_due_after_so_many_steps_and_at_the_ends_of_epochs(every, epoch, due):
    assert [step for step in range(1, 500) if is_due(step, every, epoch)][: len(due) or None] == due


class Own:
    """Of a user's own."""


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"mean": np.zeros(2)}, "strategy.mean is a numpy.ndarray"),
        ({"shape": torch.Size([1]), "mean": [(1, np.zeros(2))]}, "strategy.mean is a numpy.ndarray"),
        ({"seen": {Own(): 2}}, f"a key of strategy.seen is a {__name__}.Own"),
        ({"rule": Own()}, f"strategy.rule is a {__name__}.Own"),
        ({"shape": torch.Size([1]), "rule": lambda: 1}, "strategy.rule is a builtins.function"),
    ],
    ids=["array", "second", "key", "object", "lambda"],
)
def test_what_could_not_be_read_again_is_not_written(own: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=f"{re.escape(told)}, and only tensors, numbers, texts"):
        write_checkpoint(tmp_path / "step-00000001.pt", {**state(1), "strategy": own})
    assert not list(tmp_path.iterdir())


def test_what_can_be_read_again_is_written(tmp_path: Path) -> None:
    own = {"mean": torch.zeros(2), "shape": torch.Size([1])}
    write_checkpoint(tmp_path / "step-00000001.pt", {"step": 1, "own": own})
    read = read_checkpoint(tmp_path / "step-00000001.pt")["own"]
    assert torch.equal(read["mean"], own["mean"])
    assert read["shape"] == own["shape"]
