"""The parts of a data set, what fits together among them, and where data come from."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from nas.data.augmentation import Augmentation
from nas.data.dataset import ArrayDataset, Dataset, Findings, ImageDataset, LabelledDataset, TargetDataset
from nas.data.far_values import far_inputs, far_targets
from nas.data.labelled import shape_and_type
from nas.data.own_files import former_names, readable
from nas.data.shared_samples import shared_samples
from nas.data.targets import absent_classes
from nas.distributed import current_ranks
from nas.errors import UnusableInput, listed, require
from nas.signature import Head, Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSplits:
    """The parts of the data set ``name``, and the channel statistics that normalise all of them.

    All data are looked at here, before anything is computed with them: parts that do not fit each other or their
    statistics are refused, and so are images that cannot be read. What is usable but surprising is logged.

    Attributes:
        name: As in ``conf/data/<name>.yaml``.
        train, validation, test: The parts.
        mean, std: One number per channel, with black at 0 and white at 1. A channel of one value, whose deviation is
            0, gets 1: it is centred only.
        class_names: One per class, where the source has names; targets are class numbers then.
        target_names: What is to be learned of each sample, where the source has names.
        categories: How many codes each categorical column has, the last ones of a row.
        head: Whether there is one target per sample, per place, or per token.
        preparation: What was measured to prepare the data, as JSON values: it goes into ``candidate.json``.
        digest: The SHA-256 of the data, where the source has files of a user's.
        former_digests: What runs of earlier versions may have recorded of the same data.
        test_samples: What each sample of the test part is called in them, such as the number of its row.
        epoch_samples: Samples of an epoch, about (:meth:`nas.data.dataset.Dataset.stream`).
        exchangeable: Whether a sample of training could as well be in the validation part, which is drawn at random:
            not one of a group, of a time, or of a part that is said.
        doubt: Why ``class_names`` may be amounts, as a sentence; only a task that is asked for takes them as classes.

    Raises:
        UnusableInput: See above.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()
    head: Head = "point"
    preparation: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    test_samples: Sequence[str | int] = ()
    epoch_samples: int = 0
    exchangeable: bool = True
    doubt: str = ""
    former_digests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = "it must be 0 (an epoch is one pass) or above"
        require(self.epoch_samples >= 0, "epoch_samples", self.epoch_samples, allowed)
        self._make_names_readable()
        self._refuse_parts_that_differ()
        if isinstance(self.train, LabelledDataset):
            self._check_classes(self.train.labels)
        object.__setattr__(self, "mean", self._per_channel("mean", self.mean))
        object.__setattr__(self, "std", self._deviations(self._per_channel("std", self.std)))
        for part, dataset in self.parts.items():
            if isinstance(dataset, ImageDataset):
                self._refuse_foreign_statistics(part, dataset)
        if isinstance(self.train, LabelledDataset):
            self._name_absent_classes()
        if current_ranks().is_first:  # the other ranks have the same files
            self._look_at_the_images()

    @property
    def names(self) -> tuple[str, ...]:
        """All that a run on these data may have called them."""
        return (self.name, *former_names(self.name))

    @property
    def digests(self) -> tuple[str, ...]:
        """All that a run on these data may have recorded of them."""
        return (self.digest, *self.former_digests)

    @property
    def parts(self) -> dict[str, Dataset]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, (C, H, W) of an image."""
        return self.train.input_shape

    @property
    def are_tokens(self) -> bool:
        """Whether the samples are token numbers."""
        return isinstance(self.train, ArrayDataset) and self.train.is_tokens

    @property
    def normalised_channels(self) -> int:
        """How many means and deviations there are: none of token numbers."""
        return 0 if self.are_tokens else self.input_shape[0]

    @property
    def classes(self) -> int:
        """The number of classes of labelled data; of others a task knows what comes out."""
        assert isinstance(self.train, LabelledDataset)
        return self.train.classes

    @property
    def signature(self) -> Signature:
        """What goes into a network for labelled data and what comes out."""
        return Signature(self.input_shape, self.classes)

    def signature_for(self, outputs: int) -> Signature:
        """What goes into a network that predicts so many numbers of a sample."""
        return Signature(self.input_shape, outputs, categories=self.categories, tokens=self.are_tokens)

    def train_and_validation(self) -> Dataset:
        """All samples of the search as one data set: the training data of the retraining."""
        return self.train.joined(self.validation)

    def _make_names_readable(self) -> None:
        names = self.class_names
        object.__setattr__(self, "name", readable(self.name))
        object.__setattr__(self, "class_names", None if names is None else tuple(_all_readable(names)))
        object.__setattr__(self, "test_samples", _all_readable(self.test_samples))

    def _refuse_parts_that_differ(self) -> None:
        for part, dataset in self.parts.items():
            if not isinstance(dataset, Dataset):
                raise UnusableInput(f"The {part} part of {self.name} is a {type(dataset).__name__}, not a Dataset.")
            if not len(dataset):
                raise UnusableInput(f"The {part} part of {self.name} has no samples.")
            if _size(dataset) != _size(self.train):
                raise UnusableInput(
                    f"The parts of {self.name} differ: train has {_size(self.train)}, {part} {_size(dataset)}."
                )
            types = [shape_and_type(one.images[:0]) for one in (self.train, dataset) if isinstance(one, ImageDataset)]
            if len(set(types)) > 1:
                raise UnusableInput(
                    f"The parts of {self.name} differ: train is {types[0].split()[-1]}, {part} {types[1].split()[-1]}."
                )

    def _check_classes(self, labels: Tensor) -> None:
        found = labels.unique().tolist()
        if self.classes < 2 or len(found) < 2:
            of_them = f", and all training images are of {self._class(found[0])}" if self.classes > 1 else ""
            raise UnusableInput(
                f"The data set {self.name} needs at least two classes to tell apart: it has {self.classes}{of_them}."
            )
        if self.class_names is None:
            return
        names = tuple(map(str, self.class_names))
        object.__setattr__(self, "class_names", names)
        if not (len(names) == len(set(names)) == self.classes):
            raise UnusableInput(f"The data set {self.name} has {self.classes} classes, its names are {names}.")

    def _per_channel(self, key: str, values: Sequence[float]) -> tuple[float, ...]:
        channels = self.normalised_channels
        try:
            numbers = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) != channels:
            raise UnusableInput(f"{key}={values} of {self.name} is not one number for each of {channels} channels.")
        lowest = 0.0 if key == "std" else -float("inf")
        if not all(lowest <= number < float("inf") and number > -float("inf") for number in numbers):
            allowed = "finite and 0 or above" if key == "std" else "finite"
            raise UnusableInput(f"{key}={numbers} of {self.name} is not {allowed} in every channel.")
        return numbers

    def _deviations(self, std: tuple[float, ...]) -> tuple[float, ...]:
        """``std`` with 1 for the channels of one value, whose measured deviation is 0 but for rounding."""
        constant = [value <= 1e-9 * max(1.0, abs(mean)) for value, mean in zip(std, self.mean, strict=True)]
        images = len(self.train.input_shape) == 3
        if constant and all(constant):
            what = "pixels of the training images" if images else "training samples"
            raise UnusableInput(
                f"All {what} of {self.name} have one value in every channel "
                f"({listed([f'{mean:g}' for mean in self.mean])}): there is nothing to tell apart."
            )
        if any(constant):
            names = [f"{channel} ({self.mean[channel]:g})" for channel, one in enumerate(constant) if one]
            log.info(
                "%s: all training %s have one value in channel %s; it is centred only, with a deviation of 1.",
                self.name,
                "images" if images else "samples",
                listed(names),
            )
        return tuple(1.0 if one else value for one, value in zip(constant, std, strict=True))

    def _refuse_foreign_statistics(self, part: str, dataset: "ImageDataset") -> None:
        """Refuse values that mean and std do not describe, such as 0 to 255 where they were measured from 0 to 1."""
        sample = dataset.images[:: max(1, len(dataset) // 1000)].double() / dataset.largest_value
        lowest, highest = sample.min().item(), sample.max().item()
        means = sample.mean(dim=(0, 2, 3)).tolist()
        far = max(abs(own - mean) / std for own, mean, std in zip(means, self.mean, self.std, strict=True))
        largest = max(1.0, highest - lowest)
        if (
            far > 20
            or max(self.std) > 2 * largest
            or max(map(abs, self.mean)) > 2 * max(1.0, abs(lowest), abs(highest))
        ):
            raise UnusableInput(
                f"mean={_shown(self.mean)} and std={_shown(self.std)} do not describe the {part} images of "
                f"{self.name}, whose values go from {lowest:g} to {highest:g} (white is 1; channel means "
                f"{_shown(means)})."
            )
        if part == "train" and (lowest < -0.25 or highest > 1.25):
            log.info(
                "%s: the training images have values from %g to %g where 0 is black and 1 is white; "
                "they are taken as they are, and what is cropped beyond an edge is 0.",
                self.name,
                lowest,
                highest,
            )

    def _name_absent_classes(self) -> None:
        labels = {part: dataset.targets for part, dataset in self.parts.items()}
        absent = absent_classes(labels, [self._class(label) for label in range(self.classes)], "image")
        if absent:
            log.info("%s: %s.", self.name, absent)

    def _look_at_the_images(self) -> None:
        found = [dataset.look() for dataset in self.parts.values()]
        unreadable = [image for one in found for image in one.unreadable]
        remarks: Counter[str] = sum((one.remarks for one in found), Counter())
        refuse_unreadable(self.name, Findings(unreadable, remarks), sum(map(len, self.parts.values())))

    def _class(self, label: int) -> str:
        return self.class_names[label] if self.class_names is not None else f"class {label}"


def refuse_unreadable(name: str, findings: Findings, images: int) -> None:
    """Refuse images that cannot be read, and log what is worth a line.

    Args:
        name: What the data set is called.
        findings: What a look at the images has found.
        images: How many were looked at.

    Raises:
        UnusableInput: An image cannot be read.
    """
    unreadable = findings.unreadable
    if len(unreadable) == 1:
        ((file, reason),) = unreadable
        raise UnusableInput(f"The image {file} cannot be read ({reason}): replace or remove it.")
    if unreadable:
        named = listed([f"{file} ({reason})" for file, reason in unreadable], most=3)
        raise UnusableInput(
            f"{len(unreadable):,} of {images:,} images cannot be read: {named}; replace or remove them."
        )
    for remark, count in findings.remarks.items():
        log.info("%s: %s of %s images %s.", name, f"{count:,}", f"{images:,}", remark)


def _size(dataset: Dataset) -> str:
    shape = "x".join(map(str, dataset.input_shape))
    if isinstance(dataset, LabelledDataset):
        return f"{shape} images of {dataset.classes} classes"
    return f"inputs of {shape} and targets of {'x'.join(map(str, dataset.targets.shape[1:])) or 'one number'}"


def _shown(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def loaded(source: "DataSource") -> DataSplits:
    """The data of ``source``, which may be a class of a user's own.

    Raises:
        UnusableInput: It is no data source, or its data cannot be used.
        InvalidValue: See :meth:`DataSource.load`.
    """
    kind = type(source).__name__
    for member in ("name", "augmentation", "load"):
        if not hasattr(source, member):
            raise UnusableInput(f"The data source {kind} has no {member}: it needs name, augmentation and load().")
    if not isinstance(source.augmentation, Augmentation | None):
        given = type(source.augmentation).__name__
        raise UnusableInput(f"The augmentation of the data source {kind} is a {given}, not a nas.data.Augmentation.")
    splits: object = source.load()
    if not isinstance(splits, DataSplits):
        raise UnusableInput(
            f"load() of the data source {kind} gave a {type(splits).__name__}, not nas.data.DataSplits."
        )
    asked = splits.digest and splits.head != "sequence" and current_ranks().is_first  # other ranks have the same files
    shared = shared_samples(splits.parts) if asked else None
    if shared:
        log.info(f"{splits.name}: {shared}")
    if asked:
        for remark in filter(None, _far_values(splits)):
            log.info(f"{splits.name}: {remark}")
    if len(splits.train) < splits.epoch_samples:
        rule = f"an epoch has about {splits.epoch_samples:,} samples, fewer are passed over several times"
        log.info(f"{splits.name}: {rule} (data.epoch_samples=0: once)")
    return splits


def _all_readable(names: Sequence[Any]) -> list[Any]:
    return [readable(one) if isinstance(one, str) else one for one in names]


def _far_values(splits: DataSplits) -> list[str | None]:
    """The remarks on numbers far from all others, in inputs that nothing has standardised yet, and in targets."""
    train, remarks = splits.train, list[str | None]()
    if isinstance(train, ArrayDataset) and train.inputs.is_floating_point() and splits.preparation["kind"] != "table":
        remarks.append(far_inputs(train))
    if isinstance(train, TargetDataset) and splits.class_names is None and splits.head != "dense":
        remarks.append(far_targets(train, splits.target_names))
    return remarks


class DataSource(Protocol):
    """A data set that can be loaded, with the augmentation of its training images."""

    @property
    def name(self) -> str:
        """The data set's name, as in ``conf/data/<name>.yaml``."""

    @property
    def augmentation(self) -> Augmentation:
        """What is done to the training images of every batch."""

    def load(self) -> DataSplits:
        """Read the images into memory, or the list of their files, and split them; all on the CPU.

        Raises:
            UnusableInput: The data are not there or cannot be read.
            InvalidValue: The split or the augmentation does not fit the data; keys start with ``split.`` or
                ``augmentation.``.
        """
