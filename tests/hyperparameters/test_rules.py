"""The rules that move a raw hyperparameter along its hypergradient."""

import logging
import math

import pytest
import torch
from torch import nn

from nas.bilevel.exact import Exact
from nas.errors import InvalidValue
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised


def raw_with(gradient: float, value: float = 0.5) -> nn.Parameter:
    raw = nn.Parameter(torch.tensor(value, dtype=torch.float64))
    raw.grad = torch.tensor(gradient, dtype=torch.float64)
    return raw


@pytest.mark.parametrize(
    ("gradient", "norm", "length", "moved"),
    [
        (-0.6, 2.0, 0.5, 0.18),  # the gradient is minus length * norm * cosine
        (0.6, 2.0, 0.5, -0.18),
        (-1e9, 2.0, 0.5, 0.3),
        (1e9, 2.0, 0.5, -0.3),
        (0.0, 2.0, 0.5, 0.0),
        (0.0, 0.0, 0.0, 0.0),
        (-0.1, 0.0, 0.5, 0.0),
        (math.nan, 2.0, 0.5, 0.0),
        (math.nan, math.nan, 0.5, 0.0),
        (-math.inf, math.inf, 0.5, 0.0),
        (-1.0, 1e-320, 1.0, 0.3),
    ],
)
def test_the_cosine_rule_moves_by_rate_times_cosine_and_never_by_more(gradient, norm, length, moved):
    raw = raw_with(gradient)
    CosineNormalised(0.3).step(raw, norm * length)
    assert raw.item() - 0.5 == pytest.approx(moved, abs=1e-15)


def test_a_strategy_that_reports_no_norms_is_told_once(caplog):
    caplog.set_level(logging.INFO, logger="nas")
    rule = CosineNormalised(0.3)
    for gradient, norm_product in ((0.0, 0.0), (0.1, 2.0), (math.nan, math.nan)):
        rule.step(raw_with(gradient), norm_product)
    assert not caplog.messages
    for _ in range(2):
        rule.step(raw_with(-0.1), 0.0)
    (line,) = caplog.messages
    assert line.startswith("a learning rate (or factor) stays as it is: its hypergradient reports no validation")


@pytest.mark.parametrize("clip", [None, 0.1])
def test_after_an_exact_step_the_rule_sees_the_cosine_of_the_descent_and_the_update(clip, make_problem, make_batch):
    problem = make_problem(filled=True, clip=clip)
    problem.schedule_factor = 0.4
    raw = problem.hyperparameters.raw["learning_rate"]
    noise, start = problem.noise_state(), raw.item()
    report = Exact().gradients(problem, make_batch(10), make_batch(11), [raw])
    (raw.grad,) = report.gradients
    CosineNormalised(0.3).step(raw, report.step_length * report.validation_gradient_norm)
    moved = raw.item() - start

    raw.data.fill_(start)
    problem.repeat_noise(noise)
    weights = list(problem.weights().values())
    before = torch.cat([weight.detach().flatten() for weight in weights])
    problem.step(make_batch(10))
    loss, _ = problem.validation_loss(problem.weights(), make_batch(11))
    descent = -torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, weights)])
    walked = torch.cat([weight.detach().flatten() for weight in weights]) - before
    cosine = float(descent @ walked / descent.norm() / walked.norm())
    assert abs(cosine) > 0.01
    assert moved == pytest.approx(0.3 * cosine, abs=1e-12)


def test_adam_is_torchs_adam():
    ours, theirs = raw_with(0.0), raw_with(0.0)
    update = AdamUpdate(0.1, (0.8, 0.95))
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.8, 0.95))
    for gradient in (0.3, -0.2, 1e-3, 5.0, 0.0):
        ours.grad.fill_(gradient)
        theirs.grad.fill_(gradient)
        update.step(ours, 1.0)
        adam.step()
        assert torch.equal(ours, theirs)
    assert ours.item() != 0.5


@pytest.mark.parametrize("gradient", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_leaves_adam_as_it_was(gradient):
    disturbed, plain = raw_with(0.3), raw_with(0.3)
    updates = AdamUpdate(0.1), AdamUpdate(0.1)
    for raw, update in zip((disturbed, plain), updates, strict=True):
        update.step(raw, 1.0)
    disturbed.grad.fill_(gradient)
    updates[0].step(disturbed, 1.0)
    assert torch.equal(disturbed, plain)
    for raw, update in zip((disturbed, plain), updates, strict=True):
        raw.grad.fill_(-0.1)
        update.step(raw, 1.0)
    assert torch.equal(disturbed, plain)


@pytest.mark.parametrize("make", [lambda: AdamUpdate(0.1), lambda: CosineNormalised(0.1)], ids=["adam", "cosine"])
@pytest.mark.parametrize("steps", [0, 2])
def test_the_state_goes_on_where_it_was(make, steps, tmp_path):
    whole, first = make(), make()
    one, other = raw_with(0.0), raw_with(0.0)
    gradients = [0.3, -0.2, 0.5, 0.1]
    for index, gradient in enumerate(gradients):
        if index == steps:
            torch.save(first.state_dict(), tmp_path / "state.pt")
            first = make()
            first.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for update, raw in ((whole, one), (first, other)):
            raw.grad.fill_(gradient)
            update.step(raw, 1.0)
    assert torch.equal(one, other)
    assert one.item() != 0.5


def test_a_loaded_state_that_has_not_been_used_yet_is_not_lost():
    update, raw = AdamUpdate(0.1), raw_with(0.3)
    update.step(raw, 1.0)
    loaded = AdamUpdate(0.1)
    loaded.load_state_dict(update.state_dict())
    assert loaded.state_dict()["state"][0]["exp_avg"] == update.state_dict()["state"][0]["exp_avg"]


def test_one_adam_does_not_serve_two_hyperparameters():
    update, other = AdamUpdate(0.1), raw_with(0.3)
    update.step(raw_with(0.3), 1.0)
    with pytest.raises(ValueError, match="no other"):
        update.step(other, 1.0)
    assert other.item() == 0.5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CosineNormalised(0.0), "rate=0.0 is not allowed: it must be a number above 0."),
        (lambda: CosineNormalised(math.inf), "rate=inf is not allowed: it must be a number above 0."),
        (lambda: AdamUpdate(-1.0), "rate=-1.0 is not allowed: it must be a number above 0."),
        (
            lambda: AdamUpdate(0.1, (0.9, 1.0)),
            "betas=[0.9, 1.0] is not allowed: it must be two numbers from 0 to below 1.",
        ),
    ],
)
def test_impossible_settings_are_refused(make, sentence):
    with pytest.raises(InvalidValue) as error:
        make()
    assert str(error.value) == sentence
