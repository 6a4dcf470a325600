"""Files of labelled series: ``.ts`` (aeon, sktime) and ``.tsv`` (the UCR archive), and the pairs of both archives."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from nas.data.own_files import path_of
from nas.errors import UnusableInput, listed

ENDINGS = (".ts", ".tsv")
TRAIN = re.compile(r"_train$", re.IGNORECASE)
TEST = re.compile(r"_test$", re.IGNORECASE)


@dataclass(frozen=True)
class SeriesFile:
    """N series.

    Attributes:
        series: Of each series its channels, (steps,) float64; NaN is a value that is not known.
        labels: Of each series the text that stands for its target.
        are_classes: Whether the file calls its labels classes.
        listed_labels: The classes that its head lists, in lower case; none where it lists none.
        stated_length: The steps of each series by its head; 0 where it says none.
    """

    series: list[list[Tensor]]
    labels: list[str]
    are_classes: bool
    listed_labels: tuple[str, ...] = ()
    stated_length: int = 0

    @property
    def longest(self) -> int:
        """Steps of the longest channel."""
        return max(len(values) for channels in self.series for values in channels)


def series_files(setting: str) -> tuple[Path, Path | None]:
    """The file of the training and, where there is one, that of the test.

    Args:
        setting: A file, a folder with one pair of them, or the name of a data set that comes with aeon, such as
            ``GunPoint``.

    Raises:
        UnusableInput: It is none of them.
    """
    path = path_of(setting)
    if path.is_dir() or not (path.exists() or path.suffix or "/" in setting):
        path = _training_file(path if path.is_dir() else _folder_in_aeon(setting))
    if not path.is_file():
        raise UnusableInput(
            f"The series {path} are not there: data.file must be a .ts or .tsv file, or a folder of them."
        )
    refuse_other_files(path)
    if TEST.search(path.stem):
        raise UnusableInput(
            f"{path} is a test part: give the file of the training part, its test part is found beside it."
        )
    others = path.parent.glob(f"*{path.suffix}") if TRAIN.search(path.stem) else []
    begin = TRAIN.sub("", path.stem)
    return path, next((one for one in others if TEST.search(one.stem) and TEST.sub("", one.stem) == begin), None)


def refuse_other_files(path: Path) -> None:
    """Refuse ``path`` where it is no file of series, by its name.

    Raises:
        UnusableInput: It is none.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UnusableInput(
            f"{path} cannot be read: series are in .ts files, or in .tsv files of the UCR archive, a label and its "
            "values between tabs in each line; data=arrays data.layout=NCL takes them as arrays."
        )


def _folder_in_aeon(name: str) -> Path:
    # The package itself is not imported: it needs more packages, of certain versions.
    found = find_spec("aeon")
    if found is None or not found.submodule_search_locations:
        raise UnusableInput(
            f"{name} is no file or folder; as a data set that comes with aeon it needs pip install --no-deps aeon."
        )
    data = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    if not (data / name).is_dir():
        names = sorted(one.name for one in data.iterdir() if one.is_dir() and _training_files(one))
        raise UnusableInput(f"{name} is no file or folder, and aeon comes with {listed(names, most=20)}.")
    return data / name


def _training_files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in ENDINGS and TRAIN.search(one.stem))


def _training_file(folder: Path) -> Path:
    found = _training_files(folder)
    named = [one for one in found if TRAIN.sub("", one.stem) == folder.name] or found
    if not named:
        raise UnusableInput(f"The folder {folder} has no file called <name>_TRAIN.ts or <name>_TRAIN.tsv.")
    if len({TRAIN.sub("", one.stem) for one in named}) > 1:
        names = listed([one.name for one in named])
        raise UnusableInput(f"The folder {folder} has several training files, {names}: give one of them in data.file.")
    return named[0]  # of one that is there as .ts and .tsv


