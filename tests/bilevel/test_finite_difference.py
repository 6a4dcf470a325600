"""The finite-difference hypergradient of DARTS against the exact one."""

import math

import pytest
import torch
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.problem import BilevelProblem
from nas.errors import InvalidValue
from nas.training.sgd import sgd
from tests.problems import momentum_buffers

SCALES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
SUITABLE_SCALE = 1e-4  # on the smooth supernet in float64: above it truncation rules, far below it rounding


def gradients(
    hypergradient, problem: BilevelProblem, make_batch, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    targets = {**problem.supernet.alpha, **problem.hyperparameters.raw}
    report = hypergradient.gradients(problem, make_batch(10, dtype), make_batch(11, dtype), list(targets.values()))
    return dict(zip(targets, report.gradients, strict=True))


def direct_gradients(problem: BilevelProblem, make_batch) -> dict[str, Tensor]:
    """The gradient of L_val(w', alpha) with w' held: what the hypergradients subtract the unrolled part from."""
    training, validation = make_batch(10), make_batch(11)
    weights, values = problem.weights(), problem.values()
    found = torch.autograd.grad(problem.training_loss(weights, training, values), list(weights.values()))
    buffers = momentum_buffers(problem)
    moved, _ = sgd(weights, dict(zip(weights, found, strict=True)), buffers, values)
    loss, _ = problem.validation_loss({name: weight.detach() for name, weight in moved.items()}, validation)
    alpha = dict(problem.supernet.alpha)
    return dict(zip(alpha, torch.autograd.grad(loss, list(alpha.values())), strict=True))


def unrolled_part(found: dict[str, Tensor], direct: dict[str, Tensor]) -> Tensor:
    return torch.cat([direct[name] - found[name] for name in direct])


def relative_error(found: Tensor, reference: Tensor) -> float:
    return float((found - reference).norm() / reference.norm())


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_it_agrees_with_exact_on_a_smooth_supernet(relaxation, make_problem, make_batch):
    settings = {"relaxation": relaxation, "filled": True}
    exact = gradients(Exact(), make_problem(**settings), make_batch)
    direct = direct_gradients(make_problem(**settings), make_batch)
    reference = unrolled_part(exact, direct)
    errors = {}
    print(f"\n{relaxation}: relative error, float64\n   scale         alpha  unrolled part     dropout")
    for scale in SCALES:
        found = gradients(FiniteDifference(scale), make_problem(**settings), make_batch)
        errors[scale] = {
            "alpha": relative_error(
                torch.cat([found[name] for name in direct]), torch.cat([exact[name] for name in direct])
            ),
            "unrolled part": relative_error(unrolled_part(found, direct), reference),
            "dropout": relative_error(found["dropout"], exact["dropout"]),
        }
        print(f"{scale:8.0e}  " + "  ".join(f"{error:12.1e}" for error in errors[scale].values()))
    assert max(errors[SUITABLE_SCALE].values()) < 1e-4
    # A central difference: a hundredth of the scale has a ten-thousandth of the error.
    assert errors[1e-4]["unrolled part"] == pytest.approx(1e-4 * errors[0.01]["unrolled part"], rel=0.2)


def test_the_product_itself_has_the_size_of_the_exact_one(make_problem, make_batch):
    """``(ahead - behind) / 2 * e`` instead of ``/ (2 * e)`` gives a ratio of e squared, a lost half one of 2."""
    direct = direct_gradients(make_problem(filled=True), make_batch)
    exact = unrolled_part(gradients(Exact(), make_problem(filled=True), make_batch), direct)
    found = gradients(FiniteDifference(SUITABLE_SCALE), make_problem(filled=True), make_batch)
    ratio = float(unrolled_part(found, direct) @ exact / exact.square().sum())
    assert exact.norm() > 1e-3 * torch.cat(list(direct.values())).norm()  # or the ratio would be one of rounding errors
    assert ratio == pytest.approx(1.0, abs=1e-5)


def test_what_acts_on_the_update_alone_is_exact_at_any_scale(make_problem, make_batch):
    exact = gradients(Exact(), make_problem(filled=True), make_batch)
    found = gradients(FiniteDifference(1.0), make_problem(filled=True), make_batch)
    for name in ("learning_rate", "weight_decay"):
        torch.testing.assert_close(found[name], exact[name], rtol=1e-12, atol=0)


def test_as_in_the_original_the_step_is_not_clipped(make_problem, make_batch):
    clipped = gradients(FiniteDifference(), make_problem(clip=0.1), make_batch)
    unclipped = gradients(FiniteDifference(), make_problem(), make_batch)
    assert all(torch.equal(clipped[name], unclipped[name]) for name in unclipped)
    exact_clipped = gradients(Exact(), make_problem(clip=0.1), make_batch)
    assert relative_error(exact_clipped["learning_rate"], unclipped["learning_rate"]) > 0.1


def test_both_ends_of_the_difference_see_the_noise_of_the_first_pass(make_problem, make_batch, monkeypatch):
    problem = make_problem(relaxation="gumbel")
    states = []
    training_pass = problem.training_pass

    def recorded(*arguments):
        states.append(problem.noise_state())
        return training_pass(*arguments)

    monkeypatch.setattr(problem, "training_pass", recorded)
    gradients(FiniteDifference(), problem, make_batch)
    first, *others = states
    assert len(others) == 2
    for state in others:
        assert all(torch.equal(one, other) for one, other in zip(first, state, strict=True))


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_both_ends_are_as_far_from_the_weights_as_the_scale_says(scale, make_problem, make_batch, monkeypatch):
    problem = make_problem()
    before = {name: weight.detach().clone() for name, weight in problem.weights().items()}
    distances = []
    training_pass = problem.training_pass

    def recorded(weights, *arguments):
        squares = [(weights[name].detach() - weight).square().sum() for name, weight in before.items()]
        distances.append(float(torch.stack(squares).sum().sqrt()))
        return training_pass(weights, *arguments)

    monkeypatch.setattr(problem, "training_pass", recorded)
    gradients(FiniteDifference(scale), problem, make_batch)
    assert distances == pytest.approx([0.0, scale, scale])


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_it_leaves_the_noise_where_exact_leaves_it(relaxation, make_problem, make_batch):
    one, other = make_problem(relaxation=relaxation), make_problem(relaxation=relaxation)
    gradients(FiniteDifference(), one, make_batch)
    gradients(Exact(), other, make_batch)
    assert all(torch.equal(a, b) for a, b in zip(one.noise_state(), other.noise_state(), strict=True))


def test_it_counts_its_passes(make_problem, make_batch):
    problem = make_problem()
    training, validation = make_batch(10), make_batch(11)
    alpha, raw = problem.supernet.architecture_parameters(), problem.hyperparameters.raw
    assert FiniteDifference().gradients(problem, training, validation, alpha).passes == (3, 1)
    assert FiniteDifference().gradients(problem, training, validation, [raw["dropout"]]).passes == (3, 1)
    assert FiniteDifference().gradients(problem, training, validation, [raw["learning_rate"]]).passes == (1, 1)


def test_where_the_validation_loss_is_flat_the_gradient_is_the_direct_one(make_problem, make_batch):
    problem = make_problem(learned=())
    with torch.no_grad():
        problem.supernet.classifier.weight.zero_()
        problem.supernet.classifier.bias.copy_(torch.tensor([2000.0, 0.0, 0.0]))
    batch = make_batch(10)._replace(targets=torch.zeros(8, dtype=torch.int64))
    report = FiniteDifference().gradients(problem, batch, batch, problem.supernet.architecture_parameters())
    assert report.validation_gradient_norm == 0.0
    assert all(bool((gradient == 0).all()) for gradient in report.gradients)


@pytest.mark.parametrize("scale", [0.0, -0.01, math.inf, math.nan])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(InvalidValue, match=r"scale=.* is not allowed: it must be a number above 0"):
        FiniteDifference(scale)
