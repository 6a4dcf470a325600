"""CSV and Parquet files by pandas: columns of numbers, texts, truth values and dates, told apart by their values."""

import codecs
import json
import logging
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nas.configuration import optional_module
from nas.data.mistaken_files import first_bytes, refuse_no_table, refuse_quoted_lines
from nas.data.packed_file import COMPRESSED
from nas.data.tables.csv_format import DAMAGED, SEPARATORS, CsvFormat, suggested_format, typed_separator
from nas.data.tables.table_codes import with_codes
from nas.data.tables.table_rows import float_of, seconds_of, spellings, text_of
from nas.errors import UnusableInput, listed

log = logging.getLogger(__name__)

PARQUET = (".parquet", ".pq")
NO_BLANK = SEPARATORS[:-1]
SHEETS = (".xlsx", ".xls", ".ods")
NO_TABLES = (".json", ".jsonl", ".arff", ".feather", ".h5", ".hdf5", ".mat", ".sav", ".dta", ".rds", ".pkl", ".pickle")
OTHER_SOURCES = {".npz": "arrays", ".npy": "arrays", ".pt": "arrays", ".ts": "time_series"}
MONTH = (  # English, German and French, without accents
    r"(jan(v|vier|ner|uary?)?|feb(ruary?)?|fevr?(ier)?|mar(s|ch)?|marz?|mrz|a[pv]r(il)?|ma[iy]|jun[ei]?|juin|jul[iy]?"
    r"|juil(let)?|aug(ust)?|aout|sept?(ember|embre)?|o[ck]t(ober|obre)?|nov(ember|embre)?|de[cz](ember|embre)?)\.?"
)
DAY = r"((mo|di|mi|do|fr|sa|so|tue|wed|thu|su|lun|mar|mer|jeu|ven)[a-z]*[.,]{0,2}\s)?"
DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    rf"|{DAY}\s*(\d{{1,2}}[-/.\s]+{MONTH}|{MONTH}\s+\d{{1,2}}[a-z]*)[-/.,\s]+\d{{2,4}})([T ].*)?",
    re.IGNORECASE,
)
UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # as pandas saves it; other programs take it for a column
RAGGED = re.compile(r"Expected \d+ fields in line (\d+), saw (\d+)")  # as pandas says it
OPEN = re.compile(r"EOF inside string starting at row (\d+)")  # and this; the row of the names is 0
EXACT = 2**53  # up to which float64 has every whole number
UNITS = "%$€£¥"
SIGNED = re.compile(  # 12% and 3,5, $1,200.00, 1.200,50; without a decimal comma, points part an address or a version
    rf"[-+]?\s?[{UNITS}]?\s?[-+]?"
    r"(\d+([.,]\d+)?|[1-9]\d{0,2}(?P<mark>[,'\s])\d{3}((?P=mark)\d{3})*(\.\d+)?|[1-9]\d{0,2}([.\s]\d{3})+,\d+)"
    rf"\s?[{UNITS}]?"
)
UNIT = re.compile(r"(?<=[\d.)])\s*((?i:[a-z°µ²³/]{2,})|[°mgshldWVK])\.?$")  # 40 kg, 3.5m, but not a flat 48B
Kind = Literal["number", "whole", "truth", "text", "category", "code", "date", "list"]


@dataclass(frozen=True)
class Column:
    """A column of N values, of which one of the two has its values.

    Attributes:
        name: As the file has it, without spaces around.
        kind: ``category`` is text that the file itself calls categorical, ``code`` whole numbers with zeros in front,
            ``list`` several values in a cell.
        numbers: (N,) float64 of numbers and whole numbers; NaN where they are missing.
        texts: N texts of all other kinds; an empty one where they are missing.
        is_index: Whether it is the index of a data frame, or a level of it.
        names_rows: Whether it is one of dates, or of another value in each row, or one that never had a name.
    """

    name: str
    kind: Kind
    numbers: Tensor | None = None
    texts: tuple[str, ...] | None = None
    is_index: bool = False
    names_rows: bool = False

    @property
    def values(self) -> Tensor | tuple[str, ...]:
        """The one of the two that there is."""
        assert self.numbers is not None or self.texts is not None
        return self.texts if self.numbers is None else self.numbers  # type: ignore[return-value]

    @property
    def cells(self) -> list[float | str]:
        """The values one by one, an empty text where one is missing."""
        values = self.values.tolist() if isinstance(self.values, Tensor) else self.values
        return ["" if value != value else value for value in values]

    @property
    def missing(self) -> Tensor:
        """The rows that have no value, from 0."""
        if self.numbers is not None:
            return self.numbers.isnan().nonzero().flatten()
        assert self.texts is not None
        return torch.tensor([row for row, text in enumerate(self.texts) if not text], dtype=torch.int64)


