"""A prediction for every place of an image or a series: its class, or numbers."""

import logging
import math
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.augmentation import UNKNOWN_CLASS
from nas.data.data_splits import DataSplits
from nas.data.dataset import TargetDataset
from nas.data.labelled import is_one_hot
from nas.errors import UnusableInput, listed, require
from nas.signature import Signature
from nas.tasks.regression import StandardisedNumbers, known_difference
from nas.tasks.task import NOTHING, Measure, Reduction, Task, Values

log = logging.getLogger(__name__)
OVERLAP = Measure("iou", "higher", "IoU")
SHARE = Measure("share", "higher", "of the places", "%")


class DenseClassification(Task):
    """Logits (B, K, ...) and classes (B, ...) of the places; the loss is averaged within a sample, then over samples.

    Args:
        ignore: The class that counts in no loss and in no measure, as the data have it.
    """

    name = "dense_classification"
    glanced = "place_accuracy"
    output = "class"
    measures = (
        Measure("mean_iou", "higher", "mean IoU"),
        Measure("place_accuracy", "higher", "place accuracy", "%"),
    )

    def __init__(self, ignore: int | None = None) -> None:
        self.ignore = ignore
        self.shares = torch.ones(1)

    @property
    def ignorance(self) -> float:
        return math.log(self.signature.outputs)

    def fitted(self, splits: DataSplits) -> tuple["DenseClassification", DataSplits]:
        ignored = self._number_of_ignored(splits)
        raw = {}
        for part in splits.parts:
            raw[part] = _class_numbers(_of_places(self, splits, part), part, splits)
            raw[part] = torch.where(raw[part] == ignored, UNKNOWN_CLASS, raw[part])
            _refuse_unknown_samples(splits, part, (raw[part] != UNKNOWN_CLASS).flatten(1).any(1))
        values = raw["train"].unique()
        values = values[values != UNKNOWN_CLASS]
        if len(values) < 2:
            raise UnusableInput(f"All known places of the training part of {splits.name} are of one class.")
        strangers = torch.cat([raw[part].unique() for part in splits.parts])
        strangers = strangers[~torch.isin(strangers, values) & (strangers != UNKNOWN_CLASS)].unique()
        if len(strangers):
            called = splits.class_names or ()
            found = listed([called[value] if called else str(value) for value in strangers.tolist()])
            amounts = "" if called else "; if they are amounts, say task=dense_regression"
            raise UnusableInput(
                f"validation or test of {splits.name} has classes that its training part has not: {found}; "
                f"task.ignore=... leaves one out{amounts}."
            )
        parts: dict[str, Any] = {}
        for part, dataset in splits.parts.items():
            assert isinstance(dataset, TargetDataset)
            numbers = torch.searchsorted(values, raw[part])
            parts[part] = dataset.with_targets(torch.where(raw[part] == UNKNOWN_CLASS, UNKNOWN_CLASS, numbers))
        own = splits.class_names
        names = tuple(str(value) if own is None else own[value] for value in values.tolist())
        if remark := _void_class(names):
            log.info(f"{splits.name}: {remark}")
        task = copy(self)
        task.signature = Signature(splits.input_shape, len(values), "dense")
        known = parts["train"].targets
        counts = known[known != UNKNOWN_CLASS].bincount(minlength=len(values)).double()
        task.shares = (counts / counts.sum()).float()
        return task, replace(splits, class_names=names, **parts)

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        known = (targets != UNKNOWN_CLASS).flatten(1)
        each = F.cross_entropy(outputs, targets, reduction="none", ignore_index=UNKNOWN_CLASS).flatten(1)
        losses = each.sum(1) / known.sum(1).clamp(min=1)  # a crop may leave no known place
        return losses.mean() if reduction == "mean" else losses

    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, reduction="none").sum()

    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        known = targets != UNKNOWN_CLASS
        hits = (outputs.argmax(1) == targets) & known
        return hits.sum().to(torch.float64) / known.sum().clamp(min=1)

    def metrics(self, device: torch.device) -> "Confusion":
        return Confusion(self.signature.outputs, device)

    def trivial(self, targets: Tensor) -> Tensor:
        logits = self.shares.clamp(min=1e-9).log().to(targets.device)
        shape = (len(targets), len(logits), *targets.shape[1:])
        return logits.view(1, -1, *[1] * (targets.dim() - 1)).expand(shape)

    def places(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return targets, outputs.argmax(1)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "ignore": self.ignore}

    def words(self, splits: DataSplits) -> str:
        return f"classification of every place, {self.signature.outputs} classes"

    def _number_of_ignored(self, splits: DataSplits) -> int:
        """The number that stands for the ignored class in the targets; names are those of the values as they were."""
        if self.ignore is None:
            return UNKNOWN_CLASS
        if splits.class_names is None:
            there = any(bool((part.targets == self.ignore).any()) for part in splits.parts.values())
            require(there, "ignore", self.ignore, f"no target of {splits.name} is of this class")
            return self.ignore
        has = ", ".join(splits.class_names[:20])
        require(str(self.ignore) in splits.class_names, "ignore", self.ignore, f"{splits.name} has {has}")
        return splits.class_names.index(str(self.ignore))


