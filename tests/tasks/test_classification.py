"""One class per sample."""

import math

import pytest
import torch

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


def test_a_measure_is_told_in_its_unit() -> None:
    assert Measure("accuracy", "higher", "accuracy", "%").told(0.986) == "98.60 %"
    assert Measure("rmse", "lower", "RMSE", "kW").told(56.512) == "56.51 kW"
    assert Measure("r2", "higher", "R²").told(0.361) == "0.361"
