"""Rows of a table as a network takes them.

The text of :func:`prepared_rows` goes into the Python file that stands for a found network, so it needs torch only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# What a cell holds where nothing is known; a reader of files knows more of them.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None")


def prepared_rows(rows: Any, preparation: Mapping[str, Any]) -> Tensor:
    """The network's inputs, (N, F) float32: numbers, then 1 where one was missing and 0 elsewhere, then codes.

    A missing number becomes the training part's median; numbers are standardised. A text's code is its place among the
    training part's texts, from 1; 0 is an unknown or a missing one.

    Args:
        rows: By column its N values, or N rows, each with its values by column, or one such row. None, NaN and empty
            texts are missing. Columns that are no inputs may be there.
        preparation: What was measured on the training part, as ``candidate.json`` has it.

    Raises:
        ValueError: A column is missing or was not there in training, or a value is no finite number.
    """
    columns = columns_of(rows, preparation)
    numbers, gaps, codes = [], [], []
    for column in preparation["numeric"]:
        values = numbers_of(column["name"], columns[column["name"]])
        missing = values.isnan()
        numbers.append((values.where(~missing, column["median"]) - column["mean"]) / column["std"])
        if column["indicator"]:
            gaps.append(missing.double())
    for column in preparation["categorical"]:
        places = {text: place for place, text in enumerate(column["values"], start=1)}
        cells = columns[column["name"]]
        known = [places[cell] if cell in places else places.get(text_of(cell), 0) for cell in cells]
        codes.append(torch.tensor(known, dtype=torch.float64))
    return torch.stack(numbers + gaps + codes, dim=1).to(torch.float32)


def columns_of(rows: Any, preparation: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """By column its values, after a look at the columns' names."""
    if hasattr(rows, "keys") and any(isinstance(rows[name], str | float | int) for name in list(rows.keys())):
        rows = [rows]  # a single one
    if not hasattr(rows, "keys"):  # which a mapping and a data frame have
        rows = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
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


def numbers_of(name: str, values: Any) -> Tensor:
    """(N,) float64, NaN where a value is missing."""
    if not isinstance(values, Tensor):
        values = torch.tensor([number_of(name, row, value) for row, value in enumerate(values)], dtype=torch.float64)
    infinite = values.isinf().nonzero().flatten().tolist()
    if infinite:
        raise ValueError(f"{name} is infinite in {len(infinite)} of {len(values)} rows, first in row {infinite[0] + 1}")
    return values


def number_of(name: str, row: int, value: Any) -> float:
    if value is None or (isinstance(value, str) and value.strip() in MISSING):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} of row {row + 1} is {value!r}, not a number") from None


def text_of(value: Any) -> str:
    """A value as the name of a category: ``2007`` for 2007 and 2007.0, an empty text where it is missing."""
    text = str(value).strip()
    if isinstance(value, str) or text in ("True", "False"):
        return "" if text in MISSING else text
    if value is None or value != value:
        return ""
    try:
        return str(int(value)) if value == int(value) else text
    except (TypeError, ValueError, OverflowError):
        return text
