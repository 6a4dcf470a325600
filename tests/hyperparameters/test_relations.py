"""Hyperparameters that raise one quantity move it once; against autograd in the other coordinates, and closed forms."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from nas.errors import InvalidValue
from nas.hyperparameters.building import built_hyperparameters
from nas.hyperparameters.collection import HyperparameterOptimiser, HyperparameterSet
from nas.hyperparameters.kinds import Hyperparameter, LabelSmoothing, LearningRate, Momentum, RateFactor, WeightDecay
from nas.hyperparameters.relations import EffectiveRate, MeanFactor
from nas.hyperparameters.rules import GradientDescent

CONF = str(Path(__file__).resolve().parents[2] / "conf")
RATE = 0.01
FACTORS = {"rate_factor_convolution": 2.0, "rate_factor_dense": 0.5, "rate_factor_normalisation": 3.0}


def entries(scale: Any = "logit", high: float = 0.5, factors: Mapping[str, float] = FACTORS) -> dict[str, Any]:
    found: dict[str, Hyperparameter] = {
        "learning_rate": LearningRate(0.02, 1e-5, high, "log", True, GradientDescent(RATE)),
        "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
        "momentum": Momentum(0.8, 0.1, 0.99, scale, True, GradientDescent(RATE)),
    }
    for name, value in factors.items():
        found[name] = RateFactor(value, 0.1, 10.0, "log", True, GradientDescent(RATE))
    return found


def moved(hyperparameters: HyperparameterSet, gradients: Mapping[str, Tensor]) -> None:
    for name, raw in hyperparameters.named_raw():
        raw.grad = gradients[name].clone() if name in gradients else torch.zeros_like(raw)
    HyperparameterOptimiser(hyperparameters).step(dict.fromkeys(hyperparameters.raw_parameters(), 0.0))


def loss(rate: Tensor, momentum: Tensor) -> Tensor:
    """Something in which both matter, and not through their quotient alone."""
    return torch.sin(40 * rate) + (momentum - 0.3) ** 2 * torch.log(rate / (1 - momentum))


@pytest.mark.parametrize("scale", ["logit", "linear"])
def test_learning_rate_and_momentum_descend_in_their_quotient_and_the_split(scale: str) -> None:
    hyperparameters = HyperparameterSet(entries(scale), {"rate": EffectiveRate()})
    rate, split = hyperparameters.raw["learning_rate"], hyperparameters.raw["momentum"]
    momentum = hyperparameters.entries["momentum"]
    effective = (rate - torch.log1p(-momentum.value(split))).detach().requires_grad_()
    own = split.detach().clone().requires_grad_()
    value = loss((effective + torch.log1p(-momentum.value(own))).exp(), momentum.value(own))
    expected = [
        one.item() - RATE * slope.item()
        for one, slope in zip((effective, own), torch.autograd.grad(value, [effective, own]), strict=True)
    ]
    slopes = torch.autograd.grad(loss(rate.exp(), momentum.value(split)), [rate, split])
    moved(hyperparameters, dict(zip(("learning_rate", "momentum"), slopes, strict=True)))
    assert split.item() == pytest.approx(expected[1], abs=1e-14)
    assert rate.item() - math.log1p(-momentum.value(split).item()) == pytest.approx(expected[0], abs=1e-13)


def test_what_depends_on_the_quotient_alone_leaves_the_split_where_it_is() -> None:
    hyperparameters = HyperparameterSet(entries(), {"rate": EffectiveRate()})
    rate, split = hyperparameters.raw["learning_rate"], hyperparameters.raw["momentum"]
    value = (rate.exp() / (1 - hyperparameters.entries["momentum"].value(split))) ** 2  # 0.1 squared
    slopes = torch.autograd.grad(value, [rate, split])
    moved(hyperparameters, dict(zip(("learning_rate", "momentum"), slopes, strict=True)))
    numbers = hyperparameters.numbers()
    assert numbers["momentum"] == pytest.approx(0.8, abs=1e-14)
    assert math.log(numbers["learning_rate"] / 0.02) == pytest.approx(-RATE * 2 * 0.1**2, abs=1e-14)


def test_the_learning_rate_stays_in_its_range() -> None:
    hyperparameters = HyperparameterSet(entries("linear", high=0.0201), {"rate": EffectiveRate()})
    moved(hyperparameters, {"momentum": torch.tensor(5.0, dtype=torch.float64)})  # momentum falls by 0.05
    assert hyperparameters.numbers()["momentum"] == pytest.approx(0.75)
    assert hyperparameters.numbers()["learning_rate"] == pytest.approx(0.0201)


def test_factors_keep_their_geometric_mean_and_move_by_what_their_slopes_differ() -> None:
    hyperparameters = HyperparameterSet(entries(), {"factors": MeanFactor()})
    slopes = dict(zip(FACTORS, torch.tensor([3.0, -1.0, 4.0], dtype=torch.float64), strict=True))
    moved(hyperparameters, slopes)
    numbers = hyperparameters.numbers()
    for name, slope in slopes.items():
        assert math.log(numbers[name] / FACTORS[name]) == pytest.approx(-RATE * (slope.item() - 2.0), abs=1e-12)


def test_factors_keep_it_at_the_ends_of_their_ranges_too() -> None:
    hyperparameters = HyperparameterSet(entries(), {"factors": MeanFactor()})
    slopes = dict(zip(FACTORS, torch.tensor([0.0, 300.0, 0.0], dtype=torch.float64), strict=True))
    moved(hyperparameters, slopes)
    numbers = [hyperparameters.numbers()[name] for name in FACTORS]
    assert numbers[1] == pytest.approx(0.1)
    assert math.prod(numbers) == pytest.approx(3.0, rel=1e-9)
    assert numbers[0] / numbers[2] == pytest.approx(2 / 3)


def test_a_relation_rests_where_less_than_two_are_learned_or_asked() -> None:
    lonely = HyperparameterSet(entries(factors={"rate_factor_dense": 2.0}), {"factors": MeanFactor(), "none": None})
    assert lonely.relations == []
    moved(lonely, {"rate_factor_dense": torch.tensor(1.0, dtype=torch.float64)})
    assert lonely.numbers()["rate_factor_dense"] == pytest.approx(2 * math.exp(-RATE))
    both = HyperparameterSet(entries(), {"rate": EffectiveRate()})
    both.raw["momentum"].grad = torch.tensor(1.0, dtype=torch.float64)
    HyperparameterOptimiser(both).step(dict.fromkeys(both.raw_parameters(), 0.0))
    assert both.numbers()["learning_rate"] == pytest.approx(0.02)


def test_what_does_not_fit_is_refused() -> None:
    wrong: Any = 3
    with pytest.raises(InvalidValue, match=r"relations\.mine=3 .* it must be null or a relation"):
        HyperparameterSet(entries(), {"mine": wrong})
    linear = entries() | {"learning_rate": LearningRate(0.02, 1e-5, 0.5, "linear", True, GradientDescent(RATE))}
    with pytest.raises(InvalidValue, match=r"learning_rate\.scale=.*EffectiveRate moves its logarithm: it must be log"):
        HyperparameterSet(linear, {"rate": EffectiveRate()})


def test_what_is_left_to_trainings_has_a_range_and_rests() -> None:
    left = LabelSmoothing(0.0, 0.0, 0.4, "logit", True, by="trainings")
    hyperparameters = HyperparameterSet(entries(factors={}) | {"label_smoothing": left})
    assert hyperparameters.learned() == ["learning_rate", "momentum"]
    assert list(hyperparameters.candidate_ranges()) == ["label_smoothing", "learning_rate", "momentum"]
    assert hyperparameters.fixed()["label_smoothing"] == 0.0  # said, though it is at rest: a candidate carries it
    assert hyperparameters.numbers()["label_smoothing"] == 0.0


def test_the_configuration_learns_each_quantity_once() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("train_search", ["hyperparameters=one_rate"])
    found, _ = built_hyperparameters(config.hyperparameters)
    assert [type(one) for one in found.relations] == [EffectiveRate, MeanFactor]
    assert found.learned() == ["dropout", "learning_rate", "momentum", *sorted(FACTORS)]
    assert set(found.candidate_ranges()) - set(found.learned()) == {"cutout", "label_smoothing", "mixing"}
