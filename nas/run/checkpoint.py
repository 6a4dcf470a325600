"""Files that are whole or are not used: atomic writes, and the checkpoints that hold all a run needs to go on.

A checkpoint is ``MAGIC``, the SHA-256 of the rest, and a ``torch.save`` of tensors and plain values, read with
``weights_only=True``.
"""

import hashlib
import io
import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import RunFailed, UnusableInput, fault_sentence

MAGIC = b"NAS-CKPT"
LARGEST_FILE = 64 * 2**30  # bytes
PLAIN = (Tensor, nn.Parameter, int, float, str, bool, bytes, type(None))
NAME = re.compile(r"step-(\d{8,})\.pt")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: a temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: It cannot be written; it names ``path``, which is as it was, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # on a full disk it takes the place that others need
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def make_folder(path: Path, parents: bool = True) -> None:
    """Make the folder ``path``, with its missing ``parents``, and sync every new entry to the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=parents, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_due(step: int, every: int, epoch: int) -> bool:
    """Whether a checkpoint is written after ``step``.

    One is due after every ``every`` steps. Small data have more than one epoch in them, and one is also due at the ends
    of epochs: of each, or of as many as take a tenth of ``every``, since a checkpoint may take longer than a step.

    Args:
        step: Steps done, from 1.
        every: What the settings say.
        epoch: Steps in an epoch.
    """
    return step % every == 0 or step % (epoch * math.ceil(every / (10 * epoch))) == 0


class BrokenCheckpoint(Exception):  # noqa: N818
    """A checkpoint file is truncated, changed or no checkpoint at all."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``.

    Raises:
        BrokenCheckpoint: The file cannot be read or its checksum does not match.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BrokenCheckpoint(f"{path} is larger than a checkpoint can be ({LARGEST_FILE} bytes)")
        content = path.read_bytes()
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read ({error.strerror})") from error
    header = len(MAGIC) + 32
    if content[: len(MAGIC)] != MAGIC or hashlib.sha256(content[header:]).digest() != content[len(MAGIC) : header]:
        raise BrokenCheckpoint(f"{path} is incomplete or has been changed")
    try:
        state = torch.load(io.BytesIO(content[header:]), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise BrokenCheckpoint(f"{path} holds no readable state") from error
    if not isinstance(state, dict) or type(state.get("step")) is not int:
        raise BrokenCheckpoint(f"{path} holds no state")
    return state


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, which has a ``step``, such that :func:`read_checkpoint` finds it whole or not at all.

    Raises:
        RunFailed: A part of a user's own has something in its state that could not be read again.
    """
    foreign = list(_not_plain(state))
    try:
        body = _saved(state, read_again=bool(foreign))
    except Exception as error:  # pickle and PyTorch raise what they like
        for place, value in foreign:
            if not _can_be_read_again(value):
                found = f"{place} is a {type(value).__module__}.{type(value).__qualname__}"
                plain = "only tensors, numbers, texts, and lists and dictionaries of them can be read again"
                raise RunFailed(f"The state of this run cannot be saved: {found}, and {plain}.") from error
        raise
    write_atomically(path, MAGIC + hashlib.sha256(body).digest() + body)


def _saved(value: object, read_again: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    if read_again:
        buffer.seek(0)
        torch.load(buffer, map_location="cpu", weights_only=True)
    return buffer.getvalue()


def _can_be_read_again(value: object) -> bool:
    try:
        _saved(value, read_again=True)
    except Exception:  # as above
        return False
    return True


def _not_plain(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Where below ``value`` there is something else than tensors and plain values, and what."""
    if type(value) in (dict, OrderedDict):
        for key, entry in value.items():  # type: ignore[attr-defined]
            yield from _not_plain(key, f"a key of {place}")
            yield from _not_plain(entry, f"{place}.{key}" if place else str(key))
    elif type(value) in (list, tuple):
        for entry in value:  # type: ignore[attr-defined]
            yield from _not_plain(entry, place)
    elif type(value) not in PLAIN:
        yield place, value


@contextmanager
def loading(state: dict[str, Any]) -> Iterator[None]:
    """In the block, the parts of a run load ``state``.

    Raises:
        UnusableInput: A part cannot load its state.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if fault_sentence(error) is not None:
            raise
        reason = " ".join(str(error).split())[:160]
        raise UnusableInput(
            f"The checkpoint of step {state['step']} does not fit this run's settings or this version: {reason}."
        ) from error


class CheckpointFolder:
    """The newest ``keep`` checkpoints of a run, ``step-00000120.pt`` being the one written after 120 steps."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """Oldest first.

        Raises:
            OSError: The folder exists but cannot be read; that is not the same as having no checkpoints.
        """
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted((self.folder / name for name in names if NAME.fullmatch(name)), key=_step)

    def steps(self) -> list[int]:
        """The steps of :meth:`files`."""
        return [_step(path) for path in self.files()]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of ``step``, and remove those that are older than the ``keep`` newest."""
        make_folder(self.folder, parents=False)  # a run folder that has vanished is not to be made up again
        write_checkpoint(self.folder / f"step-{step:08d}.pt", state)
        # A file of a later step is a broken one that the run was not resumed from: it must not push out a good one.
        kept = [file for file in self.files() if _step(file) <= step][-self.keep :]
        for file in self.files():
            if file not in kept:
                file.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest readable state, or None, and a sentence for every broken file that was passed over."""
        complaints: list[str] = []
        for path in reversed(self.files()):
            try:
                return read_checkpoint(path), complaints
            except BrokenCheckpoint as error:
                complaints.append(str(error))
        return None, complaints


def _step(path: Path) -> int:
    return int(path.stem.partition("-")[2])
