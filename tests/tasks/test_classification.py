"""One class per sample."""

import math

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from nas.signature import Signature
from nas.tasks import Classification, Measure


def test_accuracy_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert float(Classification().glance(logits, torch.tensor([1, 0, 0, 1]))) == pytest.approx(0.5)


def test_who_knows_nothing_has_the_loss_of_equal_shares() -> None:
    task = Classification.of(Signature((2,), 5))
    targets = torch.tensor([0, 3, 4])
    assert float(task.loss(torch.zeros(3, 5), targets)) == pytest.approx(task.ignorance) == math.log(5)
    assert float(task.reported_loss(torch.zeros(3, 5), targets)) == pytest.approx(3 * task.ignorance)


def test_the_score_is_the_main_measure() -> None:
    assert Classification().score({"accuracy": 0.7, "macro_f1": 0.1}) == 0.7


def test_each_class_has_the_recall_and_precision_of_scikit_learn_and_its_number_of_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    targets, logits = torch.randint(0, 3, (50,), generator=generator), torch.randn(50, 5, generator=generator)
    logits[:, 3] -= 100  # a class that is neither there nor said; class 4 is only said
    found = Classification.of(Signature((2,), 5)).metrics(torch.device("cpu"))
    for some in (slice(0, 30), slice(30, 50)):
        found.update(logits[some], targets[some])
    found.compute()
    said = logits.argmax(1)
    precision, recall, _, samples = precision_recall_fscore_support(
        targets, said, labels=range(5), zero_division=math.nan
    )
    each = {one.name: values for one, values in found.each().items()}
    assert each["samples"] == samples.tolist()
    assert each["recall"] == pytest.approx(recall.tolist(), nan_ok=True)
    assert each["precision"] == pytest.approx(precision.tolist(), nan_ok=True)
    assert math.isnan(each["precision"][3])


def test_a_measure_is_told_in_its_unit() -> None:
    assert Measure("accuracy", "higher", "accuracy", "%").told(0.986) == "98.60 %"
    assert Measure("rmse", "lower", "RMSE", "kW").told(56.512) == "56.51 kW"
    assert Measure("r2", "higher", "R²").told(0.361) == "0.361"
    assert Measure("samples", "higher", "samples").told(12345) == "12,345"
    assert Measure("rmse", "lower", "RMSE").told(123456.7) == "123,457"
    assert Measure("rmse", "lower", "RMSE").told(3.21e-6) == "3.21e-06"  # the data's own unit may be a large one


@pytest.mark.parametrize(
    ("value", "told"), [(-8.214e-6, "0"), (3e-5, "0"), (-6e-5, "-0.0001"), (0.98765, "0.9877"), (-1234.5, "-1,234")]
)
def test_a_ratio_has_four_decimals_at_most(value: float, told: str) -> None:
    assert Measure("r2", "higher", "R²").told(value) == told