def is_parquet(file: Path) -> bool:
    return file.suffix.lower() in PARQUET


def read_table(
    file: Path, csv: CsvFormat, unknown: Sequence[str | float] = (), key: str = "data.file"
) -> dict[str, Column]:
    """The columns of ``file``, by name and in its order.

    Args:
        file: CSV, compressed or not, or Parquet.
        csv: How a text file is read.
        unknown: What stands for a missing value beside an empty cell, ``NA``, ``NaN``, ``null`` and the like.
        key: The setting that names the file, for messages.

    Raises:
        UnusableInput: The file is not there, cannot be read, or its first row has no names for all of its columns.
    """
    pandas = optional_module("pandas", "table")
    if is_parquet(file):
        optional_module("pyarrow", "table")
    _refuse_other_files(file, key)
    refuse_no_table(file, key, is_text=not is_parquet(file) and file.suffix.lower() not in COMPRESSED)
    try:
        frame, codes, index = _frame(pandas, file, csv, unknown)
    except UnicodeDecodeError as error:
        other, reads = "latin-1" if csv.encoding == "cp1252" else "cp1252", "reads the text of many older programs"
        if first_bytes(file).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            other, reads = "utf-16", "reads it"
        wanted = suggested_format(pandas, file, replace(csv, encoding=other)).typed_from(csv)
        reads = "may read it" if " " in wanted else reads
        raise UnusableInput(f"{file} is no {csv.encoding} text (byte {error.start}): {wanted} {reads}.") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        raise UnusableInput(f"The table {file} cannot be read ({reason}).") from None
    frame = _without_empty_ends(frame)
    _check_layout(pandas, frame, file, csv)
    values = (series for _, series in frame.items())
    columns = {name: _column(pandas, name, series) for name, series in zip(_names(frame, file), values, strict=True)}
    for place, name in enumerate(columns):
        if place in codes:
            columns[name] = replace(columns[name], kind="code")
        unnamed = UNNAMED_INDEX.fullmatch(name) is not None
        if place < index or unnamed:
            of_rows = unnamed or columns[name].kind == "date" or bool(frame.iloc[:, place].is_unique)
            columns[name] = replace(columns[name], is_index=True, names_rows=of_rows)
    return columns


def _frame(pandas: Any, file: Path, csv: CsvFormat, unknown: Sequence[str | float]) -> tuple[Any, frozenset[int], int]:
    """The table as pandas reads it, the places of its columns of codes, and how many first ones were its index."""
    if is_parquet(file):
        frame, index = _categories_restored(pandas.read_parquet(file), file), 0
        levels = list(frame.index.names)  # pandas hides a column that was its index
        if any(name is not None for name in levels) or not isinstance(frame.index, pandas.RangeIndex):
            named = [f"__index_level_{level}__" if name is None else name for level, name in enumerate(levels)]
            index, frame = len(levels), frame.reset_index(names=named)
        return _without(pandas, frame, unknown) if unknown else frame, frozenset(), index
    options = csv.options(file)
    separator = options["sep"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pandas says of the names it says of the whole table again
        # The names are read by themselves because pandas renames the second of two equal ones.
        first_row = pandas.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
    names = first_row.iloc[0].tolist()
    if str(names[0]).startswith("sep="):
        first = str(names[0])
        raise UnusableInput(
            f"The first line of {file} is {first!r}, which is for spreadsheets alone: remove it, and say "
            f'"data.csv.separator={typed_separator(first[4:] or separator)}".'
        )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        unknown = [str(one) for one in unknown]
        try:
            asked = options | {"na_values": unknown, "low_memory": False}
            frame = pandas.read_csv(file, decimal=csv.decimal, **asked)
            if any("does not match length of data" in str(one.message) for one in told):
                # So many values have all rows; without a first row of names pandas says which is the first.
                pandas.read_csv(file, header=None, dtype=str, low_memory=False, **options | {"index_col": None})
                raise ValueError("its rows have more values than its first row has names")
        except pandas.errors.ParserError as error:
            _refuse_ragged(file, str(error), names, suggested_format(pandas, file, csv, NO_BLANK).typed_from(csv))
            _refuse_open_quotation(file, str(error))
            raise
    frame, codes = with_codes(pandas, frame, file, asked)
    frame.columns = names
    _tell_swallowed_rows(frame, separator, file)
    return frame, codes, 0


def _categories_restored(frame: Any, file: Path) -> Any:
    """``frame`` with the columns as categories that it had before it was saved: Parquet keeps those of texts alone."""
    stored = (optional_module("pyarrow.parquet", "table").read_schema(file).metadata or {}).get(b"pandas")
    columns = json.loads(stored)["columns"] if stored else ()
    names = {one["name"] for one in columns if one["pandas_type"] == "categorical"}
    return frame.astype({name: "category" for name in frame.columns if name in names})


def _without(pandas: Any, frame: Any, unknown: Sequence[str | float]) -> Any:
    """``frame`` without what is ``unknown``, be it a text or a number, as in a text file."""
    texts = spellings(unknown)
    numbers = [number for number in map(float_of, texts) if number == number]
    types, frame = pandas.api.types, frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        series = frame.iloc[:, place]
        if types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind):
            frame.isetitem(place, series.where(~series.isin(numbers)))
        elif not types.is_bool_dtype(kind) and not types.is_datetime64_any_dtype(kind):
            frame.isetitem(place, series.where(~series.isin(texts)))
    return frame


