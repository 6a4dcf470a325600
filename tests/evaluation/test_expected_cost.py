"""The expected cost of a relaxed architecture: the network's own at one-hot, a mean in between, differentiable."""

import itertools
import math
from copy import copy

import pytest
import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.evaluation.network_cost import (
    BlockCosts,
    as_used,
    count_multiply_adds,
    count_parameters,
    measure_latency,
    network_cost,
    supernet_multiply_adds,
)
from nas.evaluation.objective import CostPenalty
from nas.interop.named_architecture import PUBLISHED
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace

LAYERS = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]},
    {"type": "conv", "filters": [2, 6], "kernel_size": 3, "optional": True},
    {
        "choose": [
            {"type": "conv", "filters": [4, 6], "kernel_size": 3, "stride": 2},
            {"type": "pool", "pool_size": 2, "kind": "max"},
        ]
    },
    {"type": "dense", "units": [4, 8], "optional": True},
]
SPACES: dict[str, SearchSpace] = {
    "macro": Macro(LAYERS, ["relu", "tanh"], signature=Signature((1, 9, 7), 5)),
    "nasbench201": NasBench201(channels=4, cells_per_stage=2, signature=Signature((3, 9, 9), 10)),
    "darts": Darts(steps=2, multiplier=2, final_channels=4, final_cells=5, signature=Signature((3, 15, 15), 10)),
    "imagenet": Darts(
        steps=2,
        multiplier=2,
        final_channels=4,
        final_cells=4,
        final_network="imagenet",
        signature=Signature((3, 36, 36), 10),
    ),
}


def sampled(space: SearchSpace, count: int) -> list[Architecture]:
    generator = torch.Generator().manual_seed(0)
    return [space.sample(generator).architecture for _ in range(count)]


@pytest.mark.parametrize("name", list(SPACES))
@pytest.mark.parametrize("cost", ["parameters", "multiply_adds"])
def test_at_one_hot_it_is_the_networks_own(name: str, cost: str) -> None:
    space, blocks, own = SPACES[name], BlockCosts(cost), network_cost(cost)
    for architecture in sampled(space, 4):
        expected = space.expected_cost(space.architecture_weights(architecture), blocks)
        assert float(expected) == pytest.approx(own(space.network(architecture), space.input_shape), rel=1e-6)


def test_between_one_hots_it_is_the_mean_over_independent_draws() -> None:
    space = Macro(
        [
            {"type": "conv", "filters": [2, 5], "kernel_size": [1, 3]},
            {"type": "conv", "filters": [3, 4], "kernel_size": 3, "optional": True},
            {"type": "dense", "units": [4, 6]},
        ],
        ["relu"],
        signature=Signature((1, 4, 4), 3),
    )
    torch.manual_seed(0)
    alphas = {name: torch.randn(weight.shape, dtype=torch.float64) for name, weight in one_hot(space).items()}
    weights = {name: alpha.softmax(-1) for name, alpha in alphas.items()}
    mean = 0.0
    for options in itertools.product(*(range(len(choice.options)) for choice in space.choices)):
        chosen = {choice.name: choice.options[index] for choice, index in zip(space.choices, options, strict=True)}
        likely = math.prod(float(weights[name][index]) for name, index in zip(weights, options, strict=True))
        mean += likely * count_parameters(space.network(Architecture("macro", chosen)), space.input_shape)
    assert float(space.expected_cost(weights, BlockCosts("parameters"))) == pytest.approx(mean, rel=1e-12)


def one_hot(space: SearchSpace) -> dict[str, Tensor]:
    return space.architecture_weights(sampled(space, 1)[0])


@pytest.mark.parametrize("name", list(SPACES))
def test_it_is_differentiable(name: str) -> None:
    space, blocks = SPACES[name], BlockCosts("parameters")
    torch.manual_seed(0)
    weights = {
        key: torch.rand(weight.shape, dtype=torch.float64, requires_grad=True) for key, weight in one_hot(space).items()
    }

    def cost(*values: Tensor) -> Tensor:
        return space.expected_cost(dict(zip(weights, values, strict=True)), blocks) / 1000

    assert torch.autograd.gradcheck(cost, tuple(weights.values()))


@pytest.mark.parametrize("name", ["macro", "nasbench201", "darts"])
def test_the_supernet_computes_an_architecture_with_its_weights(name: str) -> None:
    space = SPACES[name]
    torch.manual_seed(0)
    supernet = space.supernet(Softmax(Temperature()))
    (architecture,) = sampled(space, 1)
    weights = supernet.architecture_weights(architecture)
    assert {key: weight.shape for key, weight in weights.items()} == {
        key: alpha.shape for key, alpha in supernet.alpha.items()
    }
    images = torch.randn(4, *space.input_shape)
    logits = supernet.eval()(images, weights)
    if name == "macro":  # its stand-alone network has the same sizes
        network = space.network(architecture).eval()
        network.load_state_dict(supernet.inherited_state(architecture))
        torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-5)
    assert not torch.equal(logits, supernet(images))


def test_multiply_adds_are_counted_by_hand_and_change_nothing() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, groups=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 25, 7),
    )
    before = {name: entry.clone() for name, entry in network.state_dict().items()}
    assert count_multiply_adds(network.train(), (3, 5, 5)) == 25 * 8 * 3 * 9 + 8 * 25 * 7
    assert network.training
    assert all(torch.equal(entry, before[name]) for name, entry in network.state_dict().items())
    depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert count_multiply_adds(depthwise, (8, 5, 5)) == 25 * 8 * 9


