"""How well a classifier does on given batches."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ClassificationMetrics:
    """Averages over ``samples`` images.

    Attributes:
        loss: The mean cross-entropy, in nats.
        accuracy: The fraction of images whose largest logit is that of their label, 0 to 1.
        macro_f1: The F1 score of each class, averaged over the classes, 0 to 1.
        macro_recall: The recall of each class, averaged over the classes, 0 to 1.
        samples: How many images were seen.

    A class that is neither a label nor a prediction of any image is left out of the macro averages; one that is only
    ever predicted counts with 0.
    """

    loss: float
    accuracy: float
    macro_f1: float
    macro_recall: float
    samples: int


@torch.no_grad()
def measure(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int, device: torch.device
) -> ClassificationMetrics:
    """Run ``network`` in evaluation mode over ``batches``; each module is then back in the mode it was in.

    Every image counts the same whatever the size of its batch. In a data-parallel run these are the metrics of this
    process's batches only.

    Args:
        network: Maps images to logits (batch, classes).
        batches: Pairs of images (batch, channels, height, width) and integer labels (batch).
        classes: How many classes there are.
        device: Where the network is and the batches are moved to.

    Raises:
        ValueError: There is no image in ``batches``.
    """
    # Here and not above: it imports its image and audio metrics too, which takes several seconds.
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall

    # Checking the arguments would wait for the GPU at every batch, and synchronising would hang if only one process of
    # a data-parallel run measures.
    unchecked: dict[str, Any] = {"validate_args": False, "sync_on_compute": False}
    collection = MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro", **unchecked),
            "macro_f1": MulticlassF1Score(classes, average="macro", **unchecked),
            "macro_recall": MulticlassRecall(classes, average="macro", **unchecked),
        }
    ).to(device)
    losses: list[Tensor] = []
    samples = 0
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        for images, labels in batches:
            labels = labels.to(device, non_blocking=True)
            logits = network(images.to(device, non_blocking=True)).float()
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            collection.update(logits, labels)
            samples += len(labels)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if samples == 0:
        raise ValueError("There are no images to measure the network on.")
    averages = collection.compute()
    return ClassificationMetrics(
        loss=math.fsum(torch.stack(losses).tolist()) / samples,
        # torchmetrics divides in single precision; a count over a count is 0.987 and not 0.98699999.
        accuracy=round(float(averages["accuracy"]) * samples) / samples,
        macro_f1=float(averages["macro_f1"]),
        macro_recall=float(averages["macro_recall"]),
        samples=samples,
    )


class RunningMeans:
    """Sums and counts by tag; part of a checkpoint, so that an epoch may be cut in two."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, tag: str, value: Tensor | float) -> None:
        number = torch.as_tensor(value, dtype=torch.float64).detach()
        self._sums[tag] = self._sums[tag] + number if tag in self._sums else number.clone()
        self._counts[tag] = self._counts.get(tag, 0) + 1

    def means(self) -> dict[str, float]:
        return {tag: float(total) / self._counts[tag] for tag, total in self._sums.items()}

    def clear(self) -> None:
        self._sums.clear()
        self._counts.clear()

    def state_dict(self) -> dict[str, tuple[float, int]]:
        return {tag: (float(total), self._counts[tag]) for tag, total in self._sums.items()}

    def load_state_dict(self, state: dict[str, tuple[float, int]]) -> None:
        self._sums = {tag: torch.tensor(total, dtype=torch.float64) for tag, (total, _) in state.items()}
        self._counts = {tag: count for tag, (_, count) in state.items()}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of ``logits`` (batch, classes) whose largest is the label's, 0-dim."""
    return (logits.argmax(-1) == labels).to(torch.float64).mean()
