"""A file of labels: which picture each of its rows is of, and what is to be learned of it."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nas.data.image_folders import PICTURES, Listed, PictureFolder
from nas.data.labelled import listed
from nas.errors import InvalidValue, UnusableInput

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
FIRST_LINE = 2  # of a file, behind the names of its columns


class LabelFile:
    """The rows of a CSV file, all as text.

    Args:
        path: The file; its first line has the names of the columns, which commas, semicolons or tabs divide.
        folder: Where the pictures are.

    Raises:
        UnusableInput: It cannot be read, or has no rows.
    """

    def __init__(self, path: Path, folder: PictureFolder) -> None:
        self.path, self.folder = path, folder
        try:
            with open(path, encoding="utf-8-sig", newline="") as lines:
                head = lines.readline()
                divider = max(",;\t", key=head.count)
                lines.seek(0)
                self.rows = pd.read_csv(lines, sep=divider, dtype=str, keep_default_na=False, index_col=False)
        except (OSError, ValueError) as error:  # no such file, rows of other lengths, another encoding
            reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            raise UnusableInput(
                f"The file of labels {path} cannot be read ({reason}): name one with data.labels=<file>.csv, whose "
                "first line has the names of its columns."
            ) from None
        self.rows.columns = [str(name).strip() for name in self.rows.columns]
        self.rows = self.rows.apply(lambda column: column.str.strip())
        if not len(self.rows):
            raise UnusableInput(f"The file of labels {path} has no rows below the names of its columns.")

    def listed(self, file_column: str | None, target: str | Sequence[str] | None) -> Listed:
        """The pictures of the rows and their targets.

        Numbers stay as they are, whole ones int64; texts become class numbers in the order of the alphabet.

        Args:
            file_column: The column of file names; null takes the one whose values are pictures.
            target: The column or columns to be learned; null takes the only other column.

        Raises:
            UnusableInput: A picture is missing or listed twice, or a target is missing or infinite.
            InvalidValue: A column is not there or not told; the key is ``target`` or ``file_column``.
        """
        pictures = self.folder.pictures()
        column, files = self._files(file_column, pictures)
        names = self._target_names(target, column)
        unlisted = len(set(pictures) - set(files))
        if unlisted:
            self.folder.say(f"{unlisted:,} of {len(pictures):,} pictures are not in {self.path} and are left out")
        parts = self.folder.by_part(files)
        numbers = {name: self._numbers(name) for name in names}
        texts = [name for name, values in numbers.items() if values is None]
        if texts and len(names) > 1:
            first = self.rows[texts[0]].iloc[0]
            raise InvalidValue(
                "target", list(names), f"several targets must be numbers, and {texts[0]} has texts such as {first!r}"
            )
        if texts:
            return replace(self._classes(names[0], files, parts), target_names=names)
        self._refuse_unknown(names, np.stack([values for values in numbers.values() if values is not None], 1))
        columns = [_whole(values) for values in numbers.values() if values is not None]
        kind = torch.int64 if all(one.dtype == torch.int64 for one in columns) else torch.float64
        targets = torch.stack([one.to(kind) for one in columns], 1)
        return Listed(files, targets[:, 0] if len(names) == 1 else targets, parts, target_names=names)

    def values(self, key: str, column: str) -> list[str]:
        """The texts of a column.

        Raises:
            InvalidValue: There is no such column.
        """
        if column not in self.rows:
            raise InvalidValue(key, column, f"the columns of {self.path} are {', '.join(self.rows.columns)}")
        return list(self.rows[column])

    def _files(self, column: str | None, pictures: Sequence[str]) -> tuple[str, list[str]]:
        names = _Names(self.folder.location, pictures)
        if column is None:
            shares = {name: names.share(self.values("file_column", name)[:100]) for name in self.rows.columns}
            good = [name for name, share in shares.items() if share > 0.5]
            if len(good) != 1:
                found = f"{listed(good)} have" if good else f"none of the columns {', '.join(self.rows.columns)} has"
                raise InvalidValue(
                    "file_column",
                    None,
                    f"{found} the names of pictures below {self.folder.location}, of which there are "
                    f"{len(pictures):,}{f', {os.path.basename(pictures[0])} first' if pictures else ''}: say which "
                    "column has them",
                )
            (column,) = good
        values = self.values("file_column", column)
        missing = [line for line, value in enumerate(values, FIRST_LINE) if names.file(value) is None]
        if missing:
            first = [f"{values[line - FIRST_LINE] or 'nothing'} in line {line}" for line in missing]
            raise UnusableInput(
                f"{len(missing):,} of the {len(values):,} pictures of {self.path} are not below "
                f"{self.folder.location}: {listed(first, 3)} (column {column}; read are {' '.join(PICTURES)})."
            )
        files = [str(names.file(value)) for value in values]
        twice = [file for file, count in Counter(files).items() if count > 1]
        if twice:
            raise UnusableInput(
                f"{len(twice):,} pictures are listed more than once in {self.path}: {listed(twice, 3)}; a picture in "
                "two parts would be trained and tested on: keep one row of each."
            )
        return column, files

    def _target_names(self, target: str | Sequence[str] | None, file_column: str) -> tuple[str, ...]:
        if target is None:
            others = [name for name in self.rows.columns if name != file_column]
            if len(others) != 1:
                shown = f"the columns of {self.path} beside {file_column} are {', '.join(others) or 'none'}"
                raise InvalidValue("target", None, f"{shown}: say which is to be learned, or several as [a, b]")
            return (others[0],)
        names = (target,) if isinstance(target, str) else tuple(target)
        for name in names:
            self.values("target", name)
        if not names or len(set(names)) < len(names) or file_column in names:
            raise InvalidValue("target", list(names), f"they must be different columns, other than {file_column}")
        return names

    def _numbers(self, name: str) -> np.ndarray | None:
        """The column as float64, NaN where it is empty; None where it has texts."""
        values = self.rows[name]
        known = ~values.str.lower().isin(MISSING)
        numbers = pd.to_numeric(values.where(known), errors="coerce").to_numpy(np.float64)
        return None if np.isnan(numbers[known.to_numpy()]).any() or not known.any() else numbers

    def _refuse_unknown(self, names: Sequence[str], numbers: np.ndarray) -> None:
        infinite, unknown = np.isinf(numbers).any(1), np.isnan(numbers).all(1)
        for what, rows in (("an infinite", infinite), ("no", unknown)):
            lines = (np.flatnonzero(rows) + FIRST_LINE).tolist()
            if lines:
                raise UnusableInput(
                    f"{len(lines):,} of {len(numbers):,} rows of {self.path} have {what} {' or '.join(names)}, in line "
                    f"{listed(list(map(str, lines)))}: complete or remove them."
                )

    def _classes(self, name: str, files: list[str], parts: dict[str, Tensor]) -> Listed:
        values = list(self.rows[name])
        missing = [str(line) for line, value in enumerate(values, FIRST_LINE) if value.lower() in MISSING]
        if missing:
            raise UnusableInput(
                f"{len(missing):,} of {len(values):,} rows of {self.path} have no {name}, in line {listed(missing)}: "
                "complete or remove them."
            )
        counts = Counter(values)
        if 2 * len(counts) > len(values):
            raise UnusableInput(
                f"The column {name} of {self.path} has {len(counts):,} different texts in {len(values):,} rows, such "
                f"as {listed(sorted(counts), 3)}: classes have several pictures each; data.target=<column> names another."
            )
        known = {values[index] for index in parts["train"].tolist()}
        for part, indices in parts.items():
            strangers = sorted({values[index] for index in indices.tolist()} - known)
            if strangers:
                raise UnusableInput(
                    f"{name} has {len(strangers):,} classes in {part} that train lacks: {listed(strangers)}; the "
                    f"{len(known)} classes of train are {listed(sorted(known))}."
                )
        names = sorted(known)
        numbers = {one: number for number, one in enumerate(names)}
        labels = torch.tensor([numbers[value] for value in values], dtype=torch.int64)
        return Listed(files, labels, parts, tuple(names))


class _Names:
    """Finds the picture that a text means: a path from the folder or from here, a file's name, or it without ending."""

    def __init__(self, location: Path, pictures: Sequence[str]) -> None:
        self._location = location
        self._by_text: dict[str, str | None] = {}
        for picture in pictures:
            relative = Path(picture).relative_to(location)
            for text in {relative.as_posix(), relative.with_suffix("").as_posix(), relative.name, relative.stem}:
                self._by_text[text] = None if text in self._by_text else picture  # one name of two pictures means none
        self._exact = {Path(picture).relative_to(location).as_posix(): picture for picture in pictures}
        self._known = set(pictures)

    def file(self, text: str) -> str | None:
        text = text.replace("\\", "/").removeprefix("./")
        found = self._exact.get(text) or self._by_text.get(text)
        if found is None and text:
            whole = str(Path(text).expanduser().absolute())
            found = whole if whole in self._known else None
        return found

    def share(self, texts: Sequence[str]) -> float:
        return sum(self.file(text) is not None for text in texts) / max(1, len(texts))


def _whole(values: np.ndarray) -> Tensor:
    """int64 where all values are whole numbers that are written out, float64 otherwise."""
    whole = np.isfinite(values).all() and (values == np.round(values)).all() and (np.abs(values) < 2**53).all()
    return torch.from_numpy(values.astype(np.int64) if whole else values)
