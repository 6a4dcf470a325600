"""One class per sample: cross-entropy, accuracy and the macro averages."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.augmentation import UNKNOWN_CLASS
from nas.data.data_splits import DataSplits
from nas.data.dataset import LabelledDataset, TargetDataset
from nas.data.labelled import is_one_hot
from nas.data.tables.table_rows import place_of, places_of
from nas.data.targets import absent_classes, alike_classes, joined_labels, number_names, refuse_unseen_classes
from nas.errors import UnusableInput, listed, require
from nas.signature import Signature
from nas.tasks.task import NOTHING, Measure, Prediction, Reduction, Task, Values, constant_outputs

log = logging.getLogger(__name__)
RECALL = Measure("recall", "higher", "recall", "%")
PRECISION = Measure("precision", "higher", "precision", "%")
SAMPLES = Measure("samples", "higher", "samples")


class Classification(Task):
    """Logits (B, classes) and class numbers (B,).

    Args:
        class_weights: How much each class counts in the losses: null for the same, ``balanced`` for the inverse of its
            share of the training part, or a number per class. They are divided by their mean over the training part.
            Measures and reported losses are without them.
    """

    name = "classification"
    glanced = "accuracy"
    output = "class"
    measures = (
        Measure("accuracy", "higher", "accuracy", "%"),
        Measure("macro_f1", "higher", "macro F1", "%"),
        Measure("macro_recall", "higher", "macro recall", "%"),
    )

    def __init__(self, class_weights: Literal["balanced"] | Sequence[float] | None = None) -> None:
        if class_weights is not None and not isinstance(class_weights, str):
            good = len(class_weights) > 0 and all(0 <= weight < math.inf for weight in class_weights)
            require(good and sum(class_weights) > 0, "class_weights", list(class_weights), "numbers of 0 or above")
        good = not isinstance(class_weights, str) or class_weights == "balanced"
        require(good, "class_weights", class_weights, "it must be null, balanced or a list, a number per class")
        self.class_weights = class_weights
        self.weights: Tensor | None = None
        self.shares = torch.ones(1)

    @property
    def ignorance(self) -> float:
        return math.log(self.signature.outputs)

    def fitted(self, splits: DataSplits) -> tuple["Classification", DataSplits]:
        splits = splits if isinstance(splits.train, LabelledDataset) else with_class_numbers(splits)
        classes = splits.train.classes if isinstance(splits.train, LabelledDataset) else len(splits.class_names or ())
        if alike := alike_classes(splits.class_names or ()):
            log.info(f"{splits.name}: classes that differ only in case or blanks: {alike}")
        if several := joined_labels(splits.class_names or ()):
            way = "a column of 0 and 1 for each label, and task=multi_label, tell them apart"
            log.info(f"{splits.name}: classes such as {several!r} may be several labels: {way}")
        task = self.of(splits.signature_for(classes))
        counts = splits.train.targets.bincount(minlength=classes).double()
        task.class_weights, task.shares = self.class_weights, (counts / counts.sum()).float()
        if self.class_weights is not None:
            weights = 1 / counts.clamp(min=1)
            if not isinstance(self.class_weights, str):
                given, allowed = list(self.class_weights), f"{splits.name} has {classes} classes"
                require(len(given) == classes, "class_weights", given, allowed)
                weights = torch.tensor(given, dtype=torch.float64)
            task.weights = (weights / (weights * counts / counts.sum()).sum()).float()
        return task, splits

    @classmethod
    def of(cls, signature: Signature) -> "Classification":
        """Plain classification of what ``signature`` describes."""
        task = cls()
        task.signature = signature
        return task

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        smoothing = values.get("label_smoothing", 0.0)
        if self.weights is None:
            return smoothed_cross_entropy(outputs, targets, smoothing, reduction)
        # A plain mean of weighted losses is linear in the samples, and the ranks of a run average it. PyTorch's own
        # weights divide by the sum of a batch's weights.
        each = self.weights.to(outputs)[targets] * smoothed_cross_entropy(outputs, targets, smoothing, "none")
        return each.mean() if reduction == "mean" else each

    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="sum")

    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(-1) == targets).to(torch.float64).mean()

    def metrics(self, device: torch.device) -> "ClassificationMetrics":
        return ClassificationMetrics(self.signature.outputs, device)

    def trivial(self, targets: Tensor) -> Tensor:
        return constant_outputs(self.shares.clamp(min=1e-9).log(), targets)

    def predictions(self, outputs: Tensor, targets: Tensor, splits: DataSplits) -> list[list[Prediction]]:
        (target,), names = splits.target_names or (self.output,), self.output_names(splits)
        probabilities, classes = outputs.double().softmax(1).max(1)
        found = zip(targets.tolist(), classes.tolist(), probabilities.tolist(), strict=True)
        return [
            [Prediction(target, "" if true < 0 else names[true], names[said], f"{share:.4f}")]
            for true, said, share in found
        ]

    def read_targets(self, cells: Sequence[Sequence[Any]], names: Sequence[str]) -> Tensor:
        places = places_of(names, ())  # TRUE is True, too, and 501 is 00501
        found = torch.tensor([place_of(cell, places) - 1 for cell in cells[0]])
        return torch.where(found < 0, UNKNOWN_CLASS, found)

    def output_names(self, splits: DataSplits) -> list[str]:
        return [*(splits.class_names or map(str, range(self.signature.outputs)))]

    def to_json(self) -> dict[str, Any]:
        weights = self.class_weights
        return {
            "name": self.name,
            "class_weights": weights if weights is None or isinstance(weights, str) else [*weights],
        }

    def words(self, splits: DataSplits) -> str:
        weighted = "" if self.class_weights is None else f", weighted ({self._weights_in_words(splits)})"
        largest = float(self.shares.max())
        return f"classification, {self.signature.outputs} classes, the largest {100 * largest:.0f} %{weighted}"

    def _weights_in_words(self, splits: DataSplits) -> str:
        """``balanced``, or which class has which weight."""
        if self.class_weights is None or isinstance(self.class_weights, str):
            return str(self.class_weights)
        pairs = zip(self.output_names(splits), self.class_weights, strict=True)
        return listed([f"{name} {weight:g}" for name, weight in pairs], most=10)


PLAIN_CLASSIFICATION = Classification()
"""Without weights of classes; as it was fitted to no data, it has a loss and no metrics."""


def with_class_numbers(splits: DataSplits) -> DataSplits:
    """``splits`` with targets from 0 to classes - 1, and the classes' names: those of the source, or their values.

    Raises:
        UnusableInput: There are fewer than two classes, a target is not known, or training has not seen a class.
    """

    for part, dataset in splits.parts.items():
        _refuse_no_classes(part, dataset.targets, splits.name)
    known = _numbers(splits.train.targets)
    if splits.class_names is None:
        values = known.unique()
        truth = splits.train.targets.dtype == torch.bool
        names = tuple(map(str, values.bool().tolist()) if truth else number_names(values.tolist()))
    else:
        values, names = torch.arange(len(splits.class_names)), tuple(splits.class_names)
    if len(known.unique()) < 2:
        only = f": all {len(known):,} samples are of {names[int(known[0])] if splits.class_names else names[0]}"
        raise UnusableInput(
            f"The data set {splits.name} needs at least two classes in its training part{only if len(known) else ''}."
        )
    parts: dict[str, Any] = {}
    for part, dataset in splits.parts.items():
        assert isinstance(dataset, TargetDataset)
        targets = _numbers(dataset.targets)
        refuse_unseen_classes(part, targets, known, splits.class_names, splits.name)
        parts[part] = dataset.with_targets(torch.searchsorted(values, targets.to(values.dtype)))
    absent = absent_classes({part: dataset.targets for part, dataset in parts.items()}, names, "sample")
    if absent:
        log.info(f"{splits.name}: {absent}")
    return replace(splits, class_names=names, **parts)


def _refuse_no_classes(part: str, targets: Tensor, owner: str) -> None:
    if targets.dim() != 1:
        of_classes = targets.dim() == 2 and targets.shape[1] > 1 and is_one_hot(targets)
        way = ": each row has one 1, y.argmax(1) makes them classes" if of_classes else ""
        raise UnusableInput(
            f"The targets of {part} of {owner} are {tuple(targets.shape)}, not one class per sample{way}."
        )
    unknown = (~targets.isfinite()).nonzero().flatten().tolist()
    if unknown:
        first = ", ".join(map(str, unknown[:5]))
        raise UnusableInput(f"{len(unknown):,} samples of {part} have no known class: {first} first.")


def _numbers(targets: Tensor) -> Tensor:
    return targets.long() if targets.dtype == torch.bool else targets


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor | float, reduction: Reduction) -> Tensor:
    """As :func:`torch.nn.functional.cross_entropy` with smoothed labels (Szegedy et al., 2016).

    It is differentiable in a ``smoothing`` that is a tensor.
    """
    if not isinstance(smoothing, Tensor):
        return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction=reduction)
    # The uniform distribution's cross-entropy is the one that smoothing 1 would give: the loss is linear in between.
    sharp = F.cross_entropy(logits, labels, reduction=reduction)
    uniform = -logits.log_softmax(1).mean(1)
    return sharp + smoothing.to(logits) * ((uniform.mean() if reduction == "mean" else uniform) - sharp)


class ClassificationMetrics:
    """Accuracy, and the F1 score and the recall of each class averaged over the classes, all from 0 to 1.

    A class that is neither a label nor a prediction of any sample is left out of the macro averages; one that is only
    ever predicted counts with 0.

    Args:
        classes: How many classes there are.
        device: Where logits and labels are.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        # Here and not above: it imports its image and audio metrics too, which takes several seconds.
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall

        # Checking the arguments would wait for the GPU at every batch, and synchronising would hang if only one process
        # of a data-parallel run measures.
        unchecked: dict[str, Any] = {"validate_args": False, "sync_on_compute": False}
        self._collection = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro", **unchecked),
                "macro_f1": MulticlassF1Score(classes, average="macro", **unchecked),
                "macro_recall": MulticlassRecall(classes, average="macro", **unchecked),
            }
        ).to(device)
        self._samples = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self._collection.update(outputs, targets)
        self._samples += len(targets)

    def compute(self) -> dict[str, float]:
        averages = {name: float(value) for name, value in self._collection.compute().items()}
        # torchmetrics divides in single precision; a count over a count is 0.987 and not 0.98699999.
        return averages | {"accuracy": round(averages["accuracy"] * self._samples) / self._samples}

    def each(self) -> dict[Measure, list[float]]:
        counts: Any = self._collection["macro_recall"]  # torchmetrics' own, of the samples of each class
        hits, there, said = counts.tp.double(), counts.tp + counts.fn, counts.tp + counts.fp
        return {RECALL: (hits / there).tolist(), PRECISION: (hits / said).tolist(), SAMPLES: there.tolist()}
