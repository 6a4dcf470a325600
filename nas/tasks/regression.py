"""Numbers to be predicted: the error of standardised targets, R², RMSE and MAE."""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import TargetDataset
from nas.data.tables.table_rows import float_of
from nas.errors import UnusableInput, listed, require
from nas.tasks.task import NOTHING, Measure, Prediction, Reduction, Task, Values, constant_outputs

Error = Literal["squared", "huber", "absolute"]


class StandardisedNumbers(Task):
    """Numbers, standardised by the ``mean`` and the ``deviation`` (K,) of those of the training part.

    Attributes:
        error: What the loss is.
    """

    error: str
    mean: Tensor
    deviation: Tensor

    @property
    def ignorance(self) -> float:
        return 1.0

    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, reduction="none").sum()

    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_absolute_difference(outputs, targets)

    def target_scale(self) -> tuple[list[float], list[float]]:
        return self.mean.tolist(), self.deviation.tolist()

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "loss": self.error, "mean": self.mean.tolist(), "std": self.deviation.tolist()}


class Regression(StandardisedNumbers):
    """Outputs (B, K) for targets (B, K), standardised by the training part; NaN is a target that is not known.

    Args:
        loss: The error of a standardised target: its square, its absolute value, or Huber's, which is half of the
            square up to 1 and grows by 1 beyond.
    """

    name = "regression"
    glanced = "standardised_error"  # absolute, in standard deviations of the training part
    measures = (
        Measure("r2", "higher", "R²"),
        Measure("rmse", "lower", "RMSE"),
        Measure("mae", "lower", "MAE"),
    )

    def __init__(self, loss: Error = "squared") -> None:
        require(loss in ("squared", "huber", "absolute"), "loss", loss, "it must be squared, huber or absolute")
        self.error: Error = loss
        self.mean, self.deviation = torch.zeros(1), torch.ones(1)

    def fitted(self, splits: DataSplits) -> tuple["Regression", DataSplits]:
        raw = {part: _numbers(splits, part) for part in splits.parts}
        known = raw["train"]
        mean = known.nanmean(0)
        deviation = ((known - mean) ** 2).nanmean(0).sqrt()
        for index, spread in enumerate(deviation.tolist()):
            if spread == math.inf:
                raise UnusableInput(f"The target {_named(splits, index)} of {splits.name} has too large values.")
            if not spread > 0:
                raise UnusableInput(f"The target {_named(splits, index)} of {splits.name} is the same in all of train.")
        task = copy(self)
        task.mean, task.deviation = mean, deviation
        task.signature = splits.signature_for(len(mean))
        parts: dict[str, Any] = {}
        for part, dataset in splits.parts.items():
            assert isinstance(dataset, TargetDataset)
            parts[part] = dataset.with_targets(task._standardised(raw[part]))
        return task, replace(splits, **parts)

    def _standardised(self, numbers: Tensor) -> Tensor:
        """``numbers`` (N, K) float64 in the data's own units as the loss takes them."""
        return ((numbers - self.mean) / self.deviation).float()

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        known, difference = targets.isfinite(), known_difference(outputs, targets)
        if self.error == "squared":
            errors = difference**2
        elif self.error == "absolute":
            errors = difference.abs()
        else:
            errors = torch.where(difference.abs() <= 1, difference**2 / 2, difference.abs() - 0.5)
        each = (errors * known).sum(1) / known.sum(1)
        return each.mean() if reduction == "mean" else each

    def metrics(self, device: torch.device) -> "RegressionMetrics":
        return RegressionMetrics(self.deviation.to(device))

    def told(self, values: Mapping[str, float]) -> str:
        rmse, r2 = self.measures[1], self.measures[0]
        return f"{rmse.words} {rmse.told(values['rmse'])} ({r2.words} {values['r2']:z.2f})"

    def trivial(self, targets: Tensor) -> Tensor:
        return constant_outputs(torch.zeros(self.signature.outputs), targets)

    def predicted(self, outputs: Tensor) -> Tensor:
        """``outputs`` or targets (B, K) in the data's own units, float64."""
        return outputs.double() * self.deviation.to(outputs.device) + self.mean.to(outputs.device)

    def predictions(self, outputs: Tensor, targets: Tensor, splits: DataSplits) -> list[list[Prediction]]:
        names = self.output_names(splits)
        return [
            [
                Prediction(name, f"{of_target:.7g}" if math.isfinite(of_target) else "", f"{said_of_it:.7g}")
                for name, of_target, said_of_it in zip(names, true, said, strict=True)
            ]
            for true, said in zip(self.predicted(targets).tolist(), self.predicted(outputs).tolist(), strict=True)
        ]

    def read_targets(self, cells: Sequence[Sequence[Any]], names: Sequence[str]) -> Tensor:
        numbers = torch.tensor([[float_of(cell) for cell in column] for column in cells], dtype=torch.float64).T
        return self._standardised(torch.where(numbers.isfinite(), numbers, math.nan))

    def words(self, splits: DataSplits) -> str:
        count = self.signature.outputs
        names = ", ".join(splits.target_names) or f"{count} number{'' if count == 1 else 's'}"
        return f"regression of {names}"