class Confusion:
    """Counts of (class, prediction) over all known places.

    Intersection over union is averaged over the classes that are there or are predicted somewhere.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self._counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        known, classes = targets != UNKNOWN_CLASS, len(self._counts)
        pairs = targets[known] * classes + outputs.argmax(1)[known]
        self._counts += pairs.bincount(minlength=classes**2).view(classes, classes)

    def compute(self) -> dict[str, float]:
        counts, overlap = self._counts.double(), self._overlaps()
        return {
            "mean_iou": float(overlap[~overlap.isnan()].mean()),
            "place_accuracy": float(counts.diag().sum() / counts.sum()),
        }

    def each(self) -> dict[Measure, list[float]]:
        shares = self._counts.sum(1).double() / self._counts.sum()
        return {OVERLAP: self._overlaps().tolist(), SHARE: shares.tolist()}

    def _overlaps(self) -> Tensor:
        """Intersection over union of each class, (K,); NaN where it is nowhere."""
        counts = self._counts.double()
        return counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag())


class DenseRegression(StandardisedNumbers):
    """Outputs (B, K, ...) and numbers (B, K, ...) or (B, ...) of the places, standardised by the training part.

    NaN is a number that is not known.

    Args:
        loss: ``squared``: the squared error of standardised numbers, averaged within a sample, then over samples.
            ``relative``: the norm of a sample's error over the norm of its targets, in their own units.
    """

    name = "dense_regression"
    glanced = "standardised_error"  # absolute, in standard deviations of the training part
    measures = (
        Measure("relative_error", "lower", "relative error"),
        Measure("rmse", "lower", "RMSE"),
        Measure("r2", "higher", "R²"),
    )

    def __init__(self, loss: Literal["squared", "relative"] = "squared") -> None:
        require(loss in ("squared", "relative"), "loss", loss, "it must be squared or relative")
        self.error = loss
        self.mean, self.deviation = torch.zeros(1), torch.ones(1)

    def fitted(self, splits: DataSplits) -> tuple["DenseRegression", DataSplits]:
        raw = {}
        for part in splits.parts:
            if splits.class_names is not None:
                raise UnusableInput(f"The places of {splits.name} have classes: take task=dense_classification.")
            targets = _of_places(self, splits, part, channels=True).double()
            if bool(targets.isinf().any()):
                raise UnusableInput(f"{int(targets.isinf().sum()):,} targets of {part} of {splits.name} are infinite.")
            _refuse_unknown_samples(splits, part, targets.isfinite().flatten(1).any(1))
            raw[part] = targets
        columns = raw["train"].transpose(0, 1).flatten(1)
        mean = columns.nanmean(1)
        deviation = ((columns - mean[:, None]) ** 2).nanmean(1).sqrt()
        if not bool((deviation > 0).all()):
            raise UnusableInput(f"The targets of {splits.name} are the same at all places of train.")
        task = copy(self)
        task.mean, task.deviation = mean, deviation
        task.signature = Signature(splits.input_shape, len(mean), "dense")
        parts: dict[str, Any] = {}
        for part, dataset in splits.parts.items():
            assert isinstance(dataset, TargetDataset)
            parts[part] = dataset.with_targets(((raw[part] - task._wide(mean)) / task._wide(deviation)).float())
        return task, replace(splits, **parts)

    def _wide(self, values: Tensor) -> Tensor:
        """(K,) as (1, K, 1, ...)."""
        return values.view(1, -1, *[1] * self.signature.rank)

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        known, difference = targets.isfinite(), known_difference(outputs, targets)
        if self.error == "squared":
            losses = (difference**2).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
        else:
            losses = self._relative_errors(difference, targets)
        return losses.mean() if reduction == "mean" else losses

    def _relative_errors(self, difference: Tensor, targets: Tensor) -> Tensor:
        scale, shift = self._wide(self.deviation).to(difference), self._wide(self.mean).to(difference)
        true = torch.where(targets.isfinite(), targets.to(difference.dtype) * scale + shift, 0.0)
        tiny = torch.finfo(difference.dtype).tiny  # the root of 0 has no derivative
        squared = (difference * scale).square().flatten(1).sum(1)
        return (squared + tiny).sqrt() / (true.square().flatten(1).sum(1) + tiny).sqrt()

    def metrics(self, device: torch.device) -> "FieldMetrics":
        return FieldMetrics(self, device)

    def trivial(self, targets: Tensor) -> Tensor:
        return torch.zeros_like(targets)

    def predicted(self, outputs: Tensor) -> Tensor:
        """``outputs`` in the targets' own units, float64."""
        scale, shift = self._wide(self.deviation).to(outputs.device), self._wide(self.mean).to(outputs.device)
        return outputs.double() * scale + shift

    def places(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.predicted(targets), self.predicted(outputs)

    def told(self, values: Mapping[str, float]) -> str:
        return f"relative error {values['relative_error']:.4f} (R² {values['r2']:z.2f})"

    def words(self, splits: DataSplits) -> str:
        return f"regression of {self.signature.outputs} number{'s' * (self.signature.outputs > 1)} at every place"


class FieldMetrics:
    """The mean of the samples' relative errors, and RMSE and R² over all known places, in double precision."""

    def __init__(self, task: DenseRegression, device: torch.device) -> None:
        self._task = task
        self._sums = torch.zeros(4, task.signature.outputs, dtype=torch.float64, device=device)
        self._relative, self._samples = torch.zeros((), dtype=torch.float64, device=device), 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        outputs, known = outputs.double(), targets.isfinite()
        difference = torch.where(known, outputs - targets.double(), 0.0)
        self._relative += self._task._relative_errors(difference, targets).sum()
        self._samples += len(targets)
        numbers = targets.double().nan_to_num()
        terms = (known.double(), numbers, numbers**2, difference**2)
        self._sums += torch.stack([term.transpose(0, 1).flatten(1).sum(1) for term in terms])

    def compute(self) -> dict[str, float]:
        count, total, squares, errors = self._sums
        deviation = self._task.deviation.to(count.device)
        return {
            "relative_error": float(self._relative) / self._samples,
            "rmse": float(((errors / count).sqrt() * deviation).mean()),
            "r2": float((1 - errors / (squares - total**2 / count)).mean()),
        }


def _of_places(task: Task, splits: DataSplits, part: str, channels: bool = False) -> Tensor:
    """The targets of a part, (N, ...), or (N, K, ...) with ``channels``.

    Raises:
        UnusableInput: There is not a target for every place.
    """
    dataset = splits.parts[part]
    targets, places = dataset.targets, splits.input_shape[1:]
    wide = targets[:, None] if channels and targets.dim() == 1 + len(places) else targets
    good = len(places) > 0 and wide.dim() == len(places) + 1 + channels and wide.shape[1 + channels :] == places
    if not good or not isinstance(dataset, TargetDataset):
        shape = "x".join(map(str, splits.input_shape))
        deeper = targets.dim() == 2 + len(places) and not channels
        of_classes = deeper and is_one_hot(targets)
        way = "; a channel per class has the 1, and its number is wanted, as y.argmax gives it" if of_classes else ""
        raise UnusableInput(
            f"task={task.name} needs a target for every place of inputs {shape}; those of {part} of {splits.name} are "
            f"{tuple(targets.shape[1:]) or 'one'} per sample{way}."
        )
    return wide


def _void_class(names: tuple[str, ...]) -> str | None:
    """A remark on 255 or -1 beside classes that are counted from 0, which often stands for what nobody knows."""
    for void, others in ((names[-1], names[:-1]), (names[0], names[1:])):
        if void in ("255", "-1") and len(others) > 1 and others == tuple(map(str, range(len(others)))):
            return f"{void} is a class as the others are; task.ignore={void} leaves it out, if it means unknown"
    return None


def _class_numbers(targets: Tensor, part: str, splits: DataSplits) -> Tensor:
    """``targets`` as int64; a class that is not known, NaN, is ``UNKNOWN_CLASS``.

    Raises:
        UnusableInput: One has a fraction, and is no class.
    """
    if not targets.is_floating_point():
        return targets.long()
    known = targets.isfinite()
    broken = targets[known & (targets != targets.round())]
    if len(broken):
        raise UnusableInput(
            f"task=dense_classification needs whole numbers, a class for each place; {len(broken):,} of {part} of "
            f"{splits.name} have fractions, such as {broken[0].item():g}: task=dense_regression takes them as amounts."
        )
    return torch.where(known, targets, UNKNOWN_CLASS).long()


def _refuse_unknown_samples(splits: DataSplits, part: str, known: Tensor) -> None:
    unknown = (~known).nonzero().flatten().tolist()
    if unknown:
        first = ", ".join(map(str, unknown[:5]))
        raise UnusableInput(
            f"{len(unknown):,} of {len(known):,} samples of {part} of {splits.name} have no known place: {first} first."
        )
