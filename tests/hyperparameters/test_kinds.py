"""The kinds of hyperparameter: their scales, bounds, caps, and the layers that they act on."""

import math

import pytest
import torch
from torch import nn

from nas.errors import InvalidValue
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import (
    LOGIT_BOUND,
    Cutout,
    DropoutRate,
    DropPathRate,
    Hyperparameter,
    LayerDropoutRate,
    LearningRate,
    Mixing,
    WeightDecay,
)
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.stochastic import Dropout, DropPath, LayerDropout

LOG = LearningRate(0.01, 1e-5, 0.5, "log", True, CosineNormalised(0.3))
LOGIT = DropoutRate(0.3, 0.1, 0.9, "logit", True, AdamUpdate(0.1), cap=0.5)
PATH = DropPathRate(0.3, 0.1, 0.9, "logit", True, AdamUpdate(0.1))
LINEAR = WeightDecay(3e-4, 0.0, 0.01, "linear", True, AdamUpdate(0.1))
EACH_SCALE = pytest.mark.parametrize("entry", [LOG, LOGIT, LINEAR], ids=["log", "logit", "linear"])


def value_of(entry: Hyperparameter, raw: float) -> float:
    return float(entry.value(torch.tensor(raw, dtype=torch.float64)))


@EACH_SCALE
def test_raw_and_value_are_inverse_to_each_other(entry):
    for place in (0.01, 0.3, 0.5, 0.99):
        value = entry.low + place * (entry.high - entry.low)
        assert value_of(entry, entry.raw(value)) == pytest.approx(value, rel=1e-12)
    low, high = entry.raw_bounds()
    raws = torch.linspace(low + 1e-9, high - 1e-9, 7, dtype=torch.float64)
    values = [value_of(entry, float(raw)) for raw in raws]
    assert values == sorted(set(values))
    assert [entry.raw(value) for value in values] == pytest.approx(raws.tolist(), rel=1e-9)


def test_the_bijections_are_logarithm_logit_and_identity():
    assert LOG.raw(0.01) == pytest.approx(math.log(0.01))
    assert LOGIT.raw(0.3) == pytest.approx(math.log(0.25 / 0.75))  # a quarter of the way from 0.1 to 0.9
    assert LINEAR.raw(3e-4) == 3e-4


@EACH_SCALE
def test_the_value_is_differentiable_in_the_raw_parameter(entry):
    raw = torch.tensor(entry.raw(entry.initial), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entry.value, [raw])


@EACH_SCALE
def test_set_value_goes_where_it_is_told_and_no_further_than_the_range(entry):
    hyperparameters = HyperparameterSet({"learning_rate": LOG, "weight_decay": LINEAR, "dropout": LOGIT})
    for value in (entry.low, entry.high, -1.0, 1e9, entry.initial):
        hyperparameters.set_value(entry.names[0], value)
        number = hyperparameters.numbers()[entry.names[0]]
        margin = 1e-3 * (entry.high - entry.low) if entry.scale == "logit" else 1e-9
        assert number == pytest.approx(min(max(value, entry.low), entry.high), abs=margin)
    assert number == pytest.approx(entry.initial, rel=1e-12)


@EACH_SCALE
def test_clamp_brings_a_raw_parameter_back_to_its_range(entry):
    hyperparameters = HyperparameterSet({"learning_rate": LOG, "weight_decay": LINEAR, "dropout": LOGIT})
    for wild, end in ((-1e6, entry.low), (1e6, entry.high)):
        with torch.no_grad():
            hyperparameters.raw[entry.names[0]].fill_(wild)
        assert entry.project(hyperparameters.raw[entry.names[0]], hyperparameters.raw[entry.names[0]]) == ["bound"]
        assert hyperparameters.numbers()[entry.names[0]] == pytest.approx(end, abs=1e-3 * (entry.high - entry.low))
        assert hyperparameters.raw[entry.names[0]].item() in entry.raw_bounds()


def test_on_a_logit_scale_the_gradient_never_vanishes():
    raw = torch.tensor(LOGIT_BOUND, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LOGIT.value(raw), raw)
    assert float(slope) > 1e-4


