"""Rows of a table as a network takes them.

The text of :func:`prepared_rows` goes into the Python file that stands for a found network, so it needs torch only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# What a cell holds where nothing is known.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None")
MISSING_NUMBERS = (*MISSING, "NULL", "n/a", "<NA>", "#N/A", "#NA", "NaT")  # which a text could be, and no number
SPELT = {"True": ("TRUE", "true", "1"), "False": ("FALSE", "false", "0")}  # as spreadsheets and programs write them


def prepared_rows(rows: Any, preparation: Mapping[str, Any]) -> Tensor:
    """The network's inputs, (N, F) float32: numbers, then 1 where one was missing and 0 elsewhere, then codes.

    A missing number becomes the training part's median; numbers are standardised. A text's code is its place among the
    training part's texts, from 1; 0 is an unknown or a missing one. What ``data.missing`` named is missing here, too.

    Args:
        rows: By column its N values, or N rows, each with its values by column, or one such row, as
            ``frame.iloc[0]``. None, NaN and empty texts are missing. Columns that are no inputs may be there.
        preparation: What was measured on the training part, as ``candidate.json`` has it.

    Raises:
        ValueError: A column has no name, is missing or was not there in training, or a value is no finite number, or
            too large.
    """
    columns = columns_of(rows, preparation)
    unknown, decimal = spellings(preparation.get("missing", ())), preparation.get("decimal", ".")
    numbers, gaps, codes = [], [], []
    for column in preparation["numeric"]:
        values = numbers_of(column["name"], columns[column["name"]], unknown, decimal)
        missing = values.isnan()
        numbers.append((values.where(~missing, column["median"]) - column["mean"]) / column["std"])
        if column["indicator"]:
            gaps.append(missing.double())
    for column in preparation["categorical"]:
        places = places_of(column["values"], unknown)
        cells = columns[column["name"]]
        codes.append(torch.tensor([place_of(cell, places) for cell in cells], dtype=torch.float64))
    inputs = torch.stack(numbers + gaps + codes, dim=1).to(torch.float32)
    too_large = (~inputs.isfinite()).nonzero().tolist()
    if too_large:
        row, place = too_large[0]
        name = preparation["numeric"][place]["name"]
        raise ValueError(f"{name} of row {row + 1} is too large beside the numbers of the training")
    return inputs


def places_of(texts: Sequence[str], unknown: Sequence[str]) -> dict[str, int]:
    """By text its code, from 1, also as a file would have it: ``TRUE``, and 501 for 00501; 0 of what is missing."""
    places = {text: place for place, text in enumerate(texts, start=1)}
    truth = set(texts) <= set(SPELT)
    spelt = [
        (other, place) for text, place in places.items() for other in (SPELT[text] if truth else (shortened(text),))
    ]
    counts = Counter(other for other, _ in spelt)
    others = {other: place for other, place in spelt if counts[other] == 1}
    return others | places | dict.fromkeys(unknown, 0)


def place_of(cell: Any, places: Mapping[str, int]) -> int:
    if cell in places:
        return places[cell]
    seconds = text_of(seconds_of(cell))  # of a duration that data.categorical takes for the name of a category
    return places.get(text_of(cell), places.get(seconds, 0))


def spellings(unknown: Sequence[str | float]) -> list[str]:
    """What is taken as missing, a whole number also as a file may have it: -999.0 for -999, and -999 for -999.0."""
    found = [str(one).strip() for one in unknown]
    for number in (float_of(text) for text in list(found)):
        if number.is_integer():
            found += [str(int(number)), str(number)]
    return list(dict.fromkeys(found))


def float_of(text: str) -> float:
    """The number that ``text`` is; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def shortened(text: str) -> str:
    """A whole number without zeros in front; another text as it is."""
    return str(int(text)) if text.isdecimal() else text


def columns_of(rows: Any, preparation: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """By column its values, after a look at the columns' names."""
    if hasattr(rows, "keys") and any(
        isinstance(rows[name], str) or not hasattr(rows[name], "__iter__") for name in list(rows.keys())
    ):
        rows = [rows]  # a single one
    if not hasattr(rows, "keys"):  # which a mapping and a data frame have
        if not all(hasattr(row, "keys") for row in rows):
            raise ValueError("rows need the names of their columns: give a data frame, or a dictionary for each row")
        # The row of a data frame is iterated by its values.
        names = dict.fromkeys(name for row in rows for name in list(row.keys()))
        rows = {name: [row.get(name) for row in rows] for name in names}
    columns = {str(name).strip(): rows[name] for name in list(rows.keys())}
    wanted = [column["name"] for column in (*preparation["numeric"], *preparation["categorical"])]
    lacking = [name for name in wanted if name not in columns]
    if lacking:
        raise ValueError(f"the rows lack the column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}")
    known = {*wanted, *preparation["targets"], *preparation["left_out"]}
    strange = [name for name in columns if name not in known]
    if strange:
        raise ValueError(f"the table of the training had no column {', '.join(strange)}")
    return {name: columns[name] for name in wanted}


def numbers_of(name: str, values: Any, unknown: Sequence[str] = (), decimal: str = ".") -> Tensor:
    """(N,) float64, NaN where a value is missing; ``decimal`` is the mark in texts."""
    if not isinstance(values, Tensor):
        read = [number_of(name, row, value, unknown, decimal) for row, value in enumerate(values)]
        values = torch.tensor(read, dtype=torch.float64)
    absent = torch.tensor([float_of(text) for text in unknown], dtype=torch.float64)
    values = values.double().masked_fill(torch.isin(values.double(), absent), float("nan"))
    infinite = values.isinf().nonzero().flatten().tolist()
    if infinite:
        raise ValueError(f"{name} is infinite in {len(infinite)} of {len(values)} rows, first in row {infinite[0] + 1}")
    return values


def number_of(name: str, row: int, value: Any, unknown: Sequence[str], decimal: str) -> float:
    if str(value).strip() in (*MISSING_NUMBERS, *unknown):
        return float("nan")
    try:
        value = seconds_of(value)
        plain = value.replace(decimal, ".") if isinstance(value, str) and "." not in value else value
        return float(plain)
    except (TypeError, ValueError):
        raise ValueError(f"{name} of row {row + 1} is {value!r}, not a number") from None


def seconds_of(value: Any) -> Any:
    """The seconds of a duration, or of a time of day since midnight; any other value as it is."""
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    if hasattr(value, "hour") and not hasattr(value, "year"):
        return 3600 * value.hour + 60 * value.minute + value.second + value.microsecond / 1e6
    return value


def text_of(value: Any) -> str:
    """A value as the name of a category: ``2007`` for 2007 and 2007.0, an empty text where it is missing."""
    text = str(value).strip()
    if isinstance(value, str) or text in ("True", "False"):
        return "" if text in MISSING else text
    if text in MISSING_NUMBERS:
        return ""
    try:
        return str(int(value)) if value == int(value) else text
    except (TypeError, ValueError, OverflowError):
        return text
