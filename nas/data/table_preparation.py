"""What is measured on a table's training rows: medians, scales and categories, as plain JSON."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nas.data.labelled import listed
from nas.data.table_columns import override
from nas.data.table_file import Column
from nas.data.table_rows import places_of, prepared_rows
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
        missing: What stands for a missing value, beside what always does.
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    targets: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str | float, ...] = ()

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
        missing = {"missing": list(self.missing)} if self.missing else {}
        names = {"targets": list(self.targets), "left_out": list(self.left_out)}
        return {"kind": "table", **of_columns, **names, **missing}


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
    numeric, categorical = [], []
    empty, constant, gaps, rare = [], [], [], []
    later, unseen = [], []
    rows = train.tolist()
    for name, column in columns.items():
        texts = None if column.texts is None else [column.texts[row] for row in rows]
        values = np.empty(0) if column.numbers is None else column.numbers[train].numpy()
        known = values[~np.isnan(values)] if texts is None else np.array([text for text in texts if text])
        missing = len(rows) - len(known)
        if not len(known):
            empty.append(name)
            continue
        if missing == 0 and (known == known[0]).all():
            constant.append(name)
            continue
        in_others = len(column.missing) - missing
        if missing:
            gaps.append(f"{name} ({missing + in_others})")
        elif in_others:
            later.append(f"{name} ({in_others})")
        if texts is None:
            numeric.append(_of_numbers(name, values, known))
            if not math.isfinite(numeric[-1].std):
                raise UnusableInput(
                    f"The column {name} of {owner} has values too large to be standardised, such as "
                    f"{known[np.abs(known).argmax()]:g}: correct them, or {override('ignore', [name])}."
                )
            continue
        counts = Counter(text for text in texts if text)
        kept = sorted(text for text, _ in counts.most_common(MOST_CATEGORIES))
        categorical.append(CategoricalColumn(name, tuple(kept)))
        spelt = places_of(list(counts), ())  # 501 is no other text than 00501
        if strange := sum(bool(text) and text not in spelt for text in column.texts or ()):
            unseen.append(f"{name} ({strange})")
        if len(kept) < len(counts):
            rare.append(f"{name} ({len(counts):,}, of which the {MOST_CATEGORIES:,} most frequent have codes)")
    remarks = [
        ("dropped, empty in all training rows", empty),
        ("dropped, of one value in all training rows", constant),
        ("missing in some rows, filled by the training part's median, or a category of its own", gaps),
        ("missing in some rows, and in none of training", later),
        ("texts of other rows that training has not, which count as unknown", unseen),
        ("of many texts", rare),
    ]
    if not numeric and not categorical:
        reasons = {"empty": empty, "of one value": constant}
        why = "; ".join(f"{listed(names)} {what} in all training rows" for what, names in reasons.items() if names)
        raise UnusableInput(f"No column of {owner} is left as an input: {why or 'there is none beside the target'}.")
    inputs = tuple(numeric), tuple(categorical)
    preparation = TablePreparation(*inputs, tuple(targets), (*left_out, *empty, *constant))
    return Fitted(preparation, tuple(f"{what}: {listed(names, most=10)}" for what, names in remarks if names))


def _of_numbers(name: str, values: np.ndarray, known: np.ndarray) -> NumericColumn:
    median = float(np.median(known))
    filled = np.where(np.isnan(values), median, values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(filled.mean()), float(filled.std())
    is_constant = std <= 1e-12 * max(1.0, abs(mean))
    return NumericColumn(name, median, mean, 1.0 if is_constant else std, indicator=len(known) < len(values))