def read_series(file: Path, labelled: bool = True) -> SeriesFile:
    """The series of ``file``.

    Args:
        file: A ``.ts`` or a ``.tsv`` file.
        labelled: Whether a ``.ts`` file must have labels; without them they are empty texts.

    Raises:
        UnusableInput: It cannot be read, or a line is not as such a file has it.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnusableInput(
            f"{file} is no text in UTF-8 (byte {error.start}): convert it, for example with iconv -f latin1 -t utf-8."
        ) from None
    except OSError as error:
        raise UnusableInput(f"The series {file} cannot be read ({error}).") from None
    found = _of_ucr(file, lines) if file.suffix.lower() == ".tsv" else _of_ts(file, lines, labelled)
    if not found.series:
        raise UnusableInput(f"{file} has no series.")
    channels = [len(one) for one in found.series]
    other = next((number for number, count in enumerate(channels) if count != channels[0]), None)
    if other is not None:
        raise UnusableInput(
            f"{file}: series 1 has {channels[0]} channels and series {other + 1} has {channels[other]}."
        )
    if blank := [str(number) for number, one in enumerate(found.series, start=1) if bool(torch.cat(one).isnan().all())]:
        raise UnusableInput(
            f"{len(blank):,} of {len(channels):,} series of {file} {'has' if len(blank) == 1 else 'have'} no known "
            f"value: {listed(blank)}; fill in or remove them."
        )
    return found


def _of_ucr(file: Path, lines: list[str]) -> SeriesFile:
    """A label and its values, separated by tabs; NaN at the end are no values."""
    series, labels = [], []
    for number, line in _not_empty(lines, 0):
        label, *values = line.split("\t")
        if not values:
            raise UnusableInput(
                f"{file}, line {number}: there is no tab in {_shown(line)}, and tabs must part a label and its values."
            )
        labels.append(label.strip())
        series.append([_without_end(_numbers(file, number, values))])
    return SeriesFile(series, labels, are_classes=False)


def _of_ts(file: Path, lines: list[str], labelled: bool) -> SeriesFile:
    """A head of ``@key value``, then channels separated by colons; the last one is the label."""
    head: dict[str, str] = {}
    begin = 0
    for begin, line in enumerate(lines):  # noqa: B007 - where the data begin
        key, _, value = line.strip().removeprefix("@").partition(" ")
        if line.strip().lower() == "@data":
            break
        if line.strip().startswith("@"):
            head[key.lower()] = value.strip().lower()
    else:
        raise UnusableInput(f"{file} has no line @data, which the series of a .ts file come after.")
    if head.get("timestamps") == "true":
        raise UnusableInput(
            f"{file} has time stamps (@timeStamps true), which are not read: write values at equal steps."
        )
    are_classes = head.get("classlabel", "").startswith("true")
    has_labels = are_classes or head.get("targetlabel", "").startswith("true")
    if labelled and not has_labels:
        raise UnusableInput(f"{file} has no targets: neither @classLabel nor @targetLabel is true.")
    series, labels = [], []
    for number, line in _not_empty(lines, begin + 1):
        *channels, label = (line.strip() if has_labels else f"{line.strip()}:").split(":")
        if not channels:
            raise UnusableInput(f"{file}, line {number}: there is no label behind a colon.")
        labels.append(label.strip())
        series.append([_numbers(file, number, channel.split(",")) for channel in channels])
    listed_labels = tuple(head["classlabel"].split()[1:]) if are_classes else ()
    length = head.get("serieslength", "")
    return SeriesFile(series, labels, are_classes, listed_labels, int(length) if length.isdecimal() else 0)


def _not_empty(lines: list[str], begin: int) -> Iterator[tuple[int, str]]:
    """The lines from ``begin`` that have something in them, with their numbers from 1."""
    for number, line in enumerate(lines[begin:], start=begin + 1):
        if line.strip() and not line.startswith(("#", "%")):
            yield number, line


def _numbers(file: Path, line: int, texts: list[str]) -> Tensor:
    values = [_number(text) for text in texts]
    bad = next((text for text, value in zip(texts, values, strict=True) if value is None or math.isinf(value)), None)
    if bad is not None:
        parted = "tabs must part values" if file.suffix.lower() == ".tsv" else "commas part values, and colons channels"
        raise UnusableInput(f"{file}, line {line}: {_shown(bad)} is no finite number; {parted}.")
    return torch.tensor(values, dtype=torch.float64)


def _shown(text: str) -> str:
    return repr(text.strip()[:40])


def _number(text: str) -> float | None:
    try:
        return math.nan if text.strip() in ("?", "") else float(text)
    except ValueError:
        return None


def _without_end(values: Tensor) -> Tensor:
    known = (~values.isnan()).nonzero().flatten()
    return values[: int(known[-1]) + 1] if len(known) else values[:0]
