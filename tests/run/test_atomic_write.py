"""A file is the old one or the new one, whatever happens while it is written."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.run.atomic_write import write_atomically

WRITER = """
import sys
from pathlib import Path
from nas.run.atomic_write import write_atomically
turn = 0
while True:
    write_atomically(Path(sys.argv[1]), bytes([turn % 7]) * 300_000)
    turn += 1
"""


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
    for delay in (0.02, 0.05):
        file.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(file)])
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = file.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
