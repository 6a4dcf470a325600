"""The softmax relaxation."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from nas.configuration import build
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax

CONFIGURATION = Path(__file__).parents[2] / "conf" / "relaxation"
ALPHA = torch.tensor([[0.0, 1.0, -2.0], [3.0, 3.0, 3.0]], dtype=torch.float64)


def test_weights_by_hand() -> None:
    weights = Softmax(Temperature(2.0, 2.0))(ALPHA)
    powers = torch.tensor([1.0, 2.718281828459045**0.5, 2.718281828459045**-1.0], dtype=torch.float64)
    torch.testing.assert_close(weights[0], powers / powers.sum(), rtol=1e-14, atol=0)
    torch.testing.assert_close(weights[1], torch.full((3,), 1 / 3, dtype=torch.float64), rtol=1e-14, atol=0)


def test_a_low_temperature_is_sharp_and_a_high_one_flat() -> None:
    cold, hot = Softmax(Temperature(0.01, 0.01))(ALPHA[0]), Softmax(Temperature(1000.0, 1000.0))(ALPHA[0])
    assert float(cold[1]) > 1 - 1e-12
    assert float(hot.max() - hot.min()) < 2e-3


def test_advancing_follows_the_schedule() -> None:
    relaxation = Softmax(Temperature(4.0, 1.0, "linear"))
    relaxation.advance(0.5)
    assert torch.equal(relaxation(ALPHA), (ALPHA / 2.5).softmax(-1))
    assert torch.equal(relaxation.probabilities(ALPHA), relaxation(ALPHA))
    relaxation.advance(1.0)
    assert torch.equal(relaxation(ALPHA), ALPHA.softmax(-1))


def test_its_gradient() -> None:
    relaxation = Softmax(Temperature(0.7, 0.7))
    assert torch.autograd.gradcheck(relaxation, (ALPHA.clone().requires_grad_(),))


def test_it_has_no_noise() -> None:
    before = torch.get_rng_state()
    relaxation = Softmax(Temperature())
    assert torch.equal(relaxation(ALPHA), relaxation(ALPHA))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "kind"), [("softmax", Softmax), ("gumbel_softmax", GumbelSoftmax)])
def test_the_files_in_conf_build_it(name: str, kind: type) -> None:
    config = OmegaConf.load(CONFIGURATION / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    relaxation = build(config, "relaxation")
    assert type(relaxation) is kind
    assert relaxation.temperature == pytest.approx(config.temperature.initial)
    relaxation.advance(1.0)
    assert relaxation.temperature == pytest.approx(config.temperature.final)
