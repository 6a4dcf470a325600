"""Series of a user's own with a target each: gaps filled, lengths made equal, channels standardised."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.data.arrays.gaps import gaps_in_words, interpolated
from nas.data.arrays.series_file import SeriesFile, read_series, refuse_other_files, series_files
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.data.new_samples import NewSamples
from nas.data.own_files import digest_of, name_of
from nas.data.row_split import Rows, RowSplit, drawn_parts, exchangeable
from nas.data.targets import Targets, named_classes, with_classes_of_training
from nas.errors import UnusableInput, listed, require

log = logging.getLogger(__name__)
UNKNOWN = ("", "?", "NaN", "nan")  # labels of nothing known


@dataclass(frozen=True)
class TimeSeries:
    """A :class:`nas.data.data_splits.DataSource` of ``.ts`` and ``.tsv`` files.

    ``<name>_TRAIN`` and ``<name>_TEST`` are the splits; the validation part is drawn from the training file. Gaps are
    interpolated. Shorter series are padded with their channel's mean to the longest one of the training part, longer
    ones are cut.

    Attributes:
        split: Sizes of the parts, and how their series are chosen.
        file: A file, a folder with one pair of them, or the name of a data set that comes with aeon.
        per_series: Whether each channel of each series is standardised by its own mean and deviation, and not by those
            of the training part.
        epoch_samples: Samples of an epoch, about: fewer are passed over several times.
    """

    split: RowSplit
    file: str | None = None
    per_series: bool = False
    epoch_samples: int = 0

    name: ClassVar[str] = "time_series"
    augmentation: ClassVar[None] = None

    def __post_init__(self) -> None:
        require(bool(self.file), "file", self.file, "it must be a .ts or .tsv file, or a folder with one pair of them")
        for key, column in (("by", self.split.by), ("parts", self.split.parts)):
            require(column is None, f"split.{key}", column, "series have no columns")
        require(self.split.order in (None, "time"), "split.order", self.split.order, "it must be time or null")

    def load(self) -> DataSplits:
        file, test_file = series_files(self.file or "")
        files = [file] if test_file is None else [file, test_file]
        name, read = name_of(file), [read_series(one) for one in files]
        _refuse_other_channels(read, [one.name for one in files])
        series = [channels for one in read for channels in one.series]
        targets = _targets(read, file.name)
        own = {"test": len(read[1].series)} if len(read) > 1 else {}
        rows = Rows(len(read[0].series), own, targets.strata)
        parts = drawn_parts(rows, self.split)
        targets = with_classes_of_training(targets, parts, file.name)
        gaps, filled = self._filled(series)
        in_training = [filled[number] for number in parts.train.tolist()]
        length = max(len(values) for channels in in_training for values in channels)
        mean, std = _statistics(in_training, self.per_series)
        inputs = torch.stack([_of_length(channels, length, mean) for channels in filled])
        train, validation, test = (ArrayDataset(inputs[chosen], targets.values[chosen]) for chosen in parts)
        log.info(f"{name}: {len(series):,} series of {len(mean)} x {length}, {self.split.in_words(parts)}")
        lacks_test = test_file is None and file.stem.lower().endswith("_train")
        of_files = [*_strange_labels(read), *_other_lengths(read, [one.name for one in files])]
        for remark in [*_remarks(filled, gaps, length, lacks_test), *of_files]:
            log.info(f"{name}: {remark}")
        return DataSplits(
            name,
            train,
            validation,
            test,
            mean,
            std,
            class_names=targets.class_names,
            target_names=("label" if read[0].are_classes else "target",),
            preparation={
                "kind": "time_series",
                "length": length,
                "mean": list(mean),
                "std": list(std),
                "per_series": self.per_series,
            },
            digest=digest_of(files),
            test_samples=parts.tested(rows, first=1),
            epoch_samples=self.epoch_samples,
            exchangeable=exchangeable(rows, self.split),
        )

    def new_samples(self, path: Path, preparation: Mapping[str, Any]) -> NewSamples:
        """See :class:`nas.data.new_samples.TakesNewSamples`; in a ``.tsv`` file the place of the label is there."""
        refuse_other_files(path)
        read, mean, length = read_series(path, labelled=False), preparation["mean"], preparation["length"]
        if len(read.series[0]) != len(mean):
            raise UnusableInput(
                f"{path.name} has {len(read.series[0])} channels, and the series of the training had {len(mean)}."
            )
        gaps, filled = self._filled(read.series)
        for remark in _remarks(filled, gaps, length, lacks_test=False):
            log.info(f"{path.name}: {remark}")
        inputs = torch.stack([_of_length(channels, length, mean) for channels in filled])
        cells = [["" if label in UNKNOWN else label for label in read.labels]]
        dataset = ArrayDataset(inputs, torch.zeros(len(inputs)))
        return NewSamples(dataset, range(1, len(inputs) + 1), cells if any(cells[0]) else None)

    def _filled(self, series: Sequence[Sequence[Tensor]]) -> tuple[list[int], list[list[Tensor]]]:
        """Of each series how many values were missing, and its channels without gaps."""
        gaps = [sum(int(values.isnan().sum()) for values in channels) for channels in series]
        filled = [[interpolated(values) for values in channels] for channels in series]
        if self.per_series:
            filled = [[_standardised(values) for values in channels] for channels in filled]
        return gaps, filled


def _statistics(
    in_training: Sequence[Sequence[Tensor]], per_series: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel over all training series; 0 and 1 where each series has its own."""
    channels = range(len(in_training[0]))
    if per_series:
        return tuple(0.0 for _ in channels), tuple(1.0 for _ in channels)
    known = [torch.cat([series[channel] for series in in_training]) for channel in channels]
    return tuple(map(_mean, known)), tuple(map(_deviation, known))


