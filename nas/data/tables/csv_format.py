"""How a text file of a table is read, and which other format its first rows ask for."""

import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.data.tables.table_rows import MISSING_NUMBERS, float_of
from nas.errors import require

TABS = (".tsv", ".tab")
SEPARATORS = (";", "\t", "|", " ")  # that are looked for where a comma is none
TAB = ("tab", r"\t")
BLANKS = r"\s+"  # one or more
COMMA = re.compile(r"-?\d+,\d+")
THOUSANDS = re.compile(r"-?\d{1,3},\d{3}")
LOOKED_AT = 200  # rows
# What reading a damaged or locked file raises; pandas' own errors are ValueErrors, as pyarrow's are.
DAMAGED = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)


@dataclass(frozen=True)
class CsvFormat:
    r"""How a text file is read.

    Attributes:
        separator: Between two columns, ``tab``, a character, or ``\s+`` for blanks; null is a comma, or a tab in files
            called ``.tsv``.
        decimal: Between a number's whole and its fractional part.
        encoding: Of the text.
    """

    separator: str | None = None
    decimal: str = "."
    encoding: str = "utf-8-sig"

    def __post_init__(self) -> None:
        good = self.separator is None or len(self.separator) == 1 or self.separator in (*TAB, BLANKS)
        require(good, "separator", self.separator, rf"it must be one character such as ; or tab, {BLANKS} or null")
        require(len(self.decimal) == 1, "decimal", self.decimal, "it must be one character")

    def options(self, file: Path) -> dict[str, Any]:
        """What pandas is told of the format of ``file``, but for the decimal mark."""
        tabs = self.separator in TAB or (self.separator is None and {one.lower() for one in file.suffixes} & set(TABS))
        separator = "\t" if tabs else self.separator or ","
        return {"index_col": False, "sep": separator, "encoding": self.encoding, "skipinitialspace": True}

    def typed_from(self, other: "CsvFormat") -> str:
        """The settings that make this format of ``other``, as they are typed in a shell; empty if it is the same."""
        typed = []
        if self.encoding != other.encoding:
            typed.append(f"data.csv.encoding={self.encoding}")
        if self.separator is not None and self.separator != other.separator:
            typed.append(f'"data.csv.separator={typed_separator(self.separator)}"')
        if self.decimal != other.decimal:
            typed.append(f"\"data.csv.decimal='{self.decimal}'\"")
        return " ".join(typed)


def typed_separator(separator: str) -> str:
    return "tab" if separator == "\t" else f"'{separator}'"


def suggested_format(pandas: Any, file: Path, csv: CsvFormat, separators: Sequence[str] = SEPARATORS) -> CsvFormat:
    """``csv`` with another separator or a decimal comma where the first rows of ``file`` ask for them.

    Another separator is asked for by a first line that has it and is one name; a decimal comma by a column that has
    commas in all numbers that are no whole ones, of which one at least does not part thousands.

    Args:
        pandas: The module.
        file: A text file, compressed or not.
        csv: How it is read.
        separators: Those that are looked for.
    """
    head = _first_rows(pandas, file, csv)
    if head is not None and len(head.columns) == 1:
        name = str(head.columns[0])
        csv = replace(csv, separator=next((one for one in separators if one in name), csv.separator))
        head = _first_rows(pandas, file, csv)
    if head is None or csv.decimal != ".":
        return csv
    columns = (head.iloc[:, place].tolist() for place in range(len(head.columns)))
    return replace(csv, decimal=",") if any(map(_has_decimal_commas, columns)) else csv


def _first_rows(pandas: Any, file: Path, csv: CsvFormat) -> Any:
    """The first rows as texts; None where they cannot be read so."""
    options = csv.options(file) | {"dtype": str, "keep_default_na": False, "on_bad_lines": "skip"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pandas.read_csv(file, nrows=LOOKED_AT, **options)
        except DAMAGED:  # whoever reads all of it tells why
            return None


def _has_decimal_commas(texts: Sequence[str]) -> bool:
    words = [text.strip() for text in texts if float_of(text) != float_of(text)]
    words = [text for text in words if text not in MISSING_NUMBERS]
    return bool(words) and all(map(COMMA.fullmatch, words)) and not all(map(THOUSANDS.fullmatch, words))
