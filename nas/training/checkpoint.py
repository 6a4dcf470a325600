"""Checkpoints: everything a run needs to go on, in files that are whole or are not used.

A file is ``MAGIC``, the SHA-256 of the rest, and a ``torch.save`` of tensors and plain values, read with
``weights_only=True``.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from nas.atomic_write import write_atomically

MAGIC = b"NAS-CKPT"


class BrokenCheckpoint(Exception):  # noqa: N818
    """A checkpoint file is truncated, changed or no checkpoint at all."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``.

    Raises:
        BrokenCheckpoint: The file cannot be read or its checksum does not match.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read ({error.strerror})") from error
    header = len(MAGIC) + 32
    if content[: len(MAGIC)] != MAGIC or hashlib.sha256(content[header:]).digest() != content[len(MAGIC) : header]:
        raise BrokenCheckpoint(f"{path} is incomplete or has been changed")
    try:
        state = torch.load(io.BytesIO(content[header:]), map_location="cpu", weights_only=True)
    except Exception as error:
        raise BrokenCheckpoint(f"{path} holds no readable state") from error
    if not isinstance(state, dict):
        raise BrokenCheckpoint(f"{path} holds no state")
    return state


class CheckpointFolder:
    """The newest ``keep`` checkpoints of a run, ``step-00000120.pt`` being the one written after 120 steps."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, step: int, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        body = buffer.getvalue()
        path = self.folder / f"step-{step:08d}.pt"
        write_atomically(path, MAGIC + hashlib.sha256(body).digest() + body)
        # A file of a later step is a broken one that the run was not resumed from: it must not push out a good one.
        kept = [file for file in self.files() if file <= path][-self.keep :]
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
