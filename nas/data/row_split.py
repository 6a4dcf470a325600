"""Which rows of a table, of arrays or of a folder of series go into which part: drawn, by groups, or in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from nas.data.stratified_split import stratified_indices
from nas.errors import InvalidValue, UnusableInput, require

SHARE = 0.2  # of the rows that validation and test get where nothing is said
PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class RowSplit:
    """How large the parts are and how their rows are chosen.

    A whole number is a number of rows; a number below 1 is a share of the rows there are. The seed is the split's own,
    not the run's, so that runs with different seeds share one test part.

    Attributes:
        train: Rows the weights are trained on; null takes everything that is left.
        validation: Rows the architecture is learned from; null takes the data's own validation part, or 0.2.
        test: Rows for the final test; null takes the data's own test part, or 0.2.
        seed: Seed of the draw.
        by: A column whose equal values stay in one part: patients, places, days.
        order: ``time`` cuts the rows as they stand, or as a column ``time`` has them; another column's name sorts by
            it. The first rows are trained on, the last ones are the test.
        parts: A column that says of each row which part it is in, as ``PART_NAMES`` have them. A part that it never
            names is drawn from training.

    Raises:
        InvalidValue: A size is neither a number of rows nor a share, the seed is not allowed, or ``by`` is given with
            ``order`` or ``train``, or ``parts`` with one of them.
    """

    train: int | float | None = None
    validation: int | float | None = None
    test: int | float | None = None
    seed: int = 0
    by: str | None = None
    order: str | None = None
    parts: str | None = None

    def __post_init__(self) -> None:
        for part, size in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            good = size is None or (size >= 1 if isinstance(size, int) else 0 < size < 1)
            allowed = "it must be a number of rows, from 1, or a share between 0 and 1, or null for the default"
            require(good, part, size, allowed)
        require(0 <= self.seed < 2**63, "seed", self.seed, "it must be from 0 to 2**63 - 1")
        if self.by is not None:
            require(self.order is None, "order", self.order, f"the rows are split by {self.by} already")
            require(self.train is None, "train", self.train, f"null, for the groups of {self.by} that are left")
        if self.parts is not None:
            for key, column in (("by", self.by), ("order", self.order)):
                require(column is None, key, column, f"the rows are split by {self.parts} already")

    @property
    def columns(self) -> dict[str, str]:
        """By setting the column that it names."""
        order = None if self.order == "time" else self.order
        named = {"by": self.by, "order": order, "parts": self.parts}
        return {f"split.{key}": column for key, column in named.items() if column is not None}

    def in_words(self, parts: "Parts") -> str:
        """``206 to train, 69 to validate, 69 to test``, and how they were chosen where they were not drawn."""
        sizes = [f"{len(rows):,} to {verb}" for rows, verb in zip(parts, ("train", "validate", "test"), strict=True)]
        ways = {"in whole groups of": self.by, "in the order of": self.order, "as said in": self.parts}
        return ", ".join(sizes + [f"{how} {column}" for how, column in ways.items() if column])


@dataclass(frozen=True)
class Rows:
    """What is known of rows when their parts are drawn.

    Attributes:
        count: N, the rows that are divided.
        own: How many rows the data's own parts have, ``validation`` and ``test``. They are counted on from N, in this
            order.
        labels: Class numbers of all rows, which every part gets in proportion, int64; None where there are none.
        groups: The N values of ``by``, if rows are split by it.
        times: (N,) what the rows are sorted by, if they are cut in another order than their own.
        named: The N values of ``parts``, if rows are split by it.
    """

    count: int
    own: Mapping[str, int] = field(default_factory=dict)
    labels: Tensor | None = None
    groups: Sequence[object] | None = None
    times: Tensor | None = None
    named: Sequence[object] | None = None


class Parts(NamedTuple):
    """Row numbers, (M,) int64 each."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def tested(self, rows: Rows, first: int = 0) -> list[int]:
        """The row numbers of the test part in the file that it comes from, whose first row has the number ``first``."""
        before = rows.count + rows.own.get("validation", 0) if "test" in rows.own else 0
        return (self.test - before + first).tolist()


def drawn_parts(rows: Rows, split: RowSplit) -> Parts:
    """Choose the rows of every part.

    The test part depends on its own size and the seed only, so that changing the other sizes keeps it.

    Raises:
        InvalidValue: The sizes do not fit, or there are too few groups; its key starts with ``split.``.
    """
    generator = Generator().manual_seed(split.seed)
    left = torch.arange(rows.count) if rows.times is None else torch.sort(rows.times, stable=True).indices
    own = _rows_of_own_parts(rows)
    if rows.named is not None:
        named = named_parts(rows.named, split.parts)
        twice = [part for part in named if part in own]
        require(not twice, "split.parts", split.parts, f"the data have a {' and a '.join(twice)} part of their own")
        left = named.pop("train")
        own |= named
    taken = _so_many(own, rows, split)
    sizes = _sizes({part: size for part, size in _asked(split).items() if part not in taken}, len(left))
    later = [part for part in ("test", "validation") if part in sizes]
    groups = _numbered(rows.groups, split.by, len(later) + 1) if rows.groups is not None else None
    for number, part in enumerate(later):
        if split.order is not None:
            taken[part], left = left[-sizes[part] :], left[: -sizes[part]]
        elif groups is not None:
            taken[part], left = _whole_groups(groups, left, sizes[part], generator, spare=len(later) - number)
        else:
            taken[part], left = _in_proportion(rows.labels, left, sizes[part], generator)
    if split.order is not None:
        left = left[: sizes["train"]]
    elif groups is None:
        left, _ = _in_proportion(rows.labels, left, sizes["train"], generator)
    return Parts(left, taken["validation"], taken["test"])