def _without_empty_ends(frame: Any) -> Any:
    """``frame`` without columns at its end that have neither a name nor a value: lines ended with separators."""
    keep = len(frame.columns)
    while keep > 1 and not str(frame.columns[keep - 1]).strip() and bool(frame.iloc[:, keep - 1].isna().all()):
        keep -= 1
    return frame.iloc[:, :keep]


def _refuse_other_files(file: Path, key: str) -> None:
    """Refuse what is not there, is empty, or is no table by its name."""
    suffix = file.suffix.lower()
    if suffix in SHEETS:
        raise UnusableInput(f"{file} is a spreadsheet: save it as CSV and give that file in {key}.")
    if suffix in OTHER_SOURCES:
        raise UnusableInput(f"{file} is no table: data={OTHER_SOURCES[suffix]} reads it; {key} must be CSV or Parquet.")
    if suffix in NO_TABLES:
        raise UnusableInput(f"{file} is no CSV or Parquet file: save it as one and give that file in {key}.")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise UnusableInput(f"The table {file} {what}: {key} must be a CSV or Parquet file.")
    if not file.stat().st_size:
        raise UnusableInput(f"The table {file} is empty: it needs a row with the names of its columns, and rows below.")


def _refuse_ragged(file: Path, complaint: str, names: Sequence[object], wanted: str) -> None:
    """Refuse a table in which a line has more values than there are names, with what may help.

    Args:
        file: The table.
        complaint: What pandas says.
        names: Those of its first line.
        wanted: The settings that its first rows ask for.
    """
    found = RAGGED.search(" ".join(complaint.split()))
    if found is None:
        return
    ways = ['a text that has the separator inside needs "quotes"']
    if len(names) == 1:
        above = "the first line must have the names of the columns, with nothing above it"
        ways = [f"{wanted} may tell the columns apart" if "separator" in wanted else above]
    elif int(found[1]) == 2 and int(found[2]) == len(names) + 1:
        ways.append("R writes the names of rows so: write.csv(..., row.names = FALSE)")
    many = f"{len(names)} name{'' if len(names) == 1 else 's'} ({listed([str(name) for name in names])})"
    raise UnusableInput(
        f"The table {file} cannot be read: line {found[1]} has {found[2]} values, and the first line has {many}: "
        f"{'; '.join(ways)}."
    )


def _refuse_open_quotation(file: Path, complaint: str) -> None:
    if found := OPEN.search(complaint):
        raise UnusableInput(
            f"The table {file} cannot be read: a quotation mark in row {found[1]}, of which 1 is the first below the "
            "names, is not closed: remove it, or double it inside of quotes."
        )


