"""Texts of classes, in folders or in a table: which are read, what a vocabulary is made of, how they get one length."""

import codecs
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.data.mistaken_files import no_text
from nas.data.new_samples import NewSamples, cells_of_folders
from nas.data.own_files import digest_of, name_of, path_of
from nas.data.packed_file import COMPRESSED
from nas.data.row_split import Rows, RowSplit, drawn_parts, exchangeable
from nas.data.sample_folder import SampleFolder, files_below
from nas.data.tables.csv_format import CsvFormat
from nas.data.tables.dividing_columns import columns_of_parts
from nas.data.tables.table_columns import require_columns, targets_among
from nas.data.tables.table_file import Column, is_parquet, read_table
from nas.data.tables.table_rows import text_of
from nas.data.targets import Targets, named_classes, with_classes_of_training
from nas.data.texts.text_tokens import PAD, prepared_texts, tokens_of
from nas.data.texts.text_vocabulary import Counted
from nas.errors import InvalidValue, UnusableInput, listed, require

log = logging.getLogger(__name__)
ENDING = ".txt"
TABLES = (".csv", ".tsv")
NUL, NO_UTF_8 = "a NUL character, a byte of 0, in it", "no UTF-8"


class TextFolder(SampleFolder):
    """A folder of a user's texts."""

    endings: ClassVar[tuple[str, ...]] = (ENDING,)
    what: ClassVar[str] = "text"
    layout: ClassVar[str] = "<class>/*.txt"


def has_classes(folder: str) -> bool:
    """Whether the texts of ``folder`` lie in folders, those of classes or of parts; then they are to be classified.

    Raises:
        InvalidValue: It has both, texts that are one text and folders of several.
    """
    location = path_of(folder)
    below = [one for one in _folders(location) if next(one.rglob(f"*{ENDING}"), None) is not None]
    loose = [one.name for one in loose_texts(location)]
    if len(below) < 2 or not loose:
        return bool(below) and not loose
    raise InvalidValue(
        "folder",
        folder,
        f"it has {listed(loose)}, to be read as one text, beside the folders {listed([one.name for one in below])}, "
        "which would be classes: move one or the other away",
    )


def loose_texts(folder: Path) -> list[Path]:
    """The texts of ``folder`` that are not hidden and lie in no folder of it, in the order of their names."""
    return sorted(one for one in folder.glob(f"*{ENDING}") if not one.name.startswith("."))


def is_table(file: str) -> bool:
    """Whether ``file`` is one of texts in rows, by its name."""
    path = Path(file)
    inner = Path(path.stem) if path.suffix.lower() in COMPRESSED else path
    return is_parquet(path) or inner.suffix.lower() in TABLES


class LabelledTexts(NamedTuple):
    """Texts with a class each.

    Attributes:
        name: What a run calls them.
        texts: N texts.
        targets: Their classes.
        own: How many of them the ready parts have.
        samples: What the data call each: its file, or the number of its row, from 1.
        digest: The SHA-256 of where they were read.
    """

    name: str
    texts: Sequence[str]
    targets: Targets
    own: Mapping[str, int]
    samples: Sequence[str | int]
    digest: str


def texts_in_folders(folder: str) -> LabelledTexts:
    """The texts of ``<class>/*.txt``, or of ``train/<class>/*.txt`` with ``valid`` and ``test`` or without.

    Raises:
        UnusableInput: A class of the training part is empty, or a file is no text in UTF-8.
    """
    location = path_of(folder)
    name = name_of(location)
    found = TextFolder(name, location).classes()
    assert found.targets is not None
    samples = [Path(file).relative_to(location).as_posix() for file in found.files]
    texts = _read(name, found.files)
    whole = hashlib.sha256(digest_of([Path(file) for file in found.files]).encode())
    whole.update(json.dumps(samples).encode())
    return LabelledTexts(name, texts, found.targets, found.own, samples, whole.hexdigest())


