"""A folder of files with a sample each, such as pictures or texts: its parts, its classes, and what is left out."""

import errno
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NoReturn

import torch

from nas.data.row_split import PART_NAMES
from nas.data.targets import Targets
from nas.errors import UnusableInput, listed

OF_SYSTEMS = (  # folders of macOS' archives, of thumbnails on Synology's disks, of bins and of file systems
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
)
PARTLY = re.compile(r"train|test|val", re.IGNORECASE)  # in the name of what may be a part
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleFiles:
    """Files and what is to be learned of each, before anything of them is read.

    Attributes:
        files: N paths: those of the training part, or of no part, then those of ready parts.
        targets: What is to be learned; None of masks, which are read later.
        own: How many files the ready parts have, ``validation`` and ``test``, in this order.
    """

    files: list[str]
    targets: Targets | None
    own: Mapping[str, int]


@dataclass(frozen=True)
class SampleFolder:
    """A folder of a user's files; a subclass says of which kind they are.

    Attributes:
        name: What messages call the data set.
        location: Where it is.
        given: By part the name of its folder, null where there is none; null takes those in ``PART_NAMES``.
        left_out: What is no sample, by extension.
        endings: What the names of the files end with.
        what: One of them in a word.
        layout: How they can lie in a folder, for messages.
    """

    name: str
    location: Path
    given: Mapping[str, str | None] | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    endings: ClassVar[tuple[str, ...]]
    what: ClassVar[str]
    layout: ClassVar[str]

    def parts(self) -> dict[str, Path]:
        """The folders of the ready parts; without such folders, none.

        Raises:
            UnusableInput: There is no such folder, one of two of the same meaning, or none for training.
        """
        folders = self.folders(self.location)
        if self.given is not None:
            return self._given_parts(self.given, folders)
        found = {part: [one for one in folders if one.lower() in names] for part, names in PART_NAMES.items()}
        for part, several in found.items():
            if len(several) > 1:
                firsts = {one: names[0] for one, names in found.items() if names}
                raise UnusableInput(
                    f"{self.location} has {listed(several)}, which are all names of the {part} part: keep one of them"
                    f"{self._said_by_parts(', or say which with', firsts)}."
                )
        parts = {part: self.location / several[0] for part, several in found.items() if several}
        if parts and "train" not in parts:
            there = {part: path.name for part, path in parts.items()}
            raise UnusableInput(
                f"{self.location} has {listed(list(there.values()))} but no train: its folders of classes are "
                f"train/<class>/{self._said_by_parts(', or say', there)}."
            )
        return parts

    def _given_parts(self, given: Mapping[str, str | None], folders: Sequence[str]) -> dict[str, Path]:
        wanted = {part: name for part, name in given.items() if name is not None}
        lacking = [name for name in wanted.values() if name not in folders]
        if lacking:
            below = "/<class>/ and ".join(wanted.values())
            raise UnusableInput(
                f"The data set {self.name} is not on disk, {self.location / lacking[0]} was looked for: "
                f"name the folder that has {below}/<class>/ with data.folder=<path>."
            )
        return {part: self.location / name for part, name in wanted.items()}

    def _said_by_parts(self, begin: str, parts: Mapping[str, str]) -> str:
        """``begin`` and the setting that says which folders are these ``parts``; nothing where there is none."""
        return ""

    def _without(self, root: Path) -> str:
        """The end of a sentence: the setting that leaves the part in ``root`` out; nothing where there is none."""
        return ""

    def _way_to_parts(self, given: Mapping[str, str]) -> str:
        """How a user says which folder is which part, by the part's name."""
        return "call their folders train and test"

    def _refuse_no_classes(self, found: Mapping[str, list[str]]) -> None:
        """Refuse folders that are no classes, whatever their files; ``found`` are the files by folder."""

    def folders(self, location: Path) -> list[str]:
        """The names of the folders in ``location`` that are not hidden."""
        try:
            return sorted(one.name for one in os.scandir(location) if one.is_dir() and not _is_hidden(one.name))
        except OSError as error:
            if isinstance(error, NotADirectoryError) and location == self.location:
                raise UnusableInput(
                    f"{location} is no folder: give that which has all {self.what}s with data.folder=<path>."
                ) from None
            if isinstance(error, FileNotFoundError) and location == self.location:
                raise UnusableInput(
                    f"The data set {self.name} is not on disk, {location} was looked for: "
                    f"name the folder of the {self.what}s with data.folder=<path>."
                ) from None
            raise self.unreadable(location, error) from None

    def classes(self) -> SampleFiles:
        """The files of class folders, numbered by the names of those in the training part.

        Raises:
            UnusableInput: There are no class folders; one of the training part is empty; or a class is missing there.
        """
        roots = {"train": self.location} if self._parts_are_classes() else self.parts() or {"train": self.location}
        files: list[str] = []
        labels: list[int] = []
        own: dict[str, int] = {}
        names: list[str] = []
        for part, root in ((part, roots[part]) for part in PART_NAMES if part in roots):
            found = self._classes_of(root)
            if part == "train":
                names = list(found)
                self._refuse_empty_classes(root, [name for name in names if not found[name]])
            else:
                found = _called_as(names, found)
            self._refuse_unknown(root, roots["train"], names, [name for name in found if found[name]])
            start = len(files)
            for name in (one for one in names if one in found):
                files += found[name]
                labels += [names.index(name)] * len(found[name])
            own[part] = len(files) - start
            if root == self.location:
                self._refuse_no_classes(found)
                self._refuse_parts(root, names)
        if len(names) < 2:
            self._refuse_one_class(roots["train"], names[0])
        self._say_what_is_left_out(roots)
        del own["train"]
        return SampleFiles(files, Targets(torch.tensor(labels, dtype=torch.int64), tuple(names)), own)

    def _refuse_empty_classes(self, root: Path, empty: Sequence[str]) -> None:
        if not empty:
            return
        others: Counter[str] = Counter()
        for name in empty:
            files_below(str(root / name), others, self.endings)
        there = f"there are {listed(kinds_of(others))}; " if others else ""
        them = "it" if len(empty) == 1 else "them"
        raise UnusableInput(
            f"{_counted(len(empty), 'class folder')} of {root} without a {self.what}: {listed(empty)} "
            f"({there}read are {' '.join(self.endings)}): put {self.what}s there, or remove {them}."
        )

    def _refuse_one_class(self, root: Path, name: str) -> NoReturn:
        below = self.folders(root / name)
        what = listed(below) + (" are the classes" if len(below) > 1 else " has them")
        deeper = f"; if {what}, say data.folder={root / name}" if below else f": it must be {self.layout}"
        raise UnusableInput(f"The data set {self.name} needs at least two classes, {root} has {name} alone{deeper}.")

    def say(self, remark: str) -> None:
        """Log what was noticed."""
        log.info("%s: %s.", self.name, remark)

    def _classes_of(self, root: Path) -> dict[str, list[str]]:
        try:
            names, files = class_folders(root, self.left_out, self.endings)
        except FileNotFoundError:
            if not root.is_dir():
                raise
            loose = self.left_out["in no class"]
            raise UnusableInput(
                f"{root} has no folders of classes{f', only {loose:,} files' if loose else ''}: it must be "
                f"{self.layout}{self._without(root)}."
            ) from None
        except OSError as error:
            raise self.unreadable(root, error) from None
        return dict(zip(names, files, strict=True))

    def _parts_are_classes(self) -> bool:
        """Whether ``train`` and ``test`` are called so as ``bus`` beside them is: they have files and no classes."""
        if self.given is not None:
            return False
        folders = self.folders(self.location)
        parts = [name for name in folders if any(name.lower() in names for names in PART_NAMES.values())]
        return len(parts) < len(folders) and not any(self.folders(self.location / name) for name in parts)

    def _refuse_unknown(self, root: Path, training: Path, names: list[str], found: list[str]) -> None:
        unknown = [name for name in found if name not in names]
        if unknown:
            raise UnusableInput(
                f"{root} has {_counted(len(unknown), 'class', 'es')} that {training} lacks: {listed(unknown)}; the "
                f"{len(names)} classes of the training part are {listed(names)}: classes are matched by name"
                f"{self._without(root) if len(unknown) == len(found) else ''}."
            )

    def _refuse_parts(self, root: Path, names: Sequence[str]) -> None:
        """Refuse parts of other names as classes: each has the folders of the classes; tell where it is not clear."""
        below = set.intersection(*(set(self.folders(root / name)) for name in names))
        if min(len(names), len(below)) < 2 or not all(PARTLY.search(name) for name in names):
            return
        folders, marks = listed(sorted(below)), {"train": "train", "val": "validation"}
        by_part: dict[str, list[str]] = {}
        for name in names:
            by_part.setdefault(next((marks[mark] for mark in marks if mark in name.lower()), "test"), []).append(name)
        if "train" not in by_part or any(len(several) > 1 for several in by_part.values()):
            way = self._said_by_parts("; parts are named by", {"test": "..."})
            self.say(f"the classes are {listed(names)}, of which each has the folders {folders}{way}")
            return
        given = {part: by_part[part][0] for part in PART_NAMES if part in by_part}
        raise UnusableInput(
            f"{root} has {listed(names)}, and each has the folders {folders}: if {folders} are the classes, "
            f"{self._way_to_parts(given)}; "
            f"if {listed(names)} are, rename them so that no name has train, test or val in it."
        )

    def unreadable(self, location: Path, error: OSError) -> UnusableInput:
        """What there is to say where a folder cannot be read."""
        reason = " ".join(str(error).split())
        return UnusableInput(f"The data set {self.name} cannot be read from {location} ({reason}).")

    def _say_what_is_left_out(self, roots: Mapping[str, Path]) -> None:
        taken = {root.name for root in roots.values()}
        whole = self.location in roots.values()
        folders = [] if whole else [one for one in self.folders(self.location) if one not in taken]
        kinds = kinds_of(self.left_out)
        files = _counted(self.left_out.total(), "file")
        said = [f"{files} ({listed(kinds)}; read are {' '.join(self.endings)})"] if kinds else []
        if folders:
            free = next((part for part in PART_NAMES if part not in roots), None)
            parts = {part: root.name for part, root in roots.items()} | ({free: folders[0]} if free else {})
            way = self._said_by_parts("; parts are named by", parts) if free else ""
            said.append(f"what is in {listed(folders)}{way}")
        if said:
            self.say(f"left out below {self.location}: {' and '.join(said)}")