def _tell_swallowed_rows(frame: Any, separator: str, file: Path) -> None:
    """Log texts that hold whole rows: what stands between a stray quotation mark and the next one is one text."""
    between = len(frame.columns) - 1
    for place in (place for place, kind in enumerate(frame.dtypes) if kind.kind not in "iufb"):
        column = frame.iloc[:, place]
        for text in column.unique():  # in the order of the rows
            lines = text.count("\n") if isinstance(text, str) else 0
            if lines and between and text.count(separator) == between * lines:
                row = column.tolist().index(text)
                log.info(
                    f"{file.name}: row {row + 1} has a text over {lines + 1} lines with as many separators as rows "
                    f"have, {text[:20]!r}...: a stray quotation mark swallows rows; remove it, or double it in quotes"
                )
                return


def _check_layout(pandas: Any, frame: Any, file: Path, csv: CsvFormat) -> None:
    if not len(frame):
        raise UnusableInput(f"The table {file} has no rows below its first one, which has the names of the columns.")
    refuse_quoted_lines(file, frame.columns)
    if len(frame.columns) == 1 and any(one in str(frame.columns[0]) for one in SEPARATORS):
        # One column is no table of inputs and a target.
        wanted = suggested_format(pandas, file, csv).typed_from(csv)
        advice = f"{wanted} may tell its columns apart" if wanted else "a target and an input or more are needed"
        raise UnusableInput(f"{file} has one column, {str(frame.columns[0])!r}: {advice}.")


def _names(frame: Any, file: Path) -> list[str]:
    names = ["" if name is None or name != name else str(name).strip() for name in frame.columns]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if "" in twice:
        raise UnusableInput(
            f"The first line of {file} names {len(names) - names.count('')} of {len(names)} columns: it must have the "
            "names of all of them, with nothing above it."
        )
    if twice:
        raise UnusableInput(
            f"{file} has more than one column called {listed([repr(name) for name in twice])}: rename them."
        )
    return names


def _column(pandas: Any, name: str, series: Any) -> Column:
    types = pandas.api.types
    if isinstance(series.dtype, pandas.CategoricalDtype):
        return Column(name, "category", texts=_texts(series.astype(object)))
    if types.is_bool_dtype(series.dtype):
        return Column(name, "truth", texts=_texts(series))
    if types.is_datetime64_any_dtype(series.dtype):
        texts = series.map(lambda moment: moment.isoformat(), na_action="ignore")
        return Column(name, "date", texts=_texts(texts.astype(object)))
    if types.is_timedelta64_dtype(series.dtype):
        series = series.dt.total_seconds()
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return _of_numbers(types, name, series)
    known = series.dropna().tolist()
    if known and all(isinstance(value, time) for value in known):  # of day, as Parquet has them
        return _of_numbers(types, name, series.map(seconds_of, na_action="ignore").astype("float64"))
    if any(pandas.api.types.is_list_like(value) for value in known):
        return Column(name, "list", texts=tuple("" if value is None else str(value) for value in series.tolist()))
    texts = _texts(series)
    if known and all(isinstance(value, bool) for value in known):  # with gaps
        return Column(name, "truth", texts=texts)
    if not all(isinstance(value, str) for value in known):
        try:
            return _of_numbers(types, name, pandas.to_numeric(series))  # decimals, for example
        except (TypeError, ValueError):
            pass
    found = {text for text in texts if text}
    is_date = bool(found) and all(DATE.fullmatch(_without_accents(text)) for text in found)
    return Column(name, "date" if is_date else "text", texts=texts)


def _without_accents(text: str) -> str:
    """``text`` with a for ä, of which a file may have one code point or two."""
    return text if text.isascii() else re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))


def _of_numbers(types: Any, name: str, series: Any) -> Column:
    values = torch.from_numpy(series.to_numpy(dtype="float64", na_value=float("nan")).copy())
    if not types.is_integer_dtype(series.dtype):
        return Column(name, "number", numbers=values)
    if bool((values.abs() >= EXACT).any()) and _are_names(series.dropna().unique().tolist(), int(series.count())):
        return Column(name, "code", texts=_texts(series))
    return Column(name, "whole", numbers=values)


def _are_names(different: Sequence[int], count: int) -> bool:
    """Whether whole numbers must keep all digits: some would be equal as float64, or lose digits, and come again.

    Account numbers come again; time stamps and other amounts seldom do, and do not need their last digits.
    """
    if len(set(map(float, different))) < len(different):
        return True
    return 2 * len(different) <= count and any(int(float(number)) != number for number in different)


def _texts(series: Any) -> tuple[str, ...]:
    places, different = series.factorize()
    names = [*(text_of(value) for value in different.tolist()), ""]  # place -1 is a missing value
    return tuple(names[place] for place in places.tolist())
