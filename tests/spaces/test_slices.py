"""Slices of a supernet: the same numbers without what is left out, at the price of what is left."""

import pytest
import torch
from torch import Tensor

from nas.errors import InvalidValue
from nas.evaluation.network_cost import count_multiply_adds, supernet_multiply_adds
from nas.evaluation.shared_weights import batch_statistics, relaxed_weights
from nas.signature import Signature
from nas.spaces.macro.slices import only_option
from nas.spaces.macro.space import Macro
from nas.spaces.macro.supernet import MacroSupernet
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.supernet import Implementation, Supernet
from tests.problems import seeded_supernet

LAYERS = [
    {"type": "conv", "filters": [2, 5], "kernel_size": [1, 3], "stride": 2},
    {"type": "conv", "filters": [3, 4], "kernel_size": [1, 3], "optional": True},
    {
        "choose": [
            {"type": "conv", "filters": [2, 3], "kernel_size": 3, "stride": 2},
            {"type": "conv", "filters": [6], "kernel_size": [1, 5], "stride": 2},
            {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]},
        ]
    },
    {"type": "dense", "units": [4, 7], "optional": True},
    {"type": "dense", "units": [3, 6]},
]


def made(implementation: Implementation) -> tuple[Macro, Supernet]:
    space = Macro(LAYERS, ["relu", "tanh"], implementation, signature=Signature((2, 9, 7), 4))
    return space, seeded_supernet(space)[0]


def partly_decided(supernet: Supernet, seed: int, share: float) -> dict[str, Tensor]:
    """The relaxed weights, with the likely ``share`` of the choices one-hot."""
    generator = torch.Generator().manual_seed(seed)
    weights = relaxed_weights(supernet)
    for name, own in weights.items():
        if torch.rand((), generator=generator) < share:
            weights[name] = torch.zeros_like(own)
            weights[name][int(torch.randint(len(own), (), generator=generator))] = 1.0
    return weights


@pytest.mark.parametrize("implementation", ["plain", "fast"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_logits_are_those_of_the_whole_supernet(implementation: Implementation, share: float) -> None:
    space, supernet = made(implementation)
    images = torch.randn(6, 2, 9, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    whole_price = supernet_multiply_adds(space, supernet.relaxation)
    for seed in range(5):
        weights = partly_decided(supernet, seed, share)
        part = space.sliced(supernet, weights)
        with torch.no_grad(), batch_statistics(supernet), batch_statistics(part.supernet):
            torch.testing.assert_close(
                part.supernet(images, part.weights), supernet(images, weights), atol=1e-12, rtol=1e-12
            )
        assert part.weights.keys() == part.supernet.alpha.keys()
        assert isinstance(part.supernet, MacroSupernet)
        price = supernet_multiply_adds(part.supernet.space, supernet.relaxation)
        assert part.multiply_adds == price
        assert price < whole_price if share == 1.0 else price <= whole_price


def test_an_architecture_costs_what_its_network_costs() -> None:
    space, supernet = made("fast")
    for seed in range(4):
        architecture = space.sample(torch.Generator().manual_seed(seed)).architecture
        part = space.sliced(supernet, supernet.architecture_weights(architecture))
        assert part.weights == {}
        own = count_multiply_adds(space.network(architecture), space.input_shape)
        assert part.multiply_adds == own


def test_slicing_draws_no_random_number_and_changes_nothing() -> None:
    space, supernet = made("fast")
    before, state = torch.get_rng_state(), {name: one.clone() for name, one in supernet.state_dict().items()}
    choices = space.choices
    space.sliced(supernet, partly_decided(supernet, 0, 0.5))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one, state[name]) for name, one in supernet.state_dict().items())
    assert space.choices == choices


def test_only_a_one_beside_zeros_decides() -> None:
    assert only_option(torch.tensor([0.0, 1.0, 0.0])) == 1
    for undecided in ([0.0, 0.5], [0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [1.0, 1e-9]):
        assert only_option(torch.tensor(undecided)) is None
    assert only_option(None) is None


def test_spaces_of_cells_say_that_they_cannot() -> None:
    space = NasBench201(channels=2, cells_per_stage=1, signature=Signature((1, 8, 8), 3))
    supernet, _ = seeded_supernet(space)
    with pytest.raises(InvalidValue, match="its supernet cannot leave options out: take macro"):
        space.sliced(supernet, relaxed_weights(supernet))
