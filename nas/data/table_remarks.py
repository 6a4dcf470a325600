"""What is worth a line about the values of a table: columns that tell the target, numbers that stand for nothing."""

from collections.abc import Mapping
from math import isclose

import torch
from torch import Tensor

from nas.data.labelled import listed
from nas.data.table_columns import override
from nas.data.table_file import Column
from nas.data.targets import Targets, alike_classes

FEWEST = 20  # training rows from which on it is no accident that a column tells the target
NINES = (
    99.0,
    999.0,
    9999.0,
    99999.0,
    999999.0,
)  # with a sign or without, what many programs write for a missing number
FAR = 5  # times as large as all others is such a number, where it has no sign


def remarks_on(columns: Mapping[str, Column], targets: Targets, train: Tensor) -> list[str]:
    """The remarks on the inputs ``columns``, by what the training rows ``train`` (M,) hold."""
    remarks = []
    if telling := [name for name, column in columns.items() if _tells(column, targets, train)]:
        remarks.append(
            f"{listed(telling)} alone tells the target in all training rows: {override('ignore', telling)} leaves out "
            "what is known after it only"
        )
    absent = {name: _nothing(column, train) for name, column in columns.items() if column.kind in ("whole", "number")}
    if found := [f"{name} {value:g}" for name, value in absent.items() if value is not None]:
        values = sorted({f"{value:g}" for value in absent.values() if value is not None}, key=float)
        remarks.append(
            f"numbers far from all others, in several rows: {listed(found)}; if they stand for missing ones, say "
            f"'data.missing=[{','.join(values)}]'"
        )
    for name, column in columns.items():
        if column.texts is not None and (alike := alike_classes(sorted(set(column.texts)))):
            remarks.append(f"texts of {name} that differ only in case or blanks: {alike}")
    return remarks


def _tells(column: Column, targets: Targets, train: Tensor) -> bool:
    """Whether each value of ``column`` goes with one class, or the column is the target in another unit."""
    known = targets.values[train]
    if known.dim() > 1 or len(train) < FEWEST:
        return False
    values = _numbered(column)[train]
    if not bool(values.isfinite().all()):
        return False
    if targets.strata is None:
        if column.numbers is None or (known.is_floating_point() and not bool(known.isfinite().all())):
            return False
        pair = torch.stack([values, known.double()])
        return bool((pair.std(1) > 0).all()) and isclose(abs(float(torch.corrcoef(pair)[0, 1])), 1, abs_tol=1e-9)
    different, places = values.unique(return_inverse=True)
    if not 1 < len(different) <= len(values) / 10:
        return False
    classes, numbers = known.unique(return_inverse=True)
    return len(classes) > 1 and len((places * len(classes) + numbers).unique()) == len(different)


def _numbered(column: Column) -> Tensor:
    """(N,) float64 that are equal where the values are."""
    if column.numbers is not None:
        return column.numbers
    places = {text: place for place, text in enumerate(dict.fromkeys(column.texts or ()))}
    return torch.tensor([places[text] for text in column.texts or ()], dtype=torch.float64)


def _nothing(column: Column, train: Tensor) -> float | None:
    """A number such as -999 that stands far from all others in several rows; None where there is none."""
    assert column.numbers is not None
    values = column.numbers[train]
    values = values[~values.isnan()]
    if not len(values):
        return None
    for nine in NINES:
        for value, good in ((-nine, values >= 0), (nine, values.abs() * FAR <= nine)):
            is_it = values == value
            if int(is_it.sum()) > 1 and bool((good | is_it).all()) and not bool(is_it.all()):
                return value
    return None