def test_averages_are_taken_in_the_scales_measure_and_capped():
    values = torch.tensor([1e-4, 1e-2], dtype=torch.float64)
    assert LOG.average(values) == pytest.approx(1e-3)
    assert LINEAR.average(values) == pytest.approx(5.05e-3)
    assert LOGIT.average(torch.tensor([0.2, 0.4], dtype=torch.float64)) == pytest.approx(0.3)
    assert LOGIT.average(torch.tensor([0.8, 0.4], dtype=torch.float64)) == 0.5


def learned(kind: type[Hyperparameter] = WeightDecay, **settings: object) -> Hyperparameter:
    defaults = {"initial": 0.1, "low": 0.01, "high": 0.5, "scale": "log", "learn": True, "update": AdamUpdate(0.1)}
    return kind(**{**defaults, **settings})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: learned(DropoutRate, initial=1.2, learn=False),
            "initial=1.2 is not allowed: it must be a number from 0 to 0.99.",
        ),
        (
            lambda: learned(DropoutRate, initial=1.2),
            "initial=1.2 is not allowed: it must be a number from 0 to 0.99.",
        ),
        (
            lambda: learned(DropPathRate, high=1.0),
            "high=1.0 is not allowed: it must be a number from 0 to 0.99.",
        ),
        (lambda: learned(low=-0.1), "low=-0.1 is not allowed: it must be finite and at least 0."),
        (lambda: learned(high=math.nan), "high=nan is not allowed: it must be finite and at least 0."),
        (lambda: learned(low=0.6), "high=0.5 is not allowed: it must be above low=0.6."),
        (lambda: learned(low=0.5, high=0.5), "high=0.5 is not allowed: it must be above low=0.5."),
        (lambda: learned(low=0.0), "low=0.0 is not allowed: a log scale needs a bound above 0."),
        (lambda: learned(high=math.inf), "high=inf is not allowed: it must be above low=0.01."),
        (lambda: learned(initial=0.7), "initial=0.7 is not allowed: it must lie between low=0.01 and high=0.5."),
        (
            lambda: learned(scale="logit", initial=0.5),
            "initial=0.5 is not allowed: it must lie strictly between low=0.01 and high=0.5.",
        ),
        (lambda: learned(initial=math.nan), "initial=nan is not allowed: it must be finite and at least 0."),
        (lambda: learned(initial=math.inf), "initial=inf is not allowed: it must be finite and at least 0."),
        (
            lambda: learned(initial=-0.1, learn=False),
            "initial=-0.1 is not allowed: it must be finite and at least 0.",
        ),
        (lambda: learned(LearningRate, initial=0.0), "initial=0.0 is not allowed: it must be above 0."),
        (lambda: learned(update=None), "update=null is not allowed: a learned hyperparameter needs an update rule."),
        (
            lambda: learned(cap=0.6),
            "cap=0.6 is not allowed: it must be null or above low=0.01 and at most high=0.5.",
        ),
        (
            lambda: learned(cap=0.01),
            "cap=0.01 is not allowed: it must be null or above low=0.01 and at most high=0.5.",
        ),
        (
            lambda: learned(update=CosineNormalised(0.3)),
            "update=CosineNormalised is not allowed: it is for a learning rate on a log scale, take AdamUpdate.",
        ),
        (
            lambda: learned(LearningRate, update=CosineNormalised(0.3), scale="linear"),
            "update=CosineNormalised is not allowed: it is for a learning rate on a log scale, take AdamUpdate.",
        ),
        (
            lambda: HyperparameterSet({"learning_rate": LOG}),
            "weight_decay=null is not allowed: every search needs it.",
        ),
        (
            lambda: HyperparameterSet({"weight_decay": LINEAR}),
            "learning_rate=null is not allowed: every search needs it.",
        ),
        (
            lambda: HyperparameterSet({"learning_rate": LOG, "weight_decay": 0.1}),
            "weight_decay=0.1 is not allowed: it must be a hyperparameter with a _target_.",
        ),
        (
            lambda: HyperparameterSet({"learning_rate": LOG, "weight_decay": LINEAR, "drop": LOGIT}),
            "drop=DropoutRate is not allowed: DropoutRate must be called dropout, the training loop's name for it.",
        ),
        (
            lambda: learned(Cutout, initial=0.0, low=0.0, scale="linear"),
            "initial=0.0 is not allowed: a learned one must start above 0.",
        ),
        (
            lambda: HyperparameterSet(
                {"learning_rate": LOG, "weight_decay": LINEAR, "dropout": LOGIT}
            ).require_effect_on(nn.Sequential(nn.Dropout())),
            "dropout.learn=true is not allowed: the supernet has nothing that it acts on, such as a layer of "
            "nas.operations.stochastic; take false.",
        ),
        (
            lambda: HyperparameterSet(
                {"learning_rate": LOG, "weight_decay": LINEAR, "drop_path": PATH}
            ).require_effect_on(nn.Sequential(Dropout())),
            "drop_path.learn=true is not allowed: the supernet has nothing that it acts on, such as a layer of "
            "nas.operations.stochastic; take false.",
        ),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(make, sentence):
    with pytest.raises(InvalidValue) as error:
        make()
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "make",
    [
        lambda: learned(initial=0.01),
        lambda: learned(initial=0.5),
        lambda: learned(cap=0.5),
        lambda: learned(DropoutRate, initial=0.0, low=0.4, high=0.3, update=None, learn=False),
        lambda: learned(WeightDecay, initial=0.0, low=0.0, scale="linear"),
    ],
)
def test_what_is_possible_is_accepted(make):
    entry = make()
    HyperparameterSet({"learning_rate": LOG, "weight_decay": LINEAR, entry.names[0]: entry})


