"""What is added to alpha's gradient: values by closed forms of others, and where it is added."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet as TorchDirichlet
from torch.distributions import kl_divergence

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.last_step import LastStep
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.regulariser import BetaDecay, DirichletKL, Entropy, Regulariser, ZeroOne
from nas.errors import InvalidValue
from nas.relaxations.dirichlet import Dirichlet
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.simplex import Simplex
from nas.relaxations.softmax import Softmax
from tests.problems import ADAM

SOFTMAX = Softmax(Temperature())


def alphas() -> dict[str, Tensor]:
    """Two rows of three options and one of two, as spaces of cells and macro spaces have them."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"normal": (2, 3), "layer": (2,)}
    drawn = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }
    return drawn


def rows(found: dict[str, Tensor]) -> list[Tensor]:
    return [row for alpha in found.values() for row in alpha.reshape(-1, alpha.shape[-1])]


def by_hand(name: str, found: dict[str, Tensor]) -> Tensor:
    """The values of :data:`CASES`, row by row."""
    weights = [row.exp() / row.exp().sum() for row in rows(found)]
    own = torch.cat([row.sigmoid() for row in rows(found)])
    match name:
        case "beta decay":
            return torch.stack([row.exp().sum().log() for row in rows(found)]).mean()
        case "zero one":
            return -((own - 0.5) ** 2).mean()
        case "zero one, l1":
            return -(own - 0.5).abs().mean()
        case "dirichlet":
            pairs = [(TorchDirichlet(torch.nn.functional.elu(row) + 1), torch.ones_like(row)) for row in rows(found)]
            return torch.stack([kl_divergence(own, TorchDirichlet(one)) for own, one in pairs]).sum()
    return torch.stack([(p * (p * len(p)).log()).sum() for p in weights]).sum()


CASES: dict[str, tuple[Regulariser, Relaxation]] = {
    "beta decay": (BetaDecay(1.0, 1.0), SOFTMAX),
    "zero one": (ZeroOne(1.0, 1.0), Sigmoid()),
    "zero one, l1": (ZeroOne(1.0, 1.0, "l1"), Sigmoid()),
    "dirichlet": (DirichletKL(1.0, 1.0), Dirichlet()),
    "entropy": (Entropy(1.0, 1.0), SOFTMAX),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_formulas(name):
    regulariser, relaxation = CASES[name]
    found = alphas()
    value, expected = regulariser(found, relaxation, 0.5), by_hand(name, found)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    pairs = [torch.autograd.grad(one, list(found.values())) for one in (value, expected)]
    torch.testing.assert_close(*pairs, rtol=1e-10, atol=1e-12)


def test_the_weight_goes_from_one_value_to_the_other():
    assert [BetaDecay().weight(epoch / 100) for epoch in (0, 1, 50)] == [0.0, 0.5, 25.0]
    found = alphas()
    half = BetaDecay()(found, SOFTMAX, 0.5)
    torch.testing.assert_close(half, 25 * by_hand("beta decay", found))


def test_the_weights_of_edges_are_left_alone():
    found = alphas()
    with_edges = found | {"normal_node2_edges": torch.full((2,), 3.0, dtype=torch.float64)}
    assert torch.equal(BetaDecay()(found, SOFTMAX, 1.0), BetaDecay()(with_edges, SOFTMAX, 1.0))


def test_equal_weights_have_no_divergence_and_a_decided_row_has_all_of_it():
    theta = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    assert float(Entropy(1.0, 1.0)({"cell": theta}, Simplex(), 0.0)) == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    "hypergradient", [FirstOrder(), Exact(), LastStep()], ids=["first order", "exact", "last step"]
)
def test_it_is_added_to_the_gradient_of_any_hypergradient(hypergradient, make_problem, make_batch, monkeypatch):
    seen: list[list[Tensor]] = []

    def alpha_gradients(regulariser: Regulariser | None) -> list[Tensor]:
        problem = make_problem()
        problem.progress = 0.3
        bilevel = BilevelOptimiser(problem, hypergradient, hypergradient, ADAM, None, regulariser)
        monkeypatch.setattr(
            bilevel, "_move_architecture", lambda: seen.append([one.grad for one in bilevel.alpha]) or {}
        )
        bilevel.step(make_batch(10), make_batch(11), bilevel.requests(True, True))
        return seen[-1]

    plain, regularised = alpha_gradients(None), alpha_gradients(BetaDecay())
    problem = make_problem()
    added = torch.autograd.grad(0.3 * 50 * by_hand("beta decay", dict(problem.supernet.alpha)), seen_alphas(problem))
    for one, other, further in zip(plain, regularised, added, strict=True):
        torch.testing.assert_close(one + further, other, rtol=1e-10, atol=1e-12)


def seen_alphas(problem) -> list[Tensor]:
    return problem.supernet.architecture_parameters()


@pytest.mark.parametrize(
    ("regulariser", "relaxation"),
    [
        (BetaDecay(), Sigmoid()),
        (BetaDecay(), Dirichlet()),
        (BetaDecay(), Simplex()),
        (DirichletKL(), SOFTMAX),
        (Entropy(), Sigmoid()),
    ],
)
def test_a_relaxation_for_which_it_means_nothing_is_refused(regulariser, relaxation):
    with pytest.raises(InvalidValue, match=f"relaxation={type(relaxation).__name__} is not allowed: .*, take "):
        regulariser.check(relaxation)


def test_others_are_not():
    for one in (BetaDecay(), ZeroOne(), Entropy()):
        one.check(SOFTMAX)
        one.check(GumbelSoftmax(Temperature()))
    ZeroOne().check(Sigmoid())
    DirichletKL().check(Dirichlet())


@pytest.mark.parametrize("weight", [math.inf, math.nan])
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(InvalidValue, match=r"final=.* it must be a finite number"):
        BetaDecay(0.0, weight)