def _refuse_other_channels(read: Sequence[SeriesFile], names: Sequence[str]) -> None:
    counts = [len(one.series[0]) for one in read]
    if len(set(counts)) > 1:
        raise UnusableInput(f"{names[0]} has {counts[0]} channels and {names[1]} has {counts[1]}: both need the same.")


def _targets(read: Sequence[SeriesFile], file: str) -> Targets:
    """Classes where the files call them so or labels are texts, otherwise numbers, whole where all of them are."""
    labels = _spelt_alike([label for one in read for label in one.labels])
    unknown = [number for number, label in enumerate(labels) if label in UNKNOWN]
    if unknown:
        named = listed([str(number + 1) for number in unknown])
        has = "has" if len(unknown) == 1 else "have"
        raise UnusableInput(
            f"{len(unknown):,} of {len(labels):,} series of {file} {has} no label: {named}; fill in or remove them."
        )
    try:
        values = torch.tensor([float(label) for label in labels], dtype=torch.float64)
    except ValueError:
        return named_classes(labels)
    if read[0].are_classes:
        return named_classes(labels)
    if not bool(values.isfinite().all()):
        raise UnusableInput(f"{file} has infinite targets.")
    return Targets(values.long() if bool((values == values.round()).all()) else values)


def _spelt_alike(labels: list[str]) -> list[str]:
    """``labels``, of which numbers such as 1 and 1.0 are spelt as the first of them is."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return labels
    first: dict[float, str] = {}
    return [first.setdefault(number, label) for number, label in zip(numbers, labels, strict=True)]


def _other_lengths(read: Sequence[SeriesFile], names: Sequence[str]) -> list[str]:
    """A remark on series that are longer than their head says, as they are where decimals are written with commas."""
    return [
        f"@seriesLength of {name} is {one.stated_length}, and it has series of {one.longest} steps"
        + (": commas part values, and 0,5 is two of them" if one.longest == 2 * one.stated_length else "")
        for one, name in zip(read, names, strict=True)
        if 0 < one.stated_length < one.longest
    ]


def _strange_labels(read: Sequence[SeriesFile]) -> list[str]:
    """A remark on labels that the head of their file does not list; one of them may be mistyped."""
    counts = Counter(
        label for one in read for label in one.labels if one.listed_labels and label.lower() not in one.listed_labels
    )
    strange = [f"{label} ({count:,})" for label, count in sorted(counts.items())]
    return [f"classes that @classLabel does not list: {listed(strange)}"] if strange else []


def _standardised(values: Tensor) -> Tensor:
    return (values - _mean(values)) / _deviation(values)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


def _deviation(values: Tensor) -> float:
    """The standard deviation of all ``values``; 1 where they are one value."""
    found = float(values.std(correction=0)) if len(values) else 0.0
    return found if found > 1e-9 * max(1.0, abs(_mean(values))) else 1.0


def _of_length(channels: Sequence[Tensor], length: int, mean: Sequence[float]) -> Tensor:
    """(C, length) float32, padded by the channel's mean or cut."""
    same = torch.tensor(mean, dtype=torch.float64)[:, None].repeat(1, length)
    for row, values in zip(same, channels, strict=True):
        row[: len(values)] = values[:length]
    return same.float()


def _remarks(series: Sequence[Sequence[Tensor]], gaps: Sequence[int], length: int, lacks_test: bool) -> list[str]:
    lengths = [max(len(values) for values in channels) for channels in series]
    shorter, longer = sum(one < length for one in lengths), sum(one > length for one in lengths)
    found = []
    if lacks_test:
        found.append("there is no file of a test part beside it: the test part is drawn from this one")
    found += gaps_in_words(gaps)
    if uneven := [place for place, one in enumerate(series, start=1) if len({len(values) for values in one} - {0}) > 1]:
        found.append(
            f"{len(uneven):,} series have channels of different lengths, the first is series {uneven[0]}: their "
            "shorter channels are padded with the mean"
        )
    if shorter:
        found.append(f"{shorter:,} series of {min(lengths)} steps or more are padded with the mean to {length}")
    if longer:
        found.append(f"{longer:,} series of up to {max(lengths)} steps are cut to {length}, the longest of training")
    return found
