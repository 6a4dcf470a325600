"""A file of labels: which picture each of its rows is of, and what is to be learned of it."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nas.data.pictures.picture_folder import PICTURES, PictureFolder
from nas.data.sample_folder import SampleFiles
from nas.data.tables.csv_format import CsvFormat
from nas.data.tables.table_columns import require_columns, rows_named, targets_among
from nas.data.tables.table_file import Column, read_table
from nas.data.tables.table_rows import text_of
from nas.data.targets import Targets
from nas.errors import InvalidValue, UnusableInput, listed, require

LOOKED_AT = 100  # rows, to find the column of file names


@dataclass(frozen=True)
class LabelledFiles(SampleFiles):
    """Pictures with what a file of labels says of them.

    Attributes:
        target_names: What the targets are called.
        columns: The columns of the file, in the order of the pictures; none without such a file.
    """

    target_names: tuple[str, ...] = ()
    columns: Mapping[str, Column] = field(default_factory=dict)


def labelled_pictures(
    path: Path, csv: CsvFormat, folder: PictureFolder, file_column: str | None, target: str | Sequence[str] | None
) -> LabelledFiles:
    """The pictures that the rows of ``path`` name, with their targets and all columns.

    Args:
        path: A table with a row per picture.
        csv: How it is read.
        folder: Where the pictures are.
        file_column: The column of file names; null takes the one whose values are pictures.
        target: The column or columns to be learned; null takes the only other column.

    Raises:
        UnusableInput: A picture is missing or listed twice, or a target is missing or infinite.
        InvalidValue: A column is not there or not told; the key is ``target`` or ``file_column``.
    """
    if not path.is_file():
        raise UnusableInput(f"The file of labels {path} is not there: name one with data.labels=<file>.csv.")
    columns, shown = read_table(path, csv, key="data.labels"), path.name
    pictures = folder.pictures()
    column, files = _files(columns, file_column, folder, pictures, shown)
    names = _target_names(columns, target, column, shown)
    targets = targets_among(columns, names, shown)
    unlisted = len(set(pictures) - set(files))
    if unlisted:
        folder.say(f"{unlisted:,} of {len(pictures):,} pictures are not in {shown} and are left out")
    own, order = folder.by_part(files)
    places = order.tolist()
    chosen = {
        name: Column(
            name,
            one.kind,
            None if one.numbers is None else one.numbers[order],
            None if one.texts is None else tuple(one.texts[place] for place in places),
        )
        for name, one in columns.items()
    }
    ordered = Targets(targets.values[order], targets.class_names)
    return LabelledFiles([files[place] for place in places], ordered, own, names, chosen)


def _files(
    columns: Mapping[str, Column], given: str | None, folder: PictureFolder, pictures: Sequence[str], shown: str
) -> tuple[str, list[str]]:
    """The column of file names, and the picture of each row."""
    names = _Names(folder.location, pictures)
    first = [name for name in columns if _is_file_name(name) and names.picture(name)]
    if first:
        raise UnusableInput(
            f"The first line of {shown} has {first[0]}, a picture, and must have the names of the columns: write them "
            "above it, such as file,target."
        )
    if given is None:
        given = _column_of_names(columns, names, folder, pictures, shown)
    require_columns("file_column", [given], columns, shown)
    texts = _texts(columns[given])
    files = [names.picture(text) for text in texts]
    missing = [row for row, file in enumerate(files) if file is None]
    if missing:
        first = [f"{texts[row] or 'nothing'} in row {row + 1}" for row in missing]
        raise UnusableInput(
            f"{len(missing):,} of the {len(texts):,} pictures of {shown} are not below {folder.location}: "
            f"{listed(first, 3)} (column {given}; row 1 is the first below the names; read are {' '.join(PICTURES)})."
        )
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        rows = torch.tensor([row for row, file in enumerate(files) if file == twice[0]])
        raise UnusableInput(
            f"{shown} has more than one row for {len(twice):,} of the pictures, for {twice[0]} in {rows_named(rows)}: "
            "keep one row of each, or the same picture is trained and tested on."
        )
    return given, [str(file) for file in files]


def _column_of_names(
    columns: Mapping[str, Column], names: "_Names", folder: PictureFolder, pictures: Sequence[str], shown: str
) -> str:
    """The one column whose texts are names of pictures."""
    looked_at = {name: _texts(one)[:LOOKED_AT] for name, one in columns.items()}
    found = [name for name, texts in looked_at.items() if names.share(texts) > 0.5]
    if len(found) > 1:  # labels from 0 to 9 may be pictures, too: 7 is the name of 0007.png
        found = [name for name in found if all(map(_is_file_name, looked_at[name]))] or found
    example = f", {Path(pictures[0]).relative_to(folder.location)} the first" if pictures else ""
    problem = f"{listed(found)} have" if found else f"none of the columns {', '.join(columns)} of {shown} has"
    others = [] if found else [text for texts in looked_at.values() for text in texts if _is_file_name(text)]
    way = f"{others[0]} must be written so, seen from that folder" if others else "say which has them"
    allowed = f"{problem} names of the {len(pictures):,} pictures below {folder.location}{example}: {way}"
    require(len(found) == 1, "file_column", None, allowed)
    return found[0]


def _target_names(
    columns: Mapping[str, Column], target: str | Sequence[str] | None, file_column: str, shown: str
) -> tuple[str, ...]:
    if target is None:
        others = [name for name in columns if name not in (file_column, "")]  # without the index of a data frame
        allowed = f"the columns of {shown} beside {file_column} are {', '.join(others) or 'none'}: "
        allowed += "say which is to be learned, or several as [a, b]"
        require(len(others) == 1, "target", None, allowed)
        return (others[0],)
    names = (target,) if isinstance(target, str) else tuple(target)
    require_columns("target", names, columns, shown)
    if not names or len(set(names)) < len(names) or file_column in names:
        raise InvalidValue("target", list(names), f"they must be different columns, other than {file_column}")
    return names


def _texts(column: Column) -> list[str]:
    if column.texts is not None:
        return list(column.texts)
    assert column.numbers is not None
    return ["" if value != value else text_of(value) for value in column.numbers.tolist()]


def _is_file_name(text: str) -> bool:
    return text.lower().endswith(PICTURES)


def _folded(text: str) -> str:
    """``text`` as Windows and macOS compare names: without capitals, and accents in one form."""
    return unicodedata.normalize("NFC", text).casefold()


class _Names:
    """Finds the picture that a text means: a path from the folder or from here, a file's name, or it without ending.

    Where no name is the same, the only one that differs in capitals, or in the form of accents, is meant.
    """

    def __init__(self, location: Path, pictures: Sequence[str]) -> None:
        self._found: dict[str, str | None] = {}
        exact = {Path(picture).relative_to(location).as_posix(): picture for picture in pictures}
        for relative, picture in exact.items():
            path = Path(relative)
            number = {str(int(path.stem))} if path.stem.isdecimal() else set()  # a table reads 0012 as a number
            for text in ({path.with_suffix("").as_posix(), path.name, path.stem} | number) - {relative}:
                self._found[text] = None if text in self._found else picture  # the name of two pictures means none
        self._found |= exact
        self._alike: dict[str, str | None] = {}
        for text, found in self._found.items():
            self._alike[_folded(text)] = found if self._alike.get(_folded(text), found) == found else None
        self._known = set(pictures)

    def picture(self, text: str) -> str | None:
        text = text.replace("\\", "/").removeprefix("./")
        found = self._found.get(text)
        if found is None and text:
            whole = str(Path(text).expanduser().absolute())
            found = whole if whole in self._known else self._alike.get(_folded(text))
        return found

    def share(self, texts: Sequence[str]) -> float:
        return sum(self.picture(text) is not None for text in texts) / max(1, len(texts))
