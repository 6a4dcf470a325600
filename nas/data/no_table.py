"""Files that are called a table and are none: pages, placeholders, archives with several files, lines in quotes."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from nas.errors import UnusableInput

POINTER = b"version https://git-lfs.github.com"  # what Git LFS leaves of a file that was not fetched
PAGES = (b"<!doctype", b"<html", b"<?xml")
LOOKED_AT = 64  # bytes


def refuse_no_table(file: Path, key: str) -> None:
    """Refuse what a download often is in place of a table.

    Raises:
        UnusableInput: ``file``, which the setting ``key`` names, is such a thing.
    """
    with file.open("rb") as content:
        first = content.read(LOOKED_AT).lstrip(b"\xef\xbb\xbf \t\r\n")
    if is_pointer(first):
        raise UnusableInput(f"{file} stands for a file of Git LFS that was not fetched: git lfs pull fetches it.")
    if first.lower().startswith(PAGES):
        raise UnusableInput(
            f"{file} is a web page or XML, maybe a page that says why nothing was downloaded: {key} must be CSV or "
            "Parquet."
        )
    if file.suffix.lower() == ".zip" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            own = [name for name in names if not name.startswith("__MACOSX")]
            raise UnusableInput(
                f"{file} has {len(names)} files, {', '.join(own[:5])} among them: unpack it, and name one in {key}."
            )


def refuse_quoted_lines(file: Path, names: Sequence[object]) -> None:
    """Refuse a table of one column whose name is a whole line of names in quotation marks.

    Raises:
        UnusableInput: It is one.
    """
    with file.open("rb") as content:
        quoted = content.read(4).lstrip(b"\xef\xbb\xbf").startswith(b'"')
    if quoted and len(names) == 1 and "," in str(names[0]):
        raise UnusableInput(
            f"{file} has quotation marks around whole lines, such as {str(names[0])!r}: remove them, or save it anew."
        )


def is_pointer(first: bytes) -> bool:
    """Whether a file that begins with ``first`` is a placeholder of Git LFS."""
    return first.startswith(POINTER)
