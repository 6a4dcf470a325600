"""What is worth a line about the values of a table: columns that tell the target, numbers that stand for nothing."""

from collections.abc import Mapping, Sequence
from math import isclose

import torch
from torch import Tensor

from nas.data.far_values import far_value, plain
from nas.data.tables.table_file import Column
from nas.data.targets import Targets, alike_classes
from nas.errors import listed
from nas.typed_settings import override

FEWEST = 20  # training rows from which on it is no accident that a column tells the target


def remarks_on(
    columns: Mapping[str, Column], targets: Targets, train: Tensor, missing: Sequence[str | float] = ()
) -> list[str]:
    """The remarks on the inputs ``columns``, by what the training rows ``train`` (M,) hold.

    Args:
        columns: The inputs, all rows.
        targets: Of all rows.
        train: (M,) the rows of the training part.
        missing: What ``data.missing`` names.
    """
    remarks = []
    if telling := [name for name, column in columns.items() if _tells(column, targets, train)]:
        remarks.append(
            f"{listed(telling)} alone tells the target in all training rows: if it is known only after the target, "
            f"{override('ignore', telling)} leaves it out"
        )
    numbers = {name: column.numbers for name, column in columns.items() if column.kind in ("whole", "number")}
    far = {name: far_value(values[train]) for name, values in numbers.items() if values is not None}
    found = {name: value for name, value in far.items() if value is not None}
    if found:
        shown = listed([f"{name} {plain(value)}" for name, value in found.items()])
        way = _as_missing(columns, targets, found, missing)
        remarks.append(f"numbers far from all others: {shown}; if they stand for missing ones, {way}")
    for name, column in columns.items():
        if column.texts is not None and (alike := alike_classes(sorted(set(column.texts)))):
            remarks.append(f"texts of {name} that differ only in case or blanks: {alike}")
    return remarks


def parted_thousands(columns: Mapping[str, Column], decimal: str) -> str | None:
    """The remark on numbers such as 1.557 beside 803: points may part their thousands; None where there are none.

    Args:
        columns: Of a text file.
        decimal: The mark in front of decimals that it was read with, a point or a comma.
    """
    found = {}
    for name, column in columns.items():
        values = column.numbers if column.kind == "number" and column.numbers is not None else torch.empty(0)
        known = values[values.isfinite()].abs()
        parted = known[known != known.round()]
        digits = (1000 * parted).round()
        as_written = bool(((1000 * parted - digits).abs() < 1e-6).all()) and bool((known < 1000).all())
        # Of measurements with three decimals one in a thousand is whole, and halves and eighths often have fewer.
        mixed = 20 * len(parted) < 19 * len(known) and 10 * int((digits % 10 != 0).sum()) > 7 * len(parted)
        whole = known[(known == known.round()) & (known > 0)]  # 803, where ratings and prices have 2
        below_thousand = len(whole) > 0 and float(whole.median()) >= 100
        if len(parted) >= FEWEST and as_written and mixed and below_thousand and bool((parted > 1).all()):
            found[name] = float(parted[0])
    shown = listed([f"{name} (such as {f'{value:.3f}'.replace('.', decimal)})" for name, value in found.items()])
    wrong, marks = "whole numbers beside numbers of three decimals: ", "commas" if decimal == "," else "points"
    return f"{wrong}{shown}; if {marks} part thousands, remove them from the file" if found else None


def _as_missing(
    columns: Mapping[str, Column], targets: Targets, found: Mapping[str, float], missing: Sequence[str | float]
) -> str:
    """How the numbers that were ``found`` by column become missing: not by a setting that takes others, too."""
    values = sorted(set(found.values()))
    elsewhere = {value for value in values if _is_target(targets, value)}
    for name, column in columns.items():
        elsewhere.update(value for value in _held(column, values) if found.get(name) != value)
    ways = []
    if alone := [value for value in values if value not in elsewhere]:
        ways.append(f"say {override('missing', [*missing, *map(plain, alone)])}")
    if elsewhere:
        which = listed([f"{value:g}" for value in sorted(elsewhere)])
        ways.append(f"leave their cells empty in the file ({which} is a value of other columns, too)")
    return ", and ".join(ways)


def _held(column: Column, values: Sequence[float]) -> list[float]:
    """Those of ``values`` that ``column`` has."""
    if column.numbers is not None:
        wanted = torch.tensor(values, dtype=torch.float64)
        return wanted[torch.isin(wanted, column.numbers)].tolist()
    texts = set(column.texts or ())
    return [value for value in values if f"{value:g}" in texts]


def _is_target(targets: Targets, value: float) -> bool:
    if targets.class_names is not None:
        return f"{value:g}" in targets.class_names
    return bool((targets.values == value).any())


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
