"""A user's own files: where they are, what a run calls them, and what they are recognised by."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from nas.errors import UnusableInput

ADDRESS = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)
PARTS = re.compile(r"[_-](train|training)$", re.IGNORECASE)


def path_of(setting: str) -> Path:
    r"""The absolute path of a file that a setting names, relative to the working directory or to ``~``.

    ``data\own.csv``, as Windows has it, is ``data/own.csv`` where there is that file and not the other.

    Raises:
        UnusableInput: It is an address, as of a web page.
    """
    if ADDRESS.match(setting):
        way = "give its path alone" if setting.lower().startswith("file:") else "download it, and give its path"
        raise UnusableInput(f"{setting} is an address, and data are read from files: {way}.")
    path, other = (Path(one).expanduser().absolute() for one in (setting, setting.replace("\\", "/")))
    return other if other.exists() and not path.exists() else path


def name_of(file: Path) -> str:
    """What a run calls the data in ``file``: its name without endings and without ``_TRAIN``."""
    stem = PARTS.sub("", file.name.split(".")[0]) or file.name
    return re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", stem))[:100]


def former_names(name: str) -> tuple[str, ...]:
    """What runs of earlier versions may have called the data ``name``: ``_`` stood for what is not in ASCII."""
    return tuple(re.sub(r"[^A-Za-z0-9_.-]", "_", unicodedata.normalize(form, name)) for form in ("NFC", "NFD"))


def readable(text: str) -> str:
    r"""``text`` with ``\xc4pfel`` for a file's name in Latin 1, whose bytes no text in UTF-8 can hold."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def digest_of(files: Sequence[Path]) -> str:
    """The SHA-256 of the contents of ``files``, one after the other."""
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
