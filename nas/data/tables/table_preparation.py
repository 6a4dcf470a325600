"""What is measured on a table's training rows: medians, scales and categories, as plain JSON."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from nas.data.tables.table_file import Column
from nas.data.tables.table_rows import places_of, prepared_rows
from nas.errors import UnusableInput, listed
from nas.typed_settings import override

MOST_CATEGORIES = 1000  # texts of a column that get a code of their own; the rarer ones count as unknown
EMPTY = "dropped, empty in all training rows"
CONSTANT = "dropped, of one value in all training rows"
GAPS = "missing in some rows, filled by the training part's median, or a category of its own"
LATER = "missing in some rows, and in none of training"
UNSEEN = "texts of other rows that training has not, which count as unknown"
RARE = "of many texts"
REMARKS = (EMPTY, CONSTANT, GAPS, LATER, UNSEEN, RARE)


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
        missing: What stands for a missing value, beside what always does.
        decimal: Between a number's whole and its fractional part in texts.
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    targets: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str | float, ...] = ()
    decimal: str = "."

    @property
    def categories(self) -> tuple[int, ...]:
        """How many codes each of the last inputs has; code 0 is an unknown or missing text."""
        return tuple(len(column.values) + 1 for column in self.categorical)

    @property
    def inputs(self) -> list[str]:
        """The columns that a network is given."""
        return [*(column.name for column in self.numeric), *(column.name for column in self.categorical)]

    def __call__(self, rows: Any) -> Tensor:
        """(N, F) float32 inputs; see :func:`nas.data.tables.table_rows.prepared_rows`."""
        return prepared_rows(rows, self.to_json())

    def to_json(self) -> dict[str, Any]:
        of_columns: dict[str, Any] = {
            "numeric": [asdict(column) for column in self.numeric],
            "categorical": [{"name": column.name, "values": list(column.values)} for column in self.categorical],
        }
        missing = {"missing": list(self.missing)} if self.missing else {}
        names = {"targets": list(self.targets), "left_out": list(self.left_out)}
        decimal = {"decimal": self.decimal} if self.decimal != "." else {}
        return {"kind": "table", **of_columns, **names, **missing, **decimal}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TablePreparation":
        """The inverse of :meth:`to_json`."""
        numeric = tuple(NumericColumn(**column) for column in content["numeric"])
        categorical = tuple(CategoricalColumn(one["name"], tuple(one["values"])) for one in content["categorical"])
        names = tuple(content["targets"]), tuple(content["left_out"])
        return cls(numeric, categorical, *names, tuple(content.get("missing", ())), content.get("decimal", "."))


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
    measured = {name: _measured(column, train, owner) for name, column in columns.items()}
    numeric = tuple(one.becomes for one in measured.values() if isinstance(one.becomes, NumericColumn))
    categorical = tuple(one.becomes for one in measured.values() if isinstance(one.becomes, CategoricalColumn))
    said = {remark: [one.said[remark] for one in measured.values() if remark in one.said] for remark in REMARKS}
    if not numeric and not categorical:
        reasons = {"empty": said[EMPTY], "of one value": said[CONSTANT]}
        why = "; ".join(f"{listed(names)} {what} in all training rows" for what, names in reasons.items() if names)
        raise UnusableInput(f"No column of {owner} is left as an input: {why or 'there is none beside the target'}.")
    dropped = *said[EMPTY], *said[CONSTANT]
    preparation = TablePreparation(numeric, categorical, tuple(targets), (*left_out, *dropped))
    return Fitted(preparation, tuple(f"{what}: {listed(names, most=10)}" for what, names in said.items() if names))


class _Measured(NamedTuple):
    """What becomes of a column, None where it is dropped, and by remark what is said of it there."""

    becomes: NumericColumn | CategoricalColumn | None
    said: Mapping[str, str]


def _measured(column: Column, train: Tensor, owner: str) -> _Measured:
    name, texts = column.name, column.texts
    values = np.empty(0) if column.numbers is None else column.numbers[train].numpy()
    of_texts = None if texts is None else [texts[row] for row in train.tolist() if texts[row]]
    known = values[~np.isnan(values)] if of_texts is None else of_texts
    missing = len(train) - len(known)
    missing_elsewhere = len(column.missing) - missing
    if not len(known):
        return _Measured(None, {EMPTY: name})
    if not missing and all(value == known[0] for value in known):
        return _Measured(None, {CONSTANT: name})
    said = {}
    if missing:
        said[GAPS] = f"{name} ({missing + missing_elsewhere})"
    elif missing_elsewhere:
        said[LATER] = f"{name} ({missing_elsewhere})"
    if of_texts is None:
        return _Measured(_of_numbers(name, values, owner), said)
    counts = Counter(of_texts)
    spelt = places_of(list(counts), ())  # 501 is no other text than 00501
    if strange := sum(bool(text) and text not in spelt for text in texts or ()):
        said[UNSEEN] = f"{name} ({strange})"
    if len(counts) > MOST_CATEGORIES:
        said[RARE] = f"{name} ({len(counts):,}, of which the {MOST_CATEGORIES:,} most frequent have codes)"
    kept = sorted(text for text, _ in counts.most_common(MOST_CATEGORIES))
    return _Measured(CategoricalColumn(name, tuple(kept)), said)


def _of_numbers(name: str, values: np.ndarray, owner: str) -> NumericColumn:
    known = values[~np.isnan(values)]
    median = float(np.median(known))
    filled = np.where(np.isnan(values), median, values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(filled.mean()), float(filled.std())
    std = 1.0 if std <= 1e-12 * max(1.0, abs(mean)) else std  # of one value
    if not math.isfinite(std):
        raise UnusableInput(
            f"The column {name} of {owner} has values too large to be standardised, such as "
            f"{known[np.abs(known).argmax()]:g}: correct them, or {override('ignore', [name])}."
        )
    return NumericColumn(name, median, mean, std, indicator=len(known) < len(values))
