"""Files that may be compressed."""

import gzip
from pathlib import Path

from nas.errors import require

GZIP = b"\x1f\x8b"
COMPRESSED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".tar")  # tables that pandas unpacks, by their names


def unpacked(path: Path, largest: int) -> bytes:
    """The content of ``path``, decompressed where it is a gzip file, whatever it is called.

    Raises:
        InvalidValue: It has more than ``largest`` bytes, decompressed.
        OSError, EOFError: It cannot be read.
    """
    with open(path, "rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    with gzip.open(path) if packed else open(path, "rb") as file:
        content = file.read(largest + 1)
    require(len(content) <= largest, "path", path, f"it must be a file of at most {largest} bytes")
    return content
