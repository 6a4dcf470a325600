"""A hyperparameter as a softmax-weighted mixture of basis values: its value, its slope, its moves."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.last_step import LastStep
from nas.bilevel.reach import check_reach
from nas.errors import InvalidValue
from nas.hyperparameters.collection import HyperparameterOptimiser, HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, LearningRate, Momentum, WeightDecay
from nas.hyperparameters.mixture import maximum_entropy_logits
from nas.hyperparameters.relations import EffectiveRate
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised, GradientDescent

RATE = LearningRate(0.01, 1e-4, 1.0, "log", True, AdamUpdate(0.1), basis=5)
DECAY = WeightDecay(3e-4, 1e-6, 1e-2, "log", False)
DROPOUT = DropoutRate(0.3, 0.0, 0.9, "logit", True, AdamUpdate(0.1), cap=0.5, basis=4)


@pytest.mark.parametrize("entry", [RATE, DROPOUT], ids=["log", "linear places"])
@pytest.mark.parametrize("place", [0.002, 0.3, 0.5, 0.9])
def test_raw_and_value_are_inverse_and_the_slope_is_that_of_the_mean_place(entry: Any, place: float) -> None:
    wanted = entry.range.from_unit(place)
    raw = torch.tensor(entry.raw(wanted), dtype=torch.float64, requires_grad=True)
    assert raw.shape == (entry.basis,)
    value = entry.value(raw)
    assert value.item() == pytest.approx(wanted, rel=1e-9)
    (slope,) = torch.autograd.grad(value, raw)
    places = torch.linspace(0, 1, entry.basis, dtype=torch.float64)
    along = wanted * math.log(entry.high / entry.low) if entry.scale == "log" else entry.high - entry.low
    torch.testing.assert_close(slope, along * raw.detach().softmax(0) * (places - place))


def test_one_basis_value_alone_gives_that_value() -> None:
    for index, value in enumerate((1e-4, 1e-3, 1e-2, 1e-1, 1.0)):
        raw = torch.full((5,), -40.0, dtype=torch.float64)
        raw[index] = 0.0
        assert RATE.value(raw).item() == pytest.approx(value)


def test_the_start_is_the_most_even_mixture() -> None:
    """Of all with this mean: its logits lie on a line (the largest entropy under a linear constraint)."""
    logits = torch.tensor(maximum_entropy_logits(0.3, 6), dtype=torch.float64)
    torch.testing.assert_close(logits.diff(), logits.diff()[0].expand(5))
    assert (logits.softmax(0) * torch.linspace(0, 1, 6, dtype=torch.float64)).sum().item() == pytest.approx(0.3)
    assert maximum_entropy_logits(0.5, 6) == pytest.approx([0.0] * 6, abs=1e-12)


@pytest.mark.parametrize("hypergradient", [Exact(), LastStep()], ids=["exact", "last step"])
def test_its_hypergradient_is_that_of_the_value_along_its_slope(
    hypergradient: Any, make_problem: Any, make_entries: Any, make_batch: Any
) -> None:
    found = {}
    for name, basis in (("one", None), ("mixture", 5)):
        entries = make_entries(("learning_rate", "dropout"))
        for which in ("learning_rate", "dropout"):
            own = replace(entries[which], update=AdamUpdate(0.1), basis=basis)
            entries[which] = replace(own, scale="log" if which == "learning_rate" else "linear")
        problem = make_problem(filled=True, hyperparameters=HyperparameterSet(entries))
        kinds = problem.hyperparameters.learned_kinds()
        problem.step(make_batch(10), keep_graph=True, second_order=hypergradient.differentiates_twice(kinds))
        raws = problem.hyperparameters.raw_parameters()
        found[name] = hypergradient.gradients(problem, make_batch(10), make_batch(11), raws).gradients
        hyperparameters = problem.hyperparameters
    for name, scalar, vector in zip(hyperparameters.learned(), *found.values(), strict=True):
        raw = hyperparameters.raw[name]
        value = hyperparameters.entries[name].value(raw)
        own = value.log() if name == "learning_rate" else value
        (slope,) = torch.autograd.grad(own, raw)
        torch.testing.assert_close(vector, scalar * slope, rtol=1e-8, atol=1e-14)


def test_it_moves_within_its_trust_region_and_its_state_goes_on() -> None:
    first = HyperparameterSet({"learning_rate": replace(RATE, trust_region=0.05), "weight_decay": DECAY})
    optimiser, raw = HyperparameterOptimiser(first), first.raw["learning_rate"]
    before = raw.detach().clone()
    raw.grad = torch.tensor([1.0, -1.0, 0.0, 2.0, -3.0], dtype=torch.float64)
    norms, held = optimiser.step({raw: 0.0})
    assert norms == {"learning_rate": 3.0}
    assert [one.kind for one in held] == ["trust_region"]
    torch.testing.assert_close(raw.detach() - before, torch.tensor([-0.05, 0.05, 0, -0.05, 0.05], dtype=torch.float64))
    second = HyperparameterSet({"learning_rate": replace(RATE, trust_region=0.05), "weight_decay": DECAY})
    HyperparameterOptimiser(second).load_state_dict(optimiser.state_dict())
    assert torch.equal(second.raw["learning_rate"], raw)
    second.set_value("learning_rate", 0.2)
    assert second.numbers()["learning_rate"] == pytest.approx(0.2)


def test_what_needs_one_number_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"update=.*it moves one number, and a basis has several: take AdamUpdate"):
        replace(RATE, update=CosineNormalised(0.3))
    with pytest.raises(InvalidValue, match=r"basis=1 .* it must be null or at least 2"):
        replace(RATE, basis=1)
    entries: dict[str, Any] = {"learning_rate": RATE, "weight_decay": DECAY}
    with pytest.raises(InvalidValue, match=r"it follows one number per hyperparameter, and learning_rate has a basis"):
        check_reach(FirstOrder(), ForwardAccumulation(), HyperparameterSet(entries))
    momentum = Momentum(0.9, 0.0, 0.99, "logit", True, GradientDescent(0.1))
    with pytest.raises(InvalidValue, match=r"learning_rate\.basis=5.*EffectiveRate moves its logarithm"):
        HyperparameterSet(entries | {"momentum": momentum}, {"rate": EffectiveRate()})
