"""The columns of a table by which its rows are divided into parts."""

import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from nas.configuration import optional_module
from nas.data.row_split import names_parts
from nas.data.tables.table_columns import read_as_numbers, rows_named
from nas.data.tables.table_file import Column
from nas.errors import UnusableInput

DAY_FIRST = re.compile(r"\A(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})\b,?")  # 31.12.2024; of 12/11/2024 nobody knows


def groups_of(
    columns: Mapping[str, Column], by: str | None, count: int, file: str, key: str = "split.by"
) -> Sequence[object] | None:
    """The group of each of the first ``count`` rows, by the column ``by``, which ``key`` names, if there is one.

    Raises:
        UnusableInput: It has no value in a row.
    """
    if by is None:
        return None
    _refuse_missing(columns[by], key, count, file)
    column = columns[by]
    return list(column.texts or ())[:count] if column.numbers is None else column.numbers.tolist()[:count]


def columns_of_parts(columns: Mapping[str, Column], beside: Collection[str]) -> list[str]:
    """The columns, but for those of ``beside``, that name the part of each row."""
    return [name for name, one in columns.items() if name not in beside and names_parts(one.texts or ())]


def times_of(columns: Mapping[str, Column], order: str | None, count: int, file: str) -> Tensor | None:
    """(count,) float64 that the rows are sorted by; None leaves them in their own order.

    Raises:
        UnusableInput: The column has no value in a row, or neither numbers nor times.
    """
    if order is None or order not in columns:
        return None
    column = columns[order]
    _refuse_missing(column, "split.order", count, file)
    column = read_as_numbers(column) if column.kind == "code" else column
    if column.numbers is not None:
        return column.numbers[:count]
    pandas, texts = optional_module("pandas", "table"), list(column.texts or ())[:count]
    standard = [DAY_FIRST.sub(lambda found: f"{found[3]}-{found[2]:0>2}-{found[1]:0>2}", text) for text in texts]
    times = pandas.to_datetime(standard, format="ISO8601", utc=True, errors="coerce")
    bad = torch.tensor(times.isna().nonzero()[0])
    if len(bad):
        raise UnusableInput(
            f"The column {order} of {file}, by which data.split.order sorts, has no time in {len(bad):,} of {count:,} "
            f"rows, the first is {texts[int(bad[0])]!r} in {rows_named(bad[:1])}: write times as 2024-01-31 or "
            "31.01.2024, or as numbers."
        )
    return torch.tensor((times - times.min()).total_seconds().to_numpy(), dtype=torch.float64)


def _refuse_missing(column: Column, key: str, count: int, file: str) -> None:
    missing = column.missing[column.missing < count]
    if len(missing):
        raise UnusableInput(
            f"The column {column.name} of {file}, which data.{key} names, is missing in {len(missing):,} of {count:,} "
            f"rows ({rows_named(missing)}): fill them in, or name another column."
        )
