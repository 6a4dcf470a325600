"""A task of a user's own is tried before a run begins, and not found wanting after its last step."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue
from nas.tasks import Measure, MultiLabel, Regression
from nas.tasks.promises import check_promises


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


def test_a_whole_task_passes() -> None:
    for task in (Regression(), MultiLabel()):
        check_promises(*task.fitted(numbers(2)))


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