def _called_as(names: Sequence[str], found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """``found`` with the spellings of ``names``: copied by way of a Mac, the accents of a name have another form."""
    called = {unicodedata.normalize("NFC", name): name for name in names}
    return {called.get(unicodedata.normalize("NFC", name), name): below for name, below in found.items()}


def class_folders(
    location: Path, left_out: Counter[str], endings: tuple[str, ...]
) -> tuple[list[str], list[list[str]]]:
    """The classes of a folder and the files below each, in torchvision's order (``ImageFolder``).

    Names that begin with a dot are neither classes nor samples: editors and systems keep their own things there.

    Args:
        location: The folder of the classes' folders.
        left_out: Counts what is no sample, by extension.
        endings: What the names of samples end with.

    Raises:
        OSError: There is no class, or a folder cannot be read.
    """
    entries = sorted(os.scandir(location), key=lambda entry: entry.name)
    classes = [one.name for one in entries if one.is_dir() and not _is_hidden(one.name)]
    left_out.update(_kind(one.name, "in no class") for one in entries if not one.is_dir())
    if not classes:
        raise FileNotFoundError(f"Couldn't find any class folder in {location}.")
    return classes, [files_below(str(location / name), left_out, endings) for name in classes]


def files_below(folder: str, left_out: Counter[str], endings: tuple[str, ...]) -> list[str]:
    """All files below ``folder`` with these ``endings`` that are not hidden, in torchvision's order.

    Raises:
        OSError: A folder cannot be read, or is a link to one that it lies in.
    """

    def hand_on(error: OSError) -> None:  # os.walk leaves out what it cannot read
        raise error

    found = []
    for below, folders, names in os.walk(folder, followlinks=True, onerror=hand_on):
        left_out.update("hidden" for name in folders if _is_hidden(name))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        if os.path.islink(below) and Path(below).parent.resolve().is_relative_to(Path(below).resolve()):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), below)
        found.append((below, sorted(names)))
    files = []
    for below, names in sorted(found):
        chosen = [name for name in names if name.lower().endswith(endings) and not _is_hidden(name)]
        files += [os.path.join(below, name) for name in chosen]
        left_out.update(_kind(name) for name in set(names) - set(chosen))
    return files


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def _kind(name: str, otherwise: str | None = None) -> str:
    extension = os.path.splitext(name)[1].lower()
    return "hidden" if _is_hidden(name) else otherwise or extension or "without an extension"


def kinds_of(left_out: Counter[str]) -> list[str]:
    """``12 .txt`` and the like, the most frequent kind first."""
    by_count = sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    return [f"{count:,} {kind}" for kind, count in by_count]


def _counted(count: int, word: str, plural: str = "s") -> str:
    return f"{count:,} {word}{'' if count == 1 else plural}"
