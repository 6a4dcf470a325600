"""The NAS-Bench-201 space: texts, discretisation, supernet and stand-alone network."""

import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nas.candidate import Architecture
from nas.configuration import build
from nas.errors import InvalidValue
from nas.operations.stochastic import Dropout, DropPath
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.nasbench201.choices import OPERATIONS, architecture_text, parse_architecture
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.nasbench201.supernet import NasBench201Supernet
from nas.spaces.recorded import space_from_description

SHAPE = (3, 8, 8)
TEXT = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


def small_space() -> NasBench201:
    return NasBench201(4, 1, signature=Signature(SHAPE, 5))


def supernet_of(space: NasBench201) -> NasBench201Supernet:
    return space.supernet(Softmax(Temperature()))


def test_space_has_all_15625_cells() -> None:
    space = small_space()
    assert space.size() == 15_625
    assert [choice.name for choice in space.choices][:3] == ["node1.from0", "node2.from0", "node2.from1"]


def test_text_round_trip() -> None:
    architecture = parse_architecture(TEXT)
    assert architecture["node3.from1"] == "nor_conv_1x1"
    assert architecture_text(architecture) == TEXT
    architecture.check(small_space().choices)
    for seed in range(20):
        sampled = small_space().sample(torch.Generator().manual_seed(seed)).architecture
        assert parse_architecture(architecture_text(sampled)) == sampled


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "|none~0|",
        TEXT + "+|none~0|",
        TEXT.replace("none", "sep_conv_3x3"),
        TEXT.replace("~1|+", "~0|+"),
        TEXT.replace("~2", "~02"),
        TEXT.replace("~2", "~2~2"),
        TEXT.replace("|nor_conv_1x1~1", ""),
        TEXT[:-1],
        TEXT[1:],
        TEXT.replace("|+|", "|+|none~0|", 1),
        "__import__('os').getcwd()",
        TEXT * 1000,
    ],
)
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(InvalidValue, match="architecture"):
        parse_architecture(text)


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {},
        {"channels": 4},
        {"channels": 4, "cells_per_stage": 0},
        {"channels": 4.0, "cells_per_stage": 1},
        {"channels": True, "cells_per_stage": 1},
        {"channels": 10**6, "cells_per_stage": 1},
        {"channels": 4, "cells_per_stage": 1, "more": 1},
    ],
)
def test_impossible_settings_are_refused(settings: object) -> None:
    with pytest.raises(InvalidValue, match="it must"):
        space_from_description({**NasBench201(signature=Signature(SHAPE, 5)).describe(), "settings": settings})


def test_the_configured_space_is_the_papers() -> None:
    settings = OmegaConf.load(Path(__file__).resolve().parents[2] / "conf" / "space" / "nasbench201.yaml")
    space = build(settings, "space", signature=Signature((3, 32, 32), 10))
    assert space.settings() == {"channels": 16, "cells_per_stage": 5}


def test_description_round_trip() -> None:
    space = small_space()
    rebuilt = space_from_description(space.describe())
    assert rebuilt.describe() == space.describe()
    candidate = space.sample(torch.Generator().manual_seed(0))
    assert rebuilt.decode(space.encode(candidate)) == candidate


def test_each_edge_keeps_its_strongest_operation_none_included() -> None:
    supernet = supernet_of(small_space())
    wanted = parse_architecture(TEXT)
    with torch.no_grad():
        supernet.alpha["cell"].copy_(supernet.architecture_weights(wanted)["cell"])
    assert supernet.discretise() == wanted


def test_ties_go_to_the_earlier_operation() -> None:
    supernet = supernet_of(small_space())
    with torch.no_grad():
        supernet.alpha["cell"].zero_()
        supernet.alpha["cell"][2, [2, 4]] = 1.0
    architecture = supernet.discretise()
    assert architecture["node2.from1"] == "nor_conv_1x1"
    assert architecture["node1.from0"] == "none"


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_an_alpha_that_is_not_finite_is_named(value: float) -> None:
    supernet = supernet_of(small_space())
    with torch.no_grad():
        supernet.alpha["cell"][3, 1] = value
    with pytest.raises(FloatingPointError, match=r"alpha of node3\.from0 is not finite"):
        supernet.discretise()


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("none", "avg_pool_3x3"), TEXT.replace("skip_connect", "none")])
def test_one_hot_supernet_computes_the_discretised_network(text: str) -> None:
    space = small_space()
    torch.manual_seed(0)
    supernet = supernet_of(space).double()
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    supernet(x)
    architecture = parse_architecture(text)
    network = space.network(architecture).double()
    network.load_state_dict(supernet.inherited_state(architecture))
    weights = supernet.architecture_weights(architecture)
    for training in (False, True):
        supernet.train(training)
        network.train(training)
        assert torch.allclose(supernet(x, weights), network(x), rtol=0, atol=1e-12)


def test_a_cell_of_nothing_still_has_gradients_of_zero() -> None:
    space = small_space()
    nothing = Architecture(space.name, {choice.name: "none" for choice in space.choices})
    network = space.network(nothing)
    gradients = torch.autograd.grad(network(torch.randn(2, *SHAPE)).sum(), [network.stem[0].weight])
    assert not gradients[0].any()


def test_alpha_rows_and_affine_batch_norms() -> None:
    supernet = supernet_of(small_space())
    assert tuple(supernet.alpha["cell"].shape) == (6, len(OPERATIONS))
    assert list(supernet.probabilities()) == [choice.name for choice in small_space().choices]
    inside = [module for name, module in supernet.named_modules() if ".edges." in name and hasattr(module, "affine")]
    assert inside
    assert not any(module.affine for module in inside)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7)])
def test_other_images(shape: tuple[int, int, int]) -> None:
    space = NasBench201(2, 1, signature=Signature(shape, 3))
    assert supernet_of(space)(torch.randn(2, *shape)).shape == (2, 3)
    assert space.network(parse_architecture(TEXT))(torch.randn(2, *shape)).shape == (2, 3)


def test_both_networks_have_a_place_for_learned_rates() -> None:
    space = small_space()
    for network in (supernet_of(space), space.network(parse_architecture(TEXT))):
        noisy = [module for module in network.modules() if isinstance(module, Dropout | DropPath)]
        x = torch.randn(4, *SHAPE)
        assert torch.equal(network(x), network(x))
        rate = torch.tensor(0.4, requires_grad=True)
        for module in noisy:
            module.rate = rate
        (gradient,) = torch.autograd.grad(network(x).square().sum(), rate)
        assert {type(module) for module in noisy} == {Dropout, DropPath}
        assert float(gradient) != 0


def test_parameter_counts_of_the_benchmark(data_folder: Path) -> None:
    entries = json.loads((data_folder / "nasbench201_parameters.json").read_text())
    assert len(entries) == 12
    for entry in entries:
        space = NasBench201(entry["channels"], entry["cells_per_stage"], signature=Signature((3, 32, 32), 10))
        with torch.device("meta"):
            network = space.network(parse_architecture(entry["arch"]))
        assert sum(parameter.numel() for parameter in network.parameters()) == entry["parameters"]
