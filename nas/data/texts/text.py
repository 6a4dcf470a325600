"""Running text: files of a user's own, or the text that every Python installation has; cut in order, never shuffled."""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits
from nas.data.mistaken_files import no_text
from nas.data.new_samples import NewSamples
from nas.data.own_files import path_of
from nas.data.row_split import PART_NAMES, RowSplit, part_named
from nas.data.tables.csv_format import CsvFormat
from nas.data.texts.text_classes import (
    LabelledTexts,
    divided_texts,
    has_classes,
    is_table,
    loose_texts,
    new_texts,
    texts_in_folders,
    texts_in_rows,
    to_utf_8,
)
from nas.data.texts.text_stream import TextDataset
from nas.data.texts.text_tokens import numbered, tokens_of
from nas.data.texts.text_vocabulary import Counted, Level
from nas.errors import InvalidValue, UnusableInput, listed, require

log = logging.getLogger(__name__)
LARGEST_VOCABULARY = 50_000  # which a candidate.json still holds
LONGEST = 10_000  # tokens of a piece
RECORDS = (".json", ".jsonl", ".ndjson")
VERBS = {"train": "train", "validation": "validate", "test": "test"}


@dataclass(frozen=True)
class TextSplit:
    """The shares of a text, at its end, that are validated and tested on, in this order; the rest is trained on.

    Texts of classes are drawn, in proportion and with ``seed``; those in folders of parts stay there.
    """

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for key, share in {"validation": self.validation, "test": self.test}.items():
            require(0 < share < 1, key, share, "it must be a share above 0 and below 1")
        require(self.validation + self.test < 1, "test", self.test, "nothing would be left to train on")
        require(0 <= self.seed < 2**63, "seed", self.seed, "it must be from 0 to 2**63 - 1")


@dataclass(frozen=True)
class Text:
    """A :class:`nas.data.data_splits.DataSource`.

    Args:
        file: A text in UTF-8, or a table with a text to be classified in each row, CSV or Parquet.
        folder: One with ``train.txt``, ``valid.txt`` and ``test.txt``, or one whose ``.txt`` files are one text, in the
            order of their names, or ``<class>/*.txt``: texts that are to be classified
            (:mod:`nas.data.texts.text_classes`). Without file and folder it is the text of Python's own manual
            (``pydoc_data.topics``).
        level: Whether a token is a ``word``, between blanks, with ``<eos>`` at the end of every line, or a
            ``character``.
        vocabulary: The most tokens, the most frequent ones of the training part; ``<unk>`` stands for all others.
        at_least: How often a word must be there to be one of them.
        length: Tokens in a piece of running text, through which gradients go back.
        longest: Tokens that are read of a text to be classified, at most.
        epoch_samples: Texts of classes in an epoch, about: fewer are passed over several times.
        varied_lengths: Whether every twentieth training batch, at random, has pieces of half the length, as the search
            of DARTS has it.
        split: Where the text is cut that has no files of its own for that.
        target: The column of a table with the classes.
        text_column: Its column of texts; null takes the only one beside the target.
        csv: How the table is read.

    Raises:
        InvalidValue: A setting is out of bounds.
    """

    name = "text"

    file: str | None = None
    folder: str | None = None
    level: Level = "word"
    vocabulary: int = 10_000
    at_least: int = 2
    length: int = 35
    longest: int = 128
    epoch_samples: int = 0
    varied_lengths: bool = False
    split: TextSplit = TextSplit()
    target: str | None = None
    text_column: str | None = None
    csv: CsvFormat = field(default_factory=CsvFormat)

    def __post_init__(self) -> None:
        for key, column in {"target": self.target, "text_column": self.text_column}.items():
            good = column is None or is_table(self.file or "")
            require(good, key, column, "it is a column of data.file=<file>.csv")
        good = self.csv == CsvFormat() or is_table(self.file or "")
        require(good, "csv", "another format", "it is how data.file=<file>.csv is read")
        require(self.file is None or self.folder is None, "file", self.file, "it is there beside a folder: give one")
        good = 2 <= self.vocabulary <= LARGEST_VOCABULARY
        require(good, "vocabulary", self.vocabulary, f"it must be a whole number from 2 to {LARGEST_VOCABULARY}")
        require(self.at_least >= 1, "at_least", self.at_least, "it must be at least 1")
        for key, tokens in {"length": self.length, "longest": self.longest}.items():
            require(2 <= tokens <= LONGEST, key, tokens, f"it must be a whole number from 2 to {LONGEST}")

    @property
    def augmentation(self) -> Augmentation | None:
        """None: a text is taken as it is."""
        return None

    def load(self) -> DataSplits:
        counted = Counted(self.level, self.vocabulary, self.at_least)
        if (found := self._labelled()) is not None:
            drawn = RowSplit(validation=self.split.validation, test=self.split.test, seed=self.split.seed)
            return divided_texts(found, counted, self.longest, drawn, self.epoch_samples)
        parts = self._parts()
        tokens = {part: tokens_of(text, self.level) for part, text in parts.items()}
        known = counted.known(tokens["train"])
        numbers = {token: number for number, token in enumerate(known)}
        sets = {part: self._dataset(part, found, numbers) for part, found in tokens.items()}
        what = f"{self._taken()}, {self.level}s, {len(known):,} of them known"
        sizes = [f"{len(tokens[part]):,} to {verb}" for part, verb in VERBS.items()]
        log.info(f"{self.name}: {what}; {', '.join(sizes)}")
        if remark := counted.remark(tokens["train"], numbers):
            log.info(f"{self.name}: {remark}")
        digest = hashlib.sha256("\0".join(parts.values()).encode()).hexdigest()
        return DataSplits(
            self.name,
            sets["train"],
            sets["validation"],
            sets["test"],
            mean=(),
            std=(),
            categories=(len(known),),
            head="sequence",
            preparation={"level": self.level, "vocabulary": list(known)},
            digest=digest,
            exchangeable=False,
        )

    def new_samples(self, path: Path, preparation: Mapping[str, Any]) -> NewSamples:
        """See :class:`nas.data.new_samples.TakesNewSamples`: texts of classes, in a table, a folder or one file."""
        return new_texts(path, self.csv, self.text_column, self.target, preparation)

    def _labelled(self) -> LabelledTexts | None:
        """The texts that are to be classified; None of running text."""
        if self.file is not None and is_table(self.file):
            return texts_in_rows(self.file, self.csv, self.text_column, self.target)
        of_classes = self.folder is not None and self._is_of_classes(self.folder)
        return texts_in_folders(str(self.folder)) if of_classes else None

    def _taken(self) -> str:
        """What is read, in words."""
        if self.folder is not None:
            return path_of(self.folder).name or self.folder
        return "the manual of this Python" if self.file is None else path_of(self.file).name

    def _is_of_classes(self, folder: str) -> bool:
        if not path_of(folder).is_dir():
            raise InvalidValue(
                "folder", folder, "it must be a folder with .txt files, or with a folder of them per class"
            )
        return "train" not in _own_parts(path_of(folder)) and has_classes(folder)

    def _parts(self) -> dict[str, str]:
        """The text of each part."""
        if self.folder is not None:
            folder = path_of(self.folder)
            if "train" in (own := _own_parts(folder)):
                self._refuse_odd_parts(own)
                return {part: _text_of(own[part]) for part in PART_NAMES}
            files = loose_texts(folder)
            require(bool(files), "folder", self.folder, "there is no .txt file in it")
            return self._cut(_text_of(files))
        if self.file is not None:
            file = path_of(self.file)
            if not file.is_file():
                raise InvalidValue("file", self.file, "it must be a text file")
            return self._cut(_text_of([file]))
        return self._cut(manual())

    def _refuse_odd_parts(self, own: Mapping[str, Sequence[Path]]) -> None:
        """Refuse a folder with texts of training if another part has none, or a part has several."""
        train = own["train"][0].name
        lacking = [f"{names[0]}.txt" for part, names in PART_NAMES.items() if part not in own]
        allowed = f"beside {train} it needs {' and '.join(lacking)}, or no {train} and the text is cut"
        require(not lacking, "folder", self.folder, allowed)
        for part, files in own.items():
            allowed = f"it has {listed([file.name for file in files])}, which are all names of the {part} part"
            require(len(files) == 1, "folder", self.folder, f"{allowed}: keep one of them")

    def _cut(self, text: str) -> dict[str, str]:
        """The parts, cut in order by characters."""
        shares = 1 - self.split.validation - self.split.test, 1 - self.split.test
        first, second = (math.floor(round(share, 12) * len(text)) for share in shares)
        return {"train": text[:first], "validation": text[first:second], "test": text[second:]}

    def _dataset(self, part: str, tokens: Sequence[str], numbers: Mapping[str, int]) -> TextDataset:
        if len(tokens) < 2 * (self.length + 1):
            raise UnusableInput(
                f"The {part} part of the text has {len(tokens):,} tokens, and needs "
                f"{2 * (self.length + 1):,}: take a longer text, a shorter data.length or data.level=character."
            )
        return TextDataset(numbered(tokens, numbers), self.length, self.varied_lengths)


