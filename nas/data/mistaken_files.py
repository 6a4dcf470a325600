"""Files that are called a table and are none: pages, placeholders, archives with several files, lines in quotes."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from nas.data.packed_file import GZIP
from nas.errors import UnusableInput, listed

POINTER = b"version https://git-lfs.github.com"  # what Git LFS leaves of a file that was not fetched
NOT_FETCHED = "stands for a file of Git LFS that was not fetched: git lfs pull fetches it"
PAGES = (b"<!doctype", b"<html", b"<?xml")
NO_TEXTS = (  # what files are, whatever they are called, by their first and their last bytes
    (b"PK\3\4", b"", "a spreadsheet, a document or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", b"", "a spreadsheet or a document"),
    (b"%PDF", b"", "a PDF document"),
    (b"{\\rtf", b"", "a document (RTF)"),
    (GZIP, b"", "compressed"),
    (b"PAR1", b"PAR1", "Parquet"),  # at the beginning alone, it may name a column
)
CALLED = {"compressed": " (it should be called .csv.gz)", "Parquet": " (it should be called .parquet)"}
LOOKED_AT = 64  # bytes


def first_bytes(file: Path | str, last: int = 0) -> bytes:
    """The first bytes of ``file``, and its ``last`` ones behind them; nothing where it cannot be read.

    Whoever reads all of it next tells why it cannot be read.
    """
    try:
        with open(file, "rb") as content:
            first = content.read(LOOKED_AT)
            content.seek(-min(last, content.seek(0, os.SEEK_END)), os.SEEK_END)
            return first + content.read()
    except OSError:
        return b""


def no_text(file: Path | str) -> str | None:
    """What ``file`` is, by its first and last bytes, such as a PDF document; None where it may be a text."""
    ends = first_bytes(file, last=4)
    return next((what for first, last, what in NO_TEXTS if ends.startswith(first) and ends.endswith(last)), None)


def refuse_no_table(file: Path, key: str, is_text: bool) -> None:
    """Refuse what a download often is in place of a table.

    Args:
        file: That the setting ``key`` names.
        key: For messages.
        is_text: Whether its name says that it is neither Parquet nor compressed.

    Raises:
        UnusableInput: It is such a thing.
    """
    what = no_text(file)
    if what is not None and is_text:
        called = CALLED.get(what, "")
        raise UnusableInput(f"{file} is no text, but {what}{called}: save it as CSV and give that file in {key}.")
    first = first_bytes(file).lstrip(b"\xef\xbb\xbf \t\r\n")
    if is_pointer(first):
        raise UnusableInput(f"{file} {NOT_FETCHED}.")
    if first.lower().startswith(PAGES):
        raise UnusableInput(
            f"{file} is a web page or XML, maybe a page that says why nothing was downloaded: {key} must be CSV or "
            "Parquet."
        )
    if file.suffix.lower() == ".zip":
        _refuse_archive(file, key)


def _refuse_archive(file: Path, key: str) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except zipfile.BadZipFile:
        raise UnusableInput(f"{file} is a ZIP archive that is damaged or was cut off, or none.") from None
    except OSError:  # whoever reads the table tells of it
        return
    own = [name for name in names if not name.startswith("__MACOSX")]
    if not own:
        raise UnusableInput(f"{file} is a ZIP archive without a table: name one in {key}.")
    if len(names) != 1:
        raise UnusableInput(
            f"{file} has {len(names)} files, {listed(own)} among them: unpack it, and name one in {key}."
        )


def refuse_quoted_lines(file: Path, names: Sequence[object]) -> None:
    """Refuse a table of one column whose name is a whole line of names in quotation marks.

    Raises:
        UnusableInput: It is one.
    """
    quoted = first_bytes(file).lstrip(b"\xef\xbb\xbf").startswith(b'"')
    if quoted and len(names) == 1 and "," in str(names[0]):
        raise UnusableInput(
            f"{file} has quotation marks around whole lines, such as {str(names[0])!r}: remove them, or save it anew."
        )


def is_pointer(first: bytes) -> bool:
    """Whether a file that begins with ``first`` is a placeholder of Git LFS."""
    return first.startswith(POINTER)