def known_difference(outputs: Tensor, targets: Tensor) -> Tensor:
    """``outputs - targets``; 0, and without a gradient, where a target is NaN."""
    return outputs - torch.where(targets.isfinite(), targets.to(outputs.dtype), outputs.detach())


def mean_absolute_difference(outputs: Tensor, targets: Tensor) -> Tensor:
    """Over all targets that are known, 0-dim."""
    return (outputs - targets).abs().nanmean().to(torch.float64)


class RegressionMetrics:
    """R², RMSE and MAE over the known targets, in double precision; of several targets the mean over them.

    R² compares with the mean of the targets that are measured on, as scikit-learn's ``r2_score`` does. Errors are in
    the targets' own units.

    Args:
        deviation: (K,) what a standardised unit is in the targets' own.
    """

    def __init__(self, deviation: Tensor) -> None:
        self._deviation = deviation.double()
        self._sums = torch.zeros(5, len(deviation), dtype=torch.float64, device=deviation.device)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        known, targets = targets.isfinite(), targets.double().nan_to_num()
        errors = torch.where(known, outputs.double() - targets, 0.0)
        terms = (known.double(), targets, targets**2, errors**2, errors.abs())
        self._sums += torch.stack([term.sum(0) for term in terms])

    def compute(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in self._of_each().items()}

    def each(self) -> dict[Measure, list[float]]:
        several = len(self._deviation) > 1
        found = self._of_each()
        return {one: found[one.name].tolist() for one in Regression.measures} if several else {}

    def _of_each(self) -> dict[str, Tensor]:
        """By measure its value for each target, (K,)."""
        count, total, squares, squared_errors, absolute_errors = self._sums
        spread = squares - total**2 / count
        return {
            "r2": 1 - squared_errors / spread,
            "rmse": (squared_errors / count).sqrt() * self._deviation,
            "mae": absolute_errors / count * self._deviation,
        }


def _numbers(splits: DataSplits, part: str) -> Tensor:
    """The targets of a part as (N, K) float64; NaN where they are not known.

    Raises:
        UnusableInput: They are no numbers, infinite, or a sample has no known target.
    """
    dataset = splits.parts[part]
    if splits.class_names is not None or not isinstance(dataset, TargetDataset):
        names = f" ({listed(splits.class_names)})" if splits.class_names is not None else ""
        what = f"The target {splits.target_names[0]}" if splits.target_names else "The target"
        raise UnusableInput(
            f"{what} of {splits.name} has classes{names}, not numbers: task=classification takes them, or give a data "
            "set whose targets are numbers."
        )
    targets = dataset.targets.double()
    targets = targets[:, None] if targets.dim() == 1 else targets
    if targets.dim() != 2:
        raise UnusableInput(f"The targets of {splits.name} are {tuple(targets.shape)}, not a number or K per sample.")
    infinite = targets.isinf().any(1).nonzero().flatten().tolist()
    unknown = targets.isnan().all(1).nonzero().flatten().tolist()
    for what, rows in (("an infinite target", infinite), ("no known target", unknown)):
        if rows:
            first = ", ".join(map(str, rows[:5]))
            raise UnusableInput(f"{len(rows):,} of {len(targets):,} samples of {part} have {what}: {first} first.")
    if not math.isfinite(float(targets.nansum())):
        raise UnusableInput(f"The targets of {splits.name} are too large to be added up.")
    return targets


def _named(splits: DataSplits, index: int) -> str:
    return splits.target_names[index] if splits.target_names else str(index)
