"""A task of a user's own is tried before a run begins, and not found wanting after its last step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue
from nas.tasks import DenseClassification, Measure, MultiLabel, Regression
from nas.tasks.promises import check_promises
from nas.tasks.task import Metrics


class Slipped(Regression):
    """With one mistake."""

    slip = ""

    def loss(self, outputs: Tensor, targets: Tensor, values: Any = (), reduction: Any = "mean") -> Tensor:
        return super().loss(outputs, targets, {}, "none" if self.slip == "mean" else reduction)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | ({"mean": torch.zeros(1)} if self.slip == "json" else {})


def numbers(count: int) -> DataSplits:
    part = ArrayDataset(torch.randn(8, 3), ((torch.arange(8 * count).view(8, count) % 3) > 0).double())
    return DataSplits("rows", part, part, part, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_a_whole_task_passes_without_a_random_number() -> None:
    fitted = [task.fitted(numbers(2)) for task in (Regression(), MultiLabel())]
    before = torch.get_rng_state()
    for task, splits in fitted:
        check_promises(task, splits)
    assert torch.equal(torch.get_rng_state(), before)


class AreaUnderCurve:
    """A measure that raises where all targets are of one class, as scikit-learn's does."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.targets = targets

    def compute(self) -> dict[str, float]:
        if len(self.targets.unique()) == 1:
            raise ValueError("only one class\nis there")
        return {"auc": 0.5}


class Ranked(Regression):
    """Measured by what needs both classes."""

    def __init__(self, of: Regression) -> None:
        vars(self).update(vars(of), measures=(Measure("auc", "higher", "AUC"),))

    def metrics(self, device: torch.device) -> Metrics:  # type: ignore[override]
        return AreaUnderCurve()


def test_a_measure_that_needs_both_classes_is_tried_on_the_whole_validation_part() -> None:
    task, splits = Regression().fitted(numbers(1))
    alone = ArrayDataset(torch.randn(8, 3), torch.zeros(8, 1, dtype=torch.float64))
    rare = ArrayDataset(torch.randn(8, 3), torch.eye(8, dtype=torch.float64)[:, 7:])
    check_promises(Ranked(task), replace(splits, validation=rare))
    sentence = (
        r"task=Ranked is not allowed: its metrics\(device\) raises ValueError: only one class is there, .* \d+\.$"
    )
    with pytest.raises(InvalidValue, match=sentence):
        check_promises(Ranked(task), replace(splits, validation=alone))


@pytest.mark.parametrize(
    ("slip", "sentence"),
    [
        ("mean", r"its loss\(outputs, targets\) gives \(4,\), it must be a tensor of shape \(\)"),
        ("json", r"its to_json\(\) has what JSON has not \(Object of type Tensor"),
        ("measure", "its metrics compute r2, rmse, mae, and its measures have top5, too"),
    ],
)
def test_what_it_forgets_is_told(slip: str, sentence: str) -> None:
    task, splits = Regression().fitted(numbers(1))
    slipped = Slipped()
    vars(slipped).update(vars(task), slip=slip)
    if slip == "measure":
        slipped.measures = (Measure("top5", "higher", "top 5"), *task.measures)
    with pytest.raises(InvalidValue, match=f"task=Slipped is not allowed: {sentence}"):
        check_promises(slipped, splits)


class Misplaced(DenseClassification):
    """Says of places what is none of its classes, or of too few of them."""

    slip = ""

    def places(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        said = outputs.argmax(1)
        return {"class": (targets, said + 2), "few": (targets, said[:, 1:]), "share": (targets, said.float())}[
            self.slip
        ]


@pytest.mark.parametrize("slip", ["class", "few", "share"])
def test_what_it_says_of_places_is_of_all_of_them_and_of_its_classes(slip: str) -> None:
    part = ArrayDataset(torch.randn(8, 1, 3, 4), torch.arange(96).view(8, 3, 4) % 2, dense=True)
    maps = DataSplits("maps", part, part, part, mean=(0.0,), std=(1.0,), head="dense")
    task, splits = DenseClassification().fitted(maps)
    check_promises(task, splits)
    wrong = Misplaced()
    vars(wrong).update(vars(task), slip=slip)
    with pytest.raises(InvalidValue, match=r"its places\(outputs, targets\) must be two tensors"):
        check_promises(wrong, splits)
