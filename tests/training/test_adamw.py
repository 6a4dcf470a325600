"""AdamW's step as a function: against ``torch.optim.AdamW``, and its derivatives."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from nas.errors import InvalidValue
from nas.hyperparameters.building import built_hyperparameters
from nas.training.adamw import Moments, adamw, moments_of
from nas.training.retraining import Retraining
from nas.training.settings import TrainingSettings
from nas.training.sgd import set_step, take_step
from nas.training.weight_step import as_function, weight_optimiser
from tests.problems import retraining_of
from tests.training.test_sgd import FACTORS, drawn, network

ADAMW = TrainingSettings(8, 0.9, None, "constant", optimiser="adamw", betas=(0.8, 0.99), epsilon=1e-6)


@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("factors", [{}, FACTORS], ids=["one rate", "rate factors"])
def test_the_real_step_is_the_function_from_the_first_step_on(
    factors: dict[str, float], max_norm: float | None
) -> None:
    """Also where a weight has no gradient for a step, as an operation's that was not sampled."""
    torch.manual_seed(0)
    real = dict(network().double().named_parameters())
    optimiser = weight_optimiser(ADAMW, real.values())
    assert isinstance(optimiser, torch.optim.AdamW)
    for number in range(5):
        values = {"learning_rate": 0.1 / (1 + number), "weight_decay": 0.3, **factors}
        gradients = drawn(number, real)
        if number in (0, 3):
            del gradients["3.weight"]
        move, moments = as_function(optimiser, real, values)
        expected, _ = move(
            {name: weight.detach() for name, weight in real.items()}, gradients, moments, values, max_norm
        )
        after = {name: one.clone() for name, one in moments.items()}
        scale = 1.0
        if max_norm is not None:
            norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
            scale = min(1.0, max_norm / (float(norm) + 1e-6))
        for name, gradient in gradients.items():
            before = moments.get(name, Moments.none_yet(real[name].detach()))
            after[name] = before.after(scale * gradient, ADAMW.betas).clone()
        set_step(optimiser, values)
        take_step(optimiser, list(real.values()), [gradients.get(name) for name in real], max_norm)
        for name, weight in real.items():
            torch.testing.assert_close(weight.detach(), expected[name], rtol=1e-13, atol=1e-14, msg=name)
        for name, one in moments_of(optimiser, real).items():
            assert one.steps == after[name].steps
            torch.testing.assert_close(one.mean, after[name].mean, rtol=1e-13, atol=1e-14, msg=name)
            torch.testing.assert_close(one.square, after[name].square, rtol=1e-13, atol=1e-14, msg=name)


def test_the_denominator_is_a_constant_of_the_graph() -> None:
    """A gradient of zero has a derivative, that of the numerator over epsilon; rate and decay have the closed forms."""
    weight = {"a": torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)}
    gradient = {"a": torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)}
    rate, decay = (torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (0.1, 0.2))
    moved, directions = adamw(weight, gradient, {}, {"learning_rate": rate, "weight_decay": decay})

    def slope(of: Tensor, entry: int) -> Tensor:
        return torch.autograd.grad(moved["a"][entry], of, retain_graph=True)[0]

    assert slope(gradient["a"], 0).tolist() == pytest.approx([-0.1 / 1e-8, 0.0])
    assert slope(gradient["a"], 1).tolist() == pytest.approx([0.0, -0.1 / 0.5])
    for entry in (0, 1):
        assert float(slope(rate, entry)) == pytest.approx(-directions["a"][entry].item())
        assert float(slope(decay, entry)) == pytest.approx(-0.1 * weight["a"][entry].item())
    assert directions["a"].tolist() == pytest.approx([0.4, 1.0 - 0.2])  # the first step goes by the gradient's sign


def test_a_retraining_goes_on_with_its_moments(tmp_path: Path) -> None:
    def made(folder: str) -> Retraining:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        training = replace(ADAMW, batch_size=16)
        return retraining_of(layers, tmp_path / folder, {"learning_rate": 0.01, "weight_decay": 0.1}, training=training)

    whole, first, second = made("whole"), made("first"), made("second")
    whole.fit(4)
    first.fit(2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.fit(4)
    states = [one.network.state_dict() for one in (whole, second)]
    assert all(torch.equal(entry, states[1][name]) for name, entry in states[0].items())
    assert isinstance(second.optimiser, torch.optim.AdamW)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(InvalidValue, match=r"^averaging=non_monotone is not allowed"):
        TrainingSettings(8, 0.9, None, "constant", averaging="non_monotone", optimiser="adamw")
    with pytest.raises(InvalidValue, match=r"^betas="):
        TrainingSettings(8, 0.9, None, "constant", betas=(0.9, 1.0))
    with pytest.raises(InvalidValue, match=r"^epsilon="):
        TrainingSettings(8, 0.9, None, "constant", epsilon=0.0)


@pytest.mark.parametrize("learned", [False, True])
def test_it_has_no_momentum(learned: bool) -> None:
    entry = {"initial": 0.9, "low": 0.0, "high": 0.99, "scale": "logit", "learn": learned}
    update = {"_target_": "nas.hyperparameters.AdamUpdate", "rate": 0.1}
    rate = {**entry, "_target_": "nas.hyperparameters.LearningRate", "learn": False}
    decay = {**rate, "_target_": "nas.hyperparameters.WeightDecay"}
    momentum = {**entry, "_target_": "nas.hyperparameters.Momentum", "update": update}
    config = OmegaConf.create({"learning_rate": rate, "weight_decay": decay, "momentum": momentum})
    assert "momentum" in built_hyperparameters(config)[0].entries
    if learned:
        with pytest.raises(InvalidValue, match=r"^hyperparameters\.momentum\.learn=true .*no momentum"):
            built_hyperparameters(config, ADAMW.absent_hyperparameters)
    else:
        assert "momentum" not in built_hyperparameters(config, ADAMW.absent_hyperparameters)[0].entries


def test_an_optimiser_without_a_function_is_refused() -> None:
    weights = dict(network().named_parameters())
    for optimiser in (torch.optim.Adam(weights.values()), torch.optim.AdamW(weights.values(), amsgrad=True)):
        with pytest.raises(ValueError, match="function"):
            as_function(optimiser, weights, {"momentum": 0.0})
