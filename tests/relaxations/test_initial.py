"""Where alpha begins, and what the relaxations without noise are."""

import pytest
import torch

from nas.relaxations.dirichlet import Dirichlet
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.simplex import Simplex
from nas.relaxations.softmax import Softmax

SHAPE = (3, 4)


@pytest.mark.parametrize("made", [Softmax(Temperature()), GumbelSoftmax(Temperature()), Dirichlet()])
def test_most_begin_near_zero_at_random(made: Relaxation) -> None:
    torch.manual_seed(0)
    initial = made.initial(SHAPE)
    torch.manual_seed(0)
    assert torch.equal(initial, 1e-3 * torch.randn(*SHAPE))
    assert made.on_simplex


def test_sigmoid_and_simplex_begin_with_equal_weights_and_draw_nothing() -> None:
    before = torch.get_rng_state()
    sigmoid, simplex = Sigmoid(), Simplex()
    assert torch.equal(sigmoid(sigmoid.initial(SHAPE)), torch.full(SHAPE, 0.5))
    assert torch.equal(simplex(simplex.initial(SHAPE)), torch.full(SHAPE, 0.25))
    assert torch.equal(torch.get_rng_state(), before)
    assert simplex.on_simplex
    assert not sigmoid.on_simplex


def test_sigmoid_gives_every_option_a_weight_of_its_own() -> None:
    alpha = torch.tensor([0.0, 3.0, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.equal(Sigmoid()(alpha), 1 / (1 + (-alpha).exp()))
    slopes = torch.autograd.functional.jacobian(Sigmoid(), alpha)
    assert torch.equal(slopes, torch.diag(slopes.diagonal()))
    assert torch.equal(Sigmoid().probabilities(alpha), Sigmoid()(alpha))


def test_simplex_is_the_identity() -> None:
    theta = torch.tensor([0.2, 0.8])
    assert Simplex()(theta) is theta
    assert Simplex().probabilities(theta) is theta
