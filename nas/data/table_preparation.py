"""What is measured on a table's training rows: medians, scales and categories, as plain JSON."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from nas.data.labelled import listed
from nas.data.table_columns import override
from nas.data.table_file import Column
from nas.data.table_rows import prepared_rows
from nas.errors import UnusableInput

MOST_CATEGORIES = 1000  # texts of a column that get a code of their own; the rarer ones count as unknown


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers: how it is filled and scaled, and whether another input tells where it was missing."""

    name: str
    median: float
    mean: float
    std: float
    indicator: bool


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of texts; the code of ``values[i]`` is i + 1."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class TablePreparation:
    """How rows become inputs; every number is of the training part.

    Attributes:
        numeric: Columns of numbers, in the order of the inputs.
        categorical: Columns of texts, whose codes are the last inputs.
        targets: The target's columns.
        left_out: Columns that are there and are no inputs.
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    targets: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def categories(self) -> tuple[int, ...]:
        """How many codes each of the last inputs has; code 0 is an unknown or missing text."""
        return tuple(len(column.values) + 1 for column in self.categorical)

    def __call__(self, rows: Any) -> Tensor:
        """(N, F) float32 inputs; see :func:`nas.data.table_rows.prepared_rows`."""
        return prepared_rows(rows, self.to_json())

    def to_json(self) -> dict[str, Any]:
        of_columns: dict[str, Any] = {
            "numeric": [asdict(column) for column in self.numeric],
            "categorical": [{"name": column.name, "values": list(column.values)} for column in self.categorical],
        }
        return {"kind": "table", **of_columns, "targets": list(self.targets), "left_out": list(self.left_out)}


@dataclass(frozen=True)
class Fitted:
    """A preparation, and what is worth a line about the columns that it was fitted to."""

    preparation: TablePreparation
    remarks: tuple[str, ...]


def fitted_preparation(
    columns: Mapping[str, Column], train: Tensor, targets: Sequence[str], left_out: Sequence[str], owner: str
) -> Fitted:
    """Measure ``columns`` on the rows ``train``.

    A column that is empty there, or has one value there and no gap, is dropped.

    Args:
        columns: The inputs, all rows.
        train: (M,) the rows of the training part.
        targets, left_out: As in the preparation.
        owner: The table, for messages.

    Raises:
        UnusableInput: No column is left, or the values of one are too large.
    """
    measured = {name: _Measured.of(column, train) for name, column in columns.items()}
    empty = [name for name, one in measured.items() if not len(one.known)]
    constant = [name for name, one in measured.items() if one.is_constant()]
    kept = {name: one for name, one in measured.items() if name not in (*empty, *constant)}
    numeric = [_of_numbers(name, one, owner) for name, one in kept.items() if columns[name].texts is None]
    counted = {name: Counter(one.known) for name, one in kept.items() if columns[name].texts is not None}
    categorical = [
        CategoricalColumn(name, tuple(sorted(text for text, _ in counts.most_common(MOST_CATEGORIES))))
        for name, counts in counted.items()
    ]
    if not numeric and not categorical:
        reasons = {"empty": empty, "of one value": constant}
        why = "; ".join(f"{listed(names)} {what} in all training rows" for what, names in reasons.items() if names)
        raise UnusableInput(f"No column of {owner} is left as an input: {why or 'there is none beside the target'}.")
    most = f"of which the {MOST_CATEGORIES:,} most frequent have codes"
    remarks = {
        "dropped, empty in all training rows": empty,
        "dropped, of one value in all training rows": constant,
        "missing in some rows, filled by the training part's median, or a category of its own": [
            f"{name} ({one.missing + one.missing_elsewhere})" for name, one in kept.items() if one.missing
        ],
        "missing in some rows, and in none of training": [
            f"{name} ({one.missing_elsewhere})"
            for name, one in kept.items()
            if one.missing_elsewhere and not one.missing
        ],
        "of many texts": [
            f"{name} ({len(counts):,}, {most})" for name, counts in counted.items() if len(counts) > MOST_CATEGORIES
        ],
    }
    inputs = tuple(numeric), tuple(categorical)
    preparation = TablePreparation(*inputs, tuple(targets), (*left_out, *empty, *constant))
    return Fitted(preparation, tuple(f"{what}: {listed(names, most=10)}" for what, names in remarks.items() if names))


class _Measured(NamedTuple):
    """What a column has in the M rows of the training part.

    Attributes:
        values: (M,) its numbers, NaN where they are missing; (0,) of texts.
        known: Those of its numbers, or texts, that are not missing.
        missing: How many are.
        missing_elsewhere: How many are in the rows of the other parts.
    """

    values: np.ndarray
    known: np.ndarray | list[str]
    missing: int
    missing_elsewhere: int

    @classmethod
    def of(cls, column: Column, train: Tensor) -> "_Measured":
        values = np.empty(0) if column.numbers is None else column.numbers[train].numpy()
        texts = column.texts
        of_texts = None if texts is None else [texts[row] for row in train.tolist() if texts[row]]
        known = values[~np.isnan(values)] if of_texts is None else of_texts
        missing = len(train) - len(known)
        return cls(values, known, missing, len(column.missing) - missing)

    def is_constant(self) -> bool:
        """Whether it has one value, and no gap."""
        return len(self.known) > 0 and self.missing == 0 and bool((np.asarray(self.known) == self.known[0]).all())


def _of_numbers(name: str, measured: _Measured, owner: str) -> NumericColumn:
    values, known = measured.values, np.asarray(measured.known)
    median = float(np.median(known))
    filled = np.where(np.isnan(values), median, values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(filled.mean()), float(filled.std())
    std = 1.0 if std <= 1e-12 * max(1.0, abs(mean)) else std
    if not math.isfinite(std):
        raise UnusableInput(
            f"The column {name} of {owner} has values too large to be standardised, such as "
            f"{known[np.abs(known).argmax()]:g}: correct them, or {override('ignore', [name])}."
        )
    return NumericColumn(name, median, mean, std, indicator=len(known) < len(values))