def exchangeable(rows: Rows, split: RowSplit) -> bool:
    """Whether any row of training could as well be in the validation part: it is drawn, and neither named nor own."""
    named = map(part_named, set(map(str, rows.named or ())))
    return split.by is None and split.order is None and "validation" not in {*rows.own, *named}


def named_parts(values: Sequence[object], column: str | None) -> dict[str, Tensor]:
    """By part, training first, the rows whose value names it; parts without a row are left out.

    Args:
        values: One per row; case does not matter.
        column: What has them, for messages.

    Raises:
        InvalidValue: A value names no part, or none names training; the key is ``split.parts``.
    """
    parts = [part_named(str(value)) for value in values]
    allowed = "each row must have one of " + ", ".join(name for names in PART_NAMES.values() for name in names)
    if None in parts:
        row = parts.index(None)
        raise InvalidValue("split.parts", column, f"{allowed}; {str(values[row])!r} is in row {row + 1}")
    require("train" in parts, "split.parts", column, f"{allowed}, and none is in training")
    rows = {part: [row for row, one in enumerate(parts) if one == part] for part in PART_NAMES}
    return {part: torch.tensor(found) for part, found in rows.items() if found}


def names_parts(texts: Iterable[str]) -> bool:
    """Whether all ``texts`` that are not empty are names of parts, of training and of another one."""
    parts = {part_named(text) for text in set(texts) if text}
    return len(parts) > 1 and None not in parts and "train" in parts


def part_named(text: str) -> str | None:
    """The part that ``text`` is a name of."""
    return next((part for part, names in PART_NAMES.items() if text.strip().lower() in names), None)


def _asked(split: RowSplit) -> dict[str, int | float | None]:
    validation = SHARE if split.validation is None else split.validation
    return {"test": SHARE if split.test is None else split.test, "validation": validation, "train": split.train}


def _sizes(asked: Mapping[str, int | float | None], available: int) -> dict[str, int]:
    """Numbers of rows, those of ``train`` last; shares are rounded, and every part has one row at least.

    Raises:
        UnusableInput: There are fewer rows than parts.
        InvalidValue: The sizes do not fit.
    """
    if available < len(asked):
        parts, many = ", ".join([*asked][::-1]), f"{available} row{'' if available == 1 else 's'}"
        raise UnusableInput(f"The data have {many} to be divided into {parts}: each part needs one at least.")
    shares = [size for size in asked.values() if isinstance(size, float)]
    whole = len(shares) == len(asked) and abs(sum(shares) - 1) < 1e-9  # then training takes what rounding leaves
    sizes: dict[str, int] = {}
    for number, (part, size) in enumerate(asked.items(), start=1):
        left = available - sum(sizes.values()) - (len(asked) - number)
        beside = " beside " + " and ".join(f"{other}={count}" for other, count in sizes.items()) if sizes else ""
        if size is None or (whole and part == "train"):
            rows = left
        else:
            rows = size if isinstance(size, int) else max(1, round(size * available))
        allowed = f"at most {left} of the {available} rows can be its own{beside}"
        require(1 <= rows <= left, f"split.{part}", size, allowed)
        sizes[part] = rows
    return sizes


def _rows_of_own_parts(rows: Rows) -> dict[str, Tensor]:
    """The rows of the parts that the data bring."""
    parts, begin = dict[str, Tensor](), rows.count
    for part, count in rows.own.items():
        parts[part] = torch.arange(begin, begin + count)
        begin += count
    return parts


def _so_many(own: Mapping[str, Tensor], rows: Rows, split: RowSplit) -> dict[str, Tensor]:
    """``own``; so many rows of each, if a size is given."""
    parts: dict[str, Tensor] = {}
    for part, there in own.items():
        count = len(there)
        size = split.test if part == "test" else split.validation
        if size is not None:
            wanted = size if isinstance(size, int) else max(1, round(size * count))
            require(wanted <= count, f"split.{part}", size, f"the data's own {part} part has {count} rows")
            there, _ = _in_proportion(rows.labels, there, wanted, Generator().manual_seed(split.seed))
        parts[part] = there
    return parts


def _in_proportion(labels: Tensor | None, left: Tensor, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """``size`` of the rows ``left``, and the others, both in random order."""
    of_rows = torch.zeros(len(left), dtype=torch.int64) if labels is None else labels[left]
    chosen, others = stratified_indices(of_rows, [size, len(left) - size], generator)
    return left[chosen], left[others]


def _numbered(values: Sequence[object], by: str | None, parts: int) -> Tensor:
    """(N,) int64 numbers of the groups, in the order in which they first appear."""
    numbers: dict[object, int] = {}
    groups = torch.tensor([numbers.setdefault(value, len(numbers)) for value in values])
    if len(numbers) < parts:
        raise InvalidValue("split.by", by, f"it has {len(numbers)} different values, and {parts} parts need one each")
    return groups


def _whole_groups(groups: Tensor, left: Tensor, size: int, generator: Generator, spare: int) -> tuple[Tensor, Tensor]:
    """Groups that come as close to ``size`` rows as their random order allows, and the other rows.

    Args:
        groups: (N,) the group of every row.
        left: The rows that are left.
        size: Rows that are wanted.
        generator: Of the order.
        spare: How many groups the later parts need.
    """
    found, counts = groups[left].unique(return_counts=True)
    order = torch.randperm(len(found), generator=generator)
    chosen: list[int] = []
    rows = 0
    for group, count in zip(found[order].tolist(), counts[order].tolist(), strict=True):
        if len(found) - len(chosen) <= spare:
            break
        if not chosen or abs(rows + count - size) < abs(rows - size):
            chosen.append(group)
            rows += count
    taken = torch.isin(groups[left], torch.tensor(chosen))
    return left[taken], left[~taken]
