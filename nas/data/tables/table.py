"""A table of a user's own: CSV or Parquet, a row per sample, one or more of its columns the target."""

import filecmp
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from nas.configuration import optional_module
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.data.new_samples import NewSamples
from nas.data.own_files import digest_of, name_of, path_of
from nas.data.row_split import Rows, RowSplit, drawn_parts, exchangeable
from nas.data.tables.csv_format import CsvFormat, suggested_format
from nas.data.tables.dividing_columns import groups_of, times_of
from nas.data.tables.table_columns import (
    are_numbers,
    as_amounts,
    as_said,
    count_rows,
    inputs_among,
    joined,
    refuse_gaps,
    require_columns,
    targets_among,
)
from nas.data.tables.table_file import Column, is_parquet, read_table
from nas.data.tables.table_preparation import TablePreparation, fitted_preparation
from nas.data.tables.table_remarks import parted_thousands, remarks_on
from nas.data.targets import with_classes_of_training
from nas.errors import InvalidValue, UnusableInput, listed, require
from nas.typed_settings import override

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """A :class:`nas.data.data_splits.DataSource`: the inputs are all columns but the target's.

    Numbers are filled by the median and standardised, gaps have an input that tells of them, texts become codes. What
    is measured for that is measured on the training part (:mod:`nas.data.tables.table_preparation`).

    Attributes:
        split: Sizes of the parts, and how their rows are chosen.
        csv: How a text file is read.
        file: CSV or Parquet, relative to the working directory.
        target: A column, or several of numbers.
        ignore: Columns that are no inputs.
        categorical: Columns of numbers that are names.
        numeric: Columns of texts that are numbers, or of numbers that count the rows.
        test_file: A table with the test part.
        missing: What stands for a missing value beside an empty cell, ``NA``, ``NaN`` and the like.
        epoch_samples: Samples of an epoch, about: fewer are passed over several times.
    """

    split: RowSplit
    csv: CsvFormat
    file: str | None = None
    target: str | Sequence[str] | None = None
    ignore: Sequence[str] = ()
    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    test_file: str | None = None
    missing: Sequence[str | float] = ()
    epoch_samples: int = 0

    name: ClassVar[str] = "table"
    augmentation: ClassVar[None] = None

    def __post_init__(self) -> None:
        require(bool(self.file), "file", self.file, "it must be the path of a CSV or Parquet file")
        once = len(set(self.targets)) == len(self.targets)
        require(once, "target", self.target, "it must have each name once")

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the target's columns."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target or ())

    def load(self) -> DataSplits:
        files = [path_of(file) for file in (self.file, self.test_file) if file]
        shown = files[0].name
        if not self.target:
            self._refuse_no_target(files[0])
        columns = read_table(files[0], self.csv, self.missing)
        dividing = self._dividing(columns, shown)
        count, own = count_rows(columns), dict[str, int]()
        if len(files) > 1:
            columns = self._with_test_file(columns, files, dividing)
            own = {"test": count_rows(columns) - count}
        columns = as_said(columns, self.numeric, self.categorical, shown)
        others = (*self.targets, *dividing)
        inputs = inputs_among(columns, others, self.ignore, self.numeric, self.categorical, shown)
        targets = targets_among(columns, self.targets, shown, self.numeric)
        groups = groups_of(columns, self.split.by, count, shown)
        times = times_of(columns, self.split.order, count, shown)
        named = groups_of(columns, self.split.parts, count, shown, "split.parts")
        rows = Rows(count, own, targets.strata, groups, times, named)
        parts = drawn_parts(rows, self.split)
        targets = with_classes_of_training(targets, parts, shown, as_amounts(columns, self.targets, self.numeric))
        left_out = [name for name in columns if name not in inputs and name not in self.targets]
        fitted = fitted_preparation(inputs, parts.train, self.targets, left_out, shown)
        preparation = replace(fitted.preparation, missing=tuple(self.missing), decimal=self.csv.decimal)
        values = _prepared(inputs, preparation, shown)
        train, validation, test = (ArrayDataset(values[chosen], targets.values[chosen]) for chosen in parts)
        name = name_of(files[0])
        many = count + sum(own.values())
        log.info(f"{name}: {many:,} rows, {self.split.in_words(parts)}; {_in_words(preparation)}")
        said = [*self._remarks_on_columns(columns, inputs, dividing), *fitted.remarks]
        for remark in (*said, *remarks_on(inputs, targets, parts.train, self.missing)):
            log.info(f"{name}: {remark}")
        return DataSplits(
            name,
            train,
            validation,
            test,
            mean=(0.0,) * values.shape[1],  # the preparation has standardised them, in double precision
            std=(1.0,) * values.shape[1],
            class_names=targets.class_names,
            target_names=self.targets,
            categories=preparation.categories,
            preparation=preparation.to_json(),
            digest=digest_of(files),
            test_samples=parts.tested(rows, first=1),
            epoch_samples=self.epoch_samples,
            exchangeable=exchangeable(rows, self.split),
        )

    def new_samples(self, path: Path, preparation: Mapping[str, Any]) -> NewSamples:
        """See :class:`nas.data.new_samples.TakesNewSamples`; columns that are no inputs may be there."""
        prepared, shown = TablePreparation.from_json(preparation), path.name
        columns, inputs = read_table(path, self.csv, self.missing, "the new data"), prepared.inputs
        if lacking := [name for name in inputs if name not in columns]:
            many = f"the column{'s' if len(lacking) > 1 else ''} {listed(lacking, most=10)}"
            raise UnusableInput(
                f"{shown} lacks {many}: the network takes {listed(inputs, most=20)}, and {shown} has "
                f"{listed(list(columns), most=20)}."
            )
        if strange := [one for one in columns if one not in (*inputs, *prepared.targets, *prepared.left_out)]:
            log.info(f"{shown}: left out, as the training had no such column: {listed(strange, most=10)}")
        values = _prepared({name: columns[name] for name in inputs}, prepared, shown)
        codes = zip(prepared.categorical, values.unbind(1)[values.shape[1] - len(prepared.categorical) :], strict=True)
        unknown = {one.name: set((place == 0).nonzero().flatten().tolist()) for one, place in codes}
        unseen = {name: rows - set(columns[name].missing.tolist()) for name, rows in unknown.items()}
        if said := [f"{name} ({len(rows):,})" for name, rows in unseen.items() if rows]:
            log.info(f"{shown}: texts that the training had not, which count as unknown: {listed(said, most=10)}")
        count = len(values)
        cells = [columns[name].cells if name in columns else [""] * count for name in prepared.targets]
        there = any(name in columns for name in prepared.targets)
        return NewSamples(ArrayDataset(values, torch.zeros(count)), range(1, count + 1), cells if there else None)

    def _refuse_no_target(self, file: Path) -> NoReturn:
        """Refuse to go on without a target, with the columns that there are and all settings that read them."""
        csv, read_so = self.csv, ""
        if file.is_file() and not is_parquet(file):
            csv = suggested_format(optional_module("pandas", "table"), file, csv)
        if wanted := csv.typed_from(self.csv):
            read_so = f", read with {wanted}"
        columns = listed(list(read_table(file, csv, self.missing)), most=20)
        allowed = f"it must be the name of a column, or a list of names; {file.name} has {columns}{read_so}"
        raise InvalidValue("target", self.target, allowed)

    def _with_test_file(
        self, columns: Mapping[str, Column], files: Sequence[Path], dividing: Sequence[str]
    ) -> dict[str, Column]:
        """``columns`` of the first of the two ``files``, and below them the rows of the second."""
        test = read_table(files[1], self.csv, self.missing, "data.test_file")
        other = not filecmp.cmp(files[0], files[1], shallow=False)
        require(other, "test_file", self.test_file, "it has the same content as data.file, which is trained on")
        for table, file in zip((columns, test), files, strict=True):
            refuse_gaps(table, self.targets, file.name)
        return joined(columns, test, (*self.ignore, *dividing), files[1].name)

    def _remarks_on_columns(
        self, columns: Mapping[str, Column], inputs: Collection[str], dividing: Sequence[str]
    ) -> list[str]:
        """What is worth a line about the kinds that columns were taken for."""
        remarks = []
        read = {name: columns[name] for name in (*inputs, *self.targets)}
        if codes := [name for name, column in read.items() if column.kind == "code"]:
            why = "zeros in front, or more digits than an amount has"
            shown = listed(codes, most=10)
            remarks.append(f"taken as codes ({why}): {shown}; data.numeric takes them as numbers")
        unasked = {name: column for name, column in read.items() if name not in self.categorical}
        if of_frame := [name for name, one in unasked.items() if one.kind == "category" and are_numbers(one)]:
            shown = listed(of_frame, most=10)
            remarks.append(
                f"taken as categories, as the data frame had them: {shown}; data.numeric takes them as numbers"
            )
        is_text = not is_parquet(path_of(str(self.file)))
        if is_text and (parted := parted_thousands(read, self.csv.decimal)):
            remarks.append(parted)
        named = {*inputs, *self.targets, *dividing, *self.ignore}
        if index := [one for one in columns if columns[one].names_rows and one not in named]:
            remarks.append(f"left out, an index that names the rows: {listed(index)}")
        said = {*self.numeric, *self.categorical}
        if taken := [one for one in inputs if columns[one].is_index and one not in said]:
            way = f"{override('ignore', [*self.ignore, *taken])} leaves it out"
            groups = "data.split.by=<column> keeps the rows of one value in one part"
            remarks.append(f"taken as an input, the index of a data frame: {listed(taken)}; {way}, {groups}")
        return remarks

    def _dividing(self, columns: Mapping[str, Column], file: str) -> tuple[str, ...]:
        """The columns that rows are split by, after a look at all names that the settings have."""
        for key, names in (("target", self.targets), ("ignore", self.ignore), ("categorical", self.categorical)):
            require_columns(key, names, columns, file)
        require_columns("numeric", self.numeric, columns, file)
        for name in self.ignore:
            require(name not in self.targets, "ignore", name, "it is the target")
        for name in self.categorical:
            require(name not in self.numeric, "categorical", name, "it is in data.numeric, too")
        for key, column in self.split.columns.items():
            require_columns(key, [column], columns, file)
        dividing = (self.split.by, self.split.order, self.split.parts)
        return tuple(name for name in dividing if name is not None and name in columns)


def _prepared(inputs: Mapping[str, Column], preparation: TablePreparation, file: str) -> Tensor:
    try:
        return preparation({name: column.values for name, column in inputs.items()})
    except ValueError as error:
        raise UnusableInput(f"{file}: {error}: correct it, or leave the column out by data.ignore.") from None


def _in_words(preparation: TablePreparation) -> str:
    texts = [f"{column.name} {len(column.values)}" for column in preparation.categorical]
    of_texts = (
        f" and {len(texts)} of texts ({', '.join(texts[:5])}{', ...' if len(texts) > 5 else ''})" if texts else ""
    )
    numeric = len(preparation.numeric)
    return f"{numeric} column{'' if numeric == 1 else 's'} of numbers{of_texts}"