def manual() -> str:
    """The text that Python's ``help()`` shows of its topics; it differs between versions of Python.

    Raises:
        UnusableInput: This Python comes without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UnusableInput("This Python comes without the text of its manual: set data.file.") from error
    return "\n".join(topics.values())


def _own_parts(folder: Path) -> dict[str, list[Path]]:
    """By part the texts of ``folder`` that are called as it is: ``train.txt``, ``dev.txt`` and their like."""
    found: dict[str, list[Path]] = {}
    for file in loose_texts(folder):
        if (part := part_named(file.stem)) is not None:
            found.setdefault(part, []).append(file)
    return found


def _text_of(paths: Sequence[Path]) -> str:
    """One text of all that is in ``paths``, in this order."""
    texts = list(map(_read, paths))
    if not any(texts):
        raise UnusableInput(f"The text is empty, there is nothing in {listed(list(map(str, paths)), most=3)}.")
    return "\n".join(texts)


def _read(path: Path) -> str:
    if (what := no_text(path)) is not None:
        raise UnusableInput(f"{path} is no text, but {what}: save its text as .txt, in UTF-8.")
    if path.suffix.lower() in RECORDS:
        raise UnusableInput(
            f"{path} is no running text, but has records: save them as CSV, of which data.target=<column> has the "
            "classes of the texts; what is one text must be called .txt."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            before = text[: text.index("\0")].split("\n")
            raise UnusableInput(
                f"{path} has a NUL character, a byte of 0, which is no text, in line {len(before):,}, column "
                f"{len(before[-1]) + 1:,} ({text.count(chr(0)):,} in all): remove it, or save the text anew, in UTF-8."
            )
        return text
    except UnicodeDecodeError as error:
        command = to_utf_8(path)
        way = f"convert it, for example with {command}" if command else "save the text anew, in UTF-8"
        raise UnusableInput(f"{path} is no text in UTF-8: {way}.") from error
    except OSError as error:
        raise UnusableInput(f"{path} cannot be read ({error.strerror}).") from error