def test_a_set_knows_what_is_learned_and_what_acts_through_the_loss():
    fixed = DropPathRate(0.2, 0.0, 0.9, "logit", learn=False)
    hyperparameters = HyperparameterSet(
        {"learning_rate": LOG, "weight_decay": LINEAR, "dropout": LOGIT, "drop_path": fixed}
    )
    assert set(hyperparameters.learned()) == {"learning_rate", "weight_decay", "dropout"}
    assert hyperparameters.acting_through_loss() == [hyperparameters.raw["dropout"]]
    assert dict(hyperparameters.named_raw()) == dict(
        zip(hyperparameters.learned(), hyperparameters.raw_parameters(), strict=True)
    )
    values = hyperparameters.values()
    assert values["drop_path"] == 0.2
    assert all(values[name].requires_grad for name in hyperparameters.learned())
    assert hyperparameters.numbers() == pytest.approx(
        {"learning_rate": 0.01, "weight_decay": 3e-4, "dropout": 0.3, "drop_path": 0.2}
    )


def test_rates_are_bound_to_the_layers_that_they_are_of():
    network = nn.Sequential(Dropout(), DropPath(), Dropout())
    fixed = DropPathRate(0.2, 0.0, 0.9, "logit", learn=False)
    hyperparameters = HyperparameterSet(
        {"learning_rate": LOG, "weight_decay": LINEAR, "dropout": LOGIT, "drop_path": fixed}
    )
    values = hyperparameters.values()
    hyperparameters.bind(network, values)
    assert network[0].rate is values["dropout"]
    assert network[2].rate is values["dropout"]
    assert network[1].rate == 0.2


def test_a_layers_own_dropout_is_bound_to_that_layer_and_the_common_rate_to_the_others():
    own = LayerDropoutRate(0.4, 0.0, 0.9, "logit", False, layer="layer2")
    hyperparameters = HyperparameterSet(
        {"learning_rate": LOG, "weight_decay": LINEAR, "dropout": LOGIT, "dropout_layer2": own}
    )
    inner = nn.ModuleDict({"layer2": nn.Sequential(LayerDropout()), "layer20": nn.Sequential(LayerDropout())})
    network = nn.ModuleDict({"slots": inner, "dropout": Dropout()})
    hyperparameters.bind(network, hyperparameters.numbers())
    assert inner["layer2"][0].rate == 0.4
    assert inner["layer20"][0].rate == 0.0
    assert network["dropout"].rate == pytest.approx(0.3)
    assert own.acts_on(network)
    assert not LayerDropoutRate(0.4, 0.0, 0.9, "logit", False, layer="layer3").acts_on(network)


def test_what_is_fixed_at_its_neutral_value_is_not_told():
    entries = {"learning_rate": LOG, "weight_decay": LINEAR, "mixing": Mixing(0.0, 0.0, 1.0, "linear", False)}
    assert HyperparameterSet(entries).fixed() == {}
    entries["mixing"] = Mixing(0.2, 0.0, 1.0, "linear", False)
    assert HyperparameterSet(entries).fixed() == {"mixing": 0.2}