def texts_in_rows(file: str, csv: CsvFormat, text_column: str | None, target: str | None) -> LabelledTexts:
    """The texts of the rows of a table.

    Args:
        file: CSV or Parquet.
        csv: How it is read.
        text_column: The column of the texts; null takes the only one of texts beside the target.
        target: The column of their classes.

    Raises:
        UnusableInput: The table cannot be read, or a class is missing.
        InvalidValue: A column is not there, not told or of another kind.
    """
    path = path_of(file)
    shown, columns = path.name, read_table(path, csv)
    allowed = f"it must be the column of the classes of the texts; {shown} has {listed(list(columns), most=20)}"
    require(target is not None, "target", target, f"{allowed}; one text is a .txt file")
    assert target is not None
    require_columns("target", [target], columns, shown)
    parts = columns_of_parts(columns, (target, text_column or ""))
    for name in parts:
        log.info(f"{shown}: {name} names parts, and others are drawn; a folder train/<class>/*.txt has ready ones")
    texts = _texts_of(columns, text_column, (target, "", *parts), shown)
    targets = targets_among(columns, [target], shown)
    if targets.class_names is None:
        amounts = targets.values.is_floating_point()
        require(not amounts, "target", target, "it has numbers with fractions, and texts are given classes")
        targets = named_classes([text_of(value) for value in targets.values.tolist()])
    samples = range(1, len(texts) + 1)
    return LabelledTexts(name_of(path), texts, targets, {}, samples, digest_of([path]))


def _texts_of(
    columns: Mapping[str, Column], text_column: str | None, others: Sequence[str], shown: str
) -> tuple[str, ...]:
    """The texts of the column ``text_column``, or of the only one of texts beside ``others``, the target first."""
    if text_column is None:
        of_texts = [name for name, one in columns.items() if one.texts is not None and name not in others]
        allowed = f"the columns of texts of {shown} are {listed(of_texts) or 'none'}: say which is to be read"
        require(len(of_texts) == 1, "text_column", None, allowed)
        text_column = of_texts[0]
    require_columns("text_column", [text_column], columns, shown)
    texts = columns[text_column].texts
    if texts is None or text_column == others[0]:
        raise InvalidValue("text_column", text_column, "it must be one of texts")
    return texts


def new_texts(
    path: Path, csv: CsvFormat, text_column: str | None, target: str | None, preparation: Mapping[str, Any]
) -> NewSamples:
    """The texts of a table, of a folder or of one file, prepared as those of the training.

    Args:
        path: A table, a folder with ``.txt`` files below it, or one such file.
        csv: How a table is read.
        text_column, target: Its columns, as for :func:`texts_in_rows`; that of the target may be missing.
        preparation: Of the training.

    Raises:
        UnusableInput: There is no text, or one cannot be read.
        InvalidValue: The table's column of texts is not there, or not told.
    """
    samples: Sequence[str | int]
    if is_table(path.name):
        columns = read_table(path, csv, key="the new data")
        texts = _texts_of(columns, text_column, (target or "", ""), path.name)
        samples = range(1, len(texts) + 1)
        there = columns.get(target or "")
        cells = None if there is None else [[text_of(value) for value in there.cells]]
    else:
        root = path if path.is_dir() else path.parent
        files = files_below(str(path), Counter(), (ENDING,)) if path.is_dir() else [str(path)]
        if not files:
            raise UnusableInput(f"There is no {ENDING} file in {path}.")
        texts, samples = tuple(_read(path.name, files)), [Path(file).relative_to(root).as_posix() for file in files]
        cells = cells_of_folders(files, root)
    lengths = [len(tokens_of(text, preparation["level"])) for text in texts]
    for remark in _remarks(lengths, preparation["length"], "as in the training"):
        log.info(f"{path.name}: {remark}")
    dataset = ArrayDataset(prepared_texts(texts, preparation), torch.zeros(len(texts)))
    return NewSamples(dataset, samples, cells)


