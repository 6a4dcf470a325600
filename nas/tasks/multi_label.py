"""Several labels per sample: logistic loss, mean average precision, AUROC."""

import math
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import TargetDataset
from nas.data.labelled import shape_and_type
from nas.data.tables.table_rows import place_of, places_of
from nas.errors import UnusableInput, require
from nas.tasks.task import NOTHING, Measure, Prediction, Reduction, Task, Values, constant_outputs

AVERAGE_PRECISION = Measure("average_precision", "higher", "average precision")
AUROC = Measure("auroc", "higher", "AUROC")
SHARE = Measure("share", "higher", "of the samples", "%")  # what the average precision is without inputs


class MultiLabel(Task):
    """Logits (B, K) for targets (B, K) of 0 and 1.

    Args:
        positive_weight: How much more a label that is there counts than one that is not: a number for all labels, or
            ``balanced``: how often it is not there in the training part over how often it is.
    """

    name = "multi_label"
    glanced = "label_accuracy"
    output = "label"
    measures = (
        Measure("mean_average_precision", "higher", "mAP"),
        Measure("macro_auroc", "higher", "macro AUROC"),
    )

    def __init__(self, positive_weight: float | Literal["balanced"] = 1.0) -> None:
        good = positive_weight == "balanced" or (not isinstance(positive_weight, str) and positive_weight > 0)
        require(good, "positive_weight", positive_weight, "it must be a number above 0 or balanced")
        self.positive_weight = positive_weight
        self.weights, self.shares = torch.ones(1), torch.full((1,), 0.5)

    @property
    def ignorance(self) -> float:
        shares = self.shares
        return float(-(shares * shares.log() + (1 - shares) * (1 - shares).log()).mean())

    def fitted(self, splits: DataSplits) -> tuple["MultiLabel", DataSplits]:
        parts: dict[str, Any] = {}
        for part, dataset in splits.parts.items():
            targets = dataset.targets
            good = isinstance(dataset, TargetDataset) and targets.dim() == 2 and targets.shape[1] >= 2
            if not good:
                raise UnusableInput(
                    f"task=multi_label needs targets (N, K) of 0 and 1, two labels at least; those of {part} of "
                    f"{splits.name} are {shape_and_type(targets)} (of a table: data.target=[a,b])."
                )
            _refuse_other_values(targets, part, splits)
            assert isinstance(dataset, TargetDataset)
            parts[part] = dataset.with_targets(targets.float())
        shares = parts["train"].targets.double().mean(0)
        constant = ((shares == 0) | (shares == 1)).nonzero().flatten().tolist()
        if constant:
            name = splits.target_names[constant[0]] if splits.target_names else str(constant[0])
            always = "in no sample" if shares[constant[0]] == 0 else "in every sample"
            raise UnusableInput(f"The label {name} is {always} of the training part of {splits.name}.")
        task = copy(self)
        task.shares = shares.float()
        weight = (1 - shares) / shares if self.positive_weight == "balanced" else shares * 0 + self.positive_weight
        task.weights = weight.float()
        task.signature = splits.signature_for(len(shares))
        return task, replace(splits, **parts)

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        weights = self.weights.to(outputs)
        each = F.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), pos_weight=weights, reduction="none"
        ).mean(1)
        return each.mean() if reduction == "mean" else each

    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        each = F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none")
        return each.mean(1).sum()

    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs > 0) == (targets > 0.5)).to(torch.float64).mean()

    def metrics(self, device: torch.device) -> "MultiLabelMetrics":
        return MultiLabelMetrics(self.signature.outputs, device)

    def trivial(self, targets: Tensor) -> Tensor:
        return constant_outputs(self.shares.logit(), targets)

    def predictions(self, outputs: Tensor, targets: Tensor, splits: DataSplits) -> list[list[Prediction]]:
        names, probabilities = self.output_names(splits), outputs.double().sigmoid()
        return [
            [
                Prediction(
                    name,
                    f"{of_label:.0f}" if math.isfinite(of_label) else "",
                    "1" if there > 0.5 else "0",
                    f"{there:.4f}",
                )
                for name, of_label, there in zip(names, true, said, strict=True)
            ]
            for true, said in zip(targets.tolist(), probabilities.tolist(), strict=True)
        ]

    def read_targets(self, cells: Sequence[Sequence[Any]], names: Sequence[str]) -> Tensor:
        places = places_of(("False", "True"), ())  # which 0 and 1 are, too
        found = torch.tensor([[place_of(cell, places) - 1 for cell in column] for column in cells]).T
        return torch.where(found < 0, math.nan, found.float())

    def told(self, values: Mapping[str, float]) -> str:
        return f"{super().told(values)} over {self.signature.outputs} labels"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "positive_weight": self.positive_weight, "shares": self.shares.tolist()}

    def words(self, splits: DataSplits) -> str:
        return f"{self.signature.outputs} labels"


def _refuse_other_values(targets: Tensor, part: str, splits: DataSplits) -> None:
    others = ((targets != 0) & (targets != 1)).nonzero().tolist()
    if not others:
        return
    row, column = others[0]
    label = splits.target_names[column] if splits.target_names else column
    own = part == "test" and splits.test_samples  # what the user's file calls it; of other parts nobody knows
    where = f"sample {splits.test_samples[row]}" if own else f"sample {row} of that part, from 0"
    raise UnusableInput(
        f"task=multi_label needs targets of 0 and 1; {len(others):,} of {part} of {splits.name} are neither, the first "
        f"is {targets[row, column].item():g} for label {label} in {where}."
    )


class MultiLabelMetrics:
    """Average precision and area under the ROC curve of each label, averaged over the labels.

    A label that no sample has, or that all have, has no curve and is left out of the means.

    Args:
        labels: K.
        device: Where outputs and targets are.
    """

    def __init__(self, labels: int, device: torch.device) -> None:
        from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision

        unchecked: dict[str, Any] = {"validate_args": False, "sync_on_compute": False, "average": None}
        self._precision = MultilabelAveragePrecision(labels, **unchecked).to(device)
        self._auroc = MultilabelAUROC(labels, **unchecked).to(device)
        self._present = torch.zeros(2, labels, dtype=torch.int64, device=device)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        whole = targets.long()
        # Their own sigmoid would be in single precision, where large logits tie.
        probabilities = outputs.double().sigmoid()
        self._precision.update(probabilities, whole)
        self._auroc.update(probabilities, whole)
        self._present += torch.stack([whole.sum(0), (1 - whole).sum(0)])

    def compute(self) -> dict[str, float]:
        precision, auroc = self._of_each()
        return {"mean_average_precision": float(precision.nanmean()), "macro_auroc": float(auroc.nanmean())}

    def each(self) -> dict[Measure, list[float]]:
        precision, auroc = self._of_each()
        shares = self._present[0].double() / self._present.sum(0)
        return {AVERAGE_PRECISION: precision.tolist(), AUROC: auroc.tolist(), SHARE: shares.tolist()}

    def _of_each(self) -> tuple[Tensor, Tensor]:
        """Average precision and AUROC of each label, (K,); NaN where it has no curve."""
        there = (self._present > 0).all(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the labels that are left out
            precision, auroc = self._precision.compute(), self._auroc.compute()
        return precision.double().where(there, torch.nan), auroc.double().where(there, torch.nan)
