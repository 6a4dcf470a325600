"""Exponentiated gradient: mirror descent, by what it minimises and by where it goes."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from nas.bilevel.exponentiated_gradient import ExponentiatedGradient, exponentiated
from nas.errors import InvalidValue
from nas.relaxations.relaxation import Temperature
from nas.relaxations.simplex import Simplex
from nas.relaxations.softmax import Softmax
from tests.problems import ADAM

THETA = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_it_minimises_the_slope_and_the_divergence_from_where_it_is():
    """``argmin rate * g . x + KL(x || theta)`` over the simplex, by a method that knows nothing of exponentials."""

    def objective(x):
        return float(0.1 * SLOPE.numpy() @ x + sum(x * [math.log(one) for one in x / THETA.numpy()]))

    whole = {"type": "eq", "fun": lambda x: x.sum() - 1}
    options = {"ftol": 1e-14, "maxiter": 200}
    best = minimize(objective, THETA.numpy(), bounds=[(1e-9, 1)] * 3, constraints=[whole], options=options).x
    assert exponentiated(THETA, SLOPE, 0.1).tolist() == pytest.approx(best.tolist(), abs=1e-6)


def test_a_linear_loss_is_followed_to_the_best_vertex():
    theta = nn.Parameter(torch.full((2, 3), 1 / 3, dtype=torch.float64))
    optimiser = ExponentiatedGradient().over({"cell": theta})
    for _ in range(400):
        theta.grad = torch.stack([SLOPE, -SLOPE])
        optimiser.step()
    expected = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(theta.detach(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(theta.detach().sum(-1), torch.ones(2, dtype=torch.float64))
    assert float(theta.detach().min()) >= 8e-6  # the floor, divided by the row's sum


def test_the_floor_comes_before_or_after_the_division():
    theta = torch.tensor([1.0, 0.0], dtype=torch.float64)
    before = exponentiated(theta, torch.zeros(2), 0.1, 0.25, "before")
    after = exponentiated(theta, torch.zeros(2), 0.1, 0.25, "after")
    assert before.tolist() == [0.8, 0.2]
    assert after.tolist() == [1.0, 0.25]


def test_edges_have_a_rate_of_their_own_and_no_floor():
    alphas = {name: nn.Parameter(THETA.clone()) for name in ("normal", "normal_node3_edges")}
    optimiser = ExponentiatedGradient(rate=0.1, edge_rate=100.0).over(alphas)
    for alpha in alphas.values():
        alpha.grad = SLOPE.clone()
    optimiser.step()
    torch.testing.assert_close(alphas["normal"].detach(), exponentiated(THETA, SLOPE, 0.1))
    assert float(alphas["normal_node3_edges"].detach()[0]) < 1e-100


def test_what_has_no_gradient_stays_and_nothing_is_remembered():
    theta = nn.Parameter(THETA.clone())
    optimiser = ExponentiatedGradient().over({"cell": theta})
    optimiser.step()
    assert torch.equal(theta.detach(), THETA)
    theta.grad = SLOPE.clone()
    optimiser.step()
    assert optimiser.state_dict()["state"] == {}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"rate": 0.0}, "rate=0.0 is not allowed: it must be a number above 0"),
        ({"edge_rate": math.inf}, "edge_rate=inf is not allowed"),
        ({"floor": 1.0}, "floor=1.0 is not allowed"),
        (
            {"weight_decay": 1e-3},
            "weight_decay=0.001 is not allowed: it must be 0: a decay towards 0",
        ),
    ],
)
def test_impossible_settings_are_refused(setting, sentence):
    with pytest.raises(InvalidValue, match=sentence):
        ExponentiatedGradient(**setting)


def test_it_and_the_simplex_need_each_other():
    with pytest.raises(InvalidValue, match=r"relaxation=Softmax is not allowed: .*, take simplex"):
        ExponentiatedGradient().check(Softmax(Temperature()))
    with pytest.raises(InvalidValue, match="relaxation=Simplex is not allowed: Adam's steps leave the simplex"):
        ADAM.check(Simplex())
    ExponentiatedGradient().check(Simplex())
    ADAM.check(Softmax(Temperature()))