def divided_texts(
    found: LabelledTexts, counted: Counted, longest: int, split: RowSplit, epoch_samples: int = 0
) -> DataSplits:
    """The parts of the texts ``found``, as tokens.

    All have the length of the longest one of the training part, but not more than ``longest`` tokens: longer ones are
    cut, shorter ones padded. The vocabulary is that of the training part.

    Args:
        found: The texts.
        counted: What tokens are and which of them are known.
        longest: Tokens that are read of a text, at most.
        split: How texts are divided that have no folders of parts.
        epoch_samples: Texts of an epoch, about.

    Raises:
        InvalidValue: The sizes of the split do not fit.
    """
    name, texts = found.name, found.texts
    count = len(texts) - sum(found.own.values())
    own = dict.fromkeys(found.own)
    asked = RowSplit(**{"validation": split.validation, "test": split.test, **own}, seed=split.seed)  # type: ignore[arg-type]
    rows = Rows(count, found.own, found.targets.strata)
    parts = drawn_parts(rows, asked)
    targets = with_classes_of_training(found.targets, parts, name)
    tokens = [tokens_of(text, counted.level) for text in texts]
    in_training = [tokens[place] for place in parts.train.tolist()]
    length = min(longest, max(2, *map(len, in_training)))
    all_tokens = [token for text in in_training for token in text]
    known = [PAD, *counted.known(all_tokens)]
    preparation = {"kind": "texts", "level": counted.level, "length": length, "vocabulary": known}
    inputs = prepared_texts(texts, preparation)
    train, validation, test = (ArrayDataset(inputs[chosen], targets.values[chosen]) for chosen in parts)
    assert targets.class_names is not None
    classes = f"texts of {len(targets.class_names)} classes ({listed(targets.class_names)})"
    read = f"up to {length} {counted.level}s each, of {len(known):,} known ones"
    log.info(f"{name}: {classes}, {read}; {asked.in_words(parts)}")
    limit = "data.longest" if length == longest else "the longest of training"
    unknown = counted.remark(all_tokens, set(known))
    for remark in (*_remarks(list(map(len, tokens)), length, limit), *([unknown] if unknown else [])):
        log.info(f"{name}: {remark}")
    return DataSplits(
        name,
        train,
        validation,
        test,
        mean=(),
        std=(),
        class_names=targets.class_names,
        categories=(len(known),),
        preparation=preparation,
        digest=found.digest,
        test_samples=[found.samples[place] for place in parts.test.tolist()],
        epoch_samples=epoch_samples,
        exchangeable=exchangeable(rows, asked),
    )


def to_utf_8(file: Path | str) -> str | None:
    """A command that may convert ``file``, which can be read; None where it has NULs and is no UTF-16.

    Which encoding it has is told by UTF-16 alone: by its mark, or by the NULs of its letters in ASCII.
    """
    content = Path(file).read_bytes()
    encoding, null = "latin1", content.find(0)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif null >= 0 and len(content) % 2:
        return None
    elif null >= 0:
        encoding = "utf-16le" if null % 2 else "utf-16be"
    return f"iconv -f {encoding} -t utf-8"


def _folders(location: Path) -> list[Path]:
    return sorted(one for one in location.iterdir() if one.is_dir() and not one.name.startswith("."))


def _read(name: str, files: Sequence[str]) -> list[str]:
    texts: list[str] = []
    bad: dict[str, str] = {}
    for file in files:
        try:
            texts.append(Path(file).read_text(encoding="utf-8-sig"))
            if "\0" in texts[-1]:
                bad[file] = NUL
        except UnicodeDecodeError:
            bad[file] = no_text(file) or NO_UTF_8
        except OSError as error:
            bad[file] = error.strerror or type(error).__name__
    if bad:
        named = listed([f"{file} ({reason})" for file, reason in bad.items()], most=3)
        commands = (to_utf_8(file) for file, reason in bad.items() if reason in (NUL, NO_UTF_8))
        command = next(filter(None, commands), None)
        way = f"convert what is in another encoding (for example {command} FILE), or " if command else ""
        raise UnusableInput(
            f"{len(bad):,} of {len(files):,} texts of {name} cannot be read: {named}; {way}replace or remove them."
        )
    return texts


def _remarks(lengths: Sequence[int], length: int, limit: str) -> list[str]:
    longer, empty = sum(one > length for one in lengths), lengths.count(0)
    found = []
    if longer:
        found.append(
            f"{longer:,} of {len(lengths):,} texts, of up to {max(lengths):,} tokens, are cut to {length:,}, {limit}"
        )
    if empty:
        found.append(f"{empty:,} of {len(lengths):,} texts are empty: each is one unknown token")
    return found
