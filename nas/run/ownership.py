"""Who may write into a folder: one process at a time, which holds a lock that its end frees, even by a kill.

The lock is ``flock`` on ``<folder>/.lock``. The file says who holds it, for messages; it goes when the folder is freed,
and one that a killed process leaves behind is no lock.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nas.errors import InvalidValue
from nas.run.checkpoint import make_folder

log = logging.getLogger(__name__)

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # what such file systems answer
_held: dict[Path, int] = {}  # file descriptors by resolved folder


class OwnedByAnother(Exception):  # noqa: N818
    """Another process holds the folder; the text says which."""


@contextmanager
def owned(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """In the block, this process owns ``folder``, which is made if it is missing. A block inside another owns it, too.

    Args:
        folder: What is going to be written into.
        wait: Seconds to wait for another process that owns it.

    Raises:
        OwnedByAnother: Another process owns it.
    """
    path = folder.resolve()
    if path in _held:
        yield
        return
    make_folder(path)
    descriptor = _locked(path, time.monotonic() + wait)
    if descriptor is None:
        yield
        return
    _held[path] = descriptor
    try:
        yield
    finally:
        if _held.pop(path, None) is not None:  # a fork of this process owns nothing
            with suppress(OSError):
                (path / NAME).unlink()
            os.close(descriptor)


@contextmanager
def claimed(folder: Path, key: str, way_out: str, wait: float = 0.0) -> Iterator[None]:
    """:func:`owned`, where a folder that another process owns is a mistake in the setting ``key``.

    Args:
        way_out: What the user can do instead.

    Raises:
        InvalidValue: Another process owns it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(owned(folder, wait))
        except OwnedByAnother as error:
            raise InvalidValue(key, folder, f"{error} is writing into it; {way_out}") from error
        yield


def _locked(folder: Path, deadline: float) -> int | None:
    """The descriptor of the locked file in ``folder``; None on a file system that has no locks, which is told once."""
    path = folder / NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still_there(path, descriptor):
                _say_who(descriptor)
                return descriptor
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                os.close(descriptor)
                _say_once(folder)
                return None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                raise OSError(error.errno, error.strerror, str(path)) from error
            if time.monotonic() >= deadline:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise OwnedByAnother(holder) from error
            time.sleep(0.1)
        os.close(descriptor)


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is the locked file: its last owner may have removed it between opening and locking."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # a network folder still knows the file that was removed
            raise
        return False


def _say_who(descriptor: int) -> None:
    who = {"process": os.getpid(), "host": socket.gethostname(), "command": Path(sys.argv[0]).name}
    with suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(who).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 10_000, 0))
        host = "" if who["host"] == socket.gethostname() else f" on {who['host']}"
        return f"process {int(who['process'])} ({who['command']}){host}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


_told: set[bool] = set()


def _say_once(folder: Path) -> None:
    if not _told:
        log.info(f"{folder} is on a file system without locks: let no two processes write there")
    _told.add(True)


def _forget_in_child() -> None:
    """A child that outlives this process must not keep the lock: closing its copy frees nothing here."""
    for descriptor in _held.values():
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