@pytest.mark.parametrize("name", ["macro", "nasbench201", "darts"])
def test_a_supernets_multiply_adds_are_those_of_its_plain_implementation(name: str) -> None:
    space = copy(SPACES[name])
    relaxation = Softmax(Temperature())
    counted = supernet_multiply_adds(space, relaxation)
    space.implementation = "plain"
    assert counted == count_multiply_adds(space.supernet(relaxation), space.input_shape) > 0


def test_parameters_and_multiply_adds_are_those_of_darts_v2_in_use() -> None:
    """Both columns of a table are of one network, the one without the head of the training."""
    published = {
        "cifar": (3_349_342, 528.4e6, {"signature": Signature((3, 32, 32), 10)}),
        "imagenet": (
            4_718_752,
            529.9e6,
            {"final_channels": 48, "final_cells": 14, "signature": Signature((3, 224, 224), 1000)},
        ),
    }
    for kind, (parameters, multiply_adds, settings) in published.items():
        for auxiliary in (True, False):
            space = Darts(final_network=kind, auxiliary=auxiliary, **settings).for_genotype(PUBLISHED["darts_v2"])
            with torch.device("meta"):
                network = space.network(space.architecture(PUBLISHED["darts_v2"]))
            assert count_parameters(network, space.input_shape) == parameters
            assert count_multiply_adds(network, space.input_shape) == pytest.approx(multiply_adds, abs=5e4)


def test_a_network_as_it_is_used_shares_its_weights_and_lacks_the_head() -> None:
    space = Darts(final_channels=2, final_cells=3, auxiliary=True, signature=Signature((3, 16, 16), 4))
    network = space.network(sampled(space, 1)[0])
    used, images = as_used(network), torch.randn(2, 3, 16, 16)
    assert isinstance(network.train()(images), tuple)  # the network itself keeps its head
    assert isinstance(used.train()(images), Tensor)
    assert torch.equal(used.eval()(images), network.eval()(images))
    assert not any(name.startswith("auxiliary_head") for name in used.state_dict())
    own = dict(network.named_parameters())
    assert all(parameter is own[name] for name, parameter in used.named_parameters())
    plain = torch.nn.Linear(2, 2)
    assert as_used(plain) is plain


def test_an_evaluation_and_the_expected_cost_count_no_auxiliary_head() -> None:
    space = Darts(
        channels=2, cells=3, final_channels=2, final_cells=3, auxiliary=True, signature=Signature((3, 8, 8), 4)
    )
    (architecture,) = sampled(space, 1)
    expected = space.expected_cost(space.architecture_weights(architecture), BlockCosts("parameters"))
    network = space.network(architecture)
    assert float(expected) == count_parameters(network, space.input_shape) < 10_000
    assert sum(parameter.numel() for parameter in network.parameters()) > 400_000


def test_latency_grows_with_the_network_and_is_measured_once() -> None:
    small, large = torch.nn.Linear(8, 8), torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(2)))
    assert 0 < measure_latency(small, (8,)) < measure_latency(large, (2048,))
    blocks = BlockCosts("latency")
    first = blocks("a", lambda: torch.nn.Linear(8, 8), (8,))
    assert blocks("a", lambda: torch.nn.Linear(8, 8), (8,)) == first > 0


def test_the_penalty_of_a_mean_network_is_the_weight() -> None:
    space = SPACES["macro"]
    penalty = CostPenalty(0.3, {"parameters": 1.0, "multiply_adds": 0.0}, space)
    uniform = {key: torch.full_like(weight, 1 / weight.shape[-1]) for key, weight in one_hot(space).items()}
    expected = penalty.expected(uniform)
    assert expected is not None
    assert float(expected) == pytest.approx(0.3)
    architectures = sampled(space, 200)
    mean = sum(penalty.of(architecture) for architecture in architectures) / 200
    assert mean == pytest.approx(0.3, rel=0.1)
    sizes = [count_parameters(space.network(one), space.input_shape) for one in architectures[:3]]
    shares = [penalty.of(one) / size for one, size in zip(architectures[:3], sizes, strict=True)]
    assert shares == pytest.approx([shares[0]] * 3)
    free = CostPenalty(0.0, {"parameters": 1.0}, space)
    assert free.expected(uniform) is None
    assert free.of(architectures[0]) == 0.0


def test_measured_latencies_go_into_the_state() -> None:
    space = SPACES["nasbench201"]
    penalty = CostPenalty(0.1, {"latency": 1.0}, space)
    (architecture,) = sampled(space, 1)
    value = penalty.of(architecture)
    other = CostPenalty(0.1, {"latency": 1.0}, space)
    other.load_state_dict(penalty.state_dict())
    assert other.of(architecture) == value > 0


@pytest.mark.parametrize(
    ("weight", "shares", "key"),
    [(-1.0, {}, "cost_weight"), (0.1, {"size": 1.0}, "costs.size"), (0.1, {"parameters": -1.0}, "costs.parameters")],
)
def test_impossible_penalties_are_refused(weight: float, shares: dict[str, float], key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        CostPenalty(weight, shares, SPACES["macro"])
    assert caught.value.key == key
