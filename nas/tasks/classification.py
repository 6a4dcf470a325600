"""One class per sample: cross-entropy, accuracy and the macro averages."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.dataset import DataSplits
from nas.signature import Signature
from nas.tasks.task import NOTHING, Measure, Reduction, Task, Values


class Classification(Task):
    """Logits (B, classes) and class numbers (B,)."""

    name = "classification"
    glanced = "accuracy"
    measures = (
        Measure("accuracy", "higher", "accuracy", "%"),
        Measure("macro_f1", "higher", "macro F1", "%"),
        Measure("macro_recall", "higher", "macro recall", "%"),
    )

    def __init__(self) -> None:
        self.classes = 0

    @property
    def ignorance(self) -> float:
        return math.log(self.classes)

    def fitted(self, splits: DataSplits) -> tuple["Classification", DataSplits]:
        return self.of(splits.signature), splits

    @classmethod
    def of(cls, signature: Signature) -> "Classification":
        """Plain classification of what ``signature`` describes."""
        task = cls()
        task.classes, task.signature = signature.outputs, signature
        return task

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        return smoothed_cross_entropy(outputs, targets, values.get("label_smoothing", 0.0), reduction)

    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="sum")

    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(-1) == targets).to(torch.float64).mean()

    def metrics(self, device: torch.device) -> "ClassificationMetrics":
        return ClassificationMetrics(self.classes, device)


PLAIN_CLASSIFICATION = Classification()
"""Without weights of classes; as it was fitted to no data, it has a loss and no metrics."""


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
