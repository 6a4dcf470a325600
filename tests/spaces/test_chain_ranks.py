"""The chain of layers over rows, series and images, with one prediction per input or one per place."""

import logging
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Generator, nn

from nas.configuration import build
from nas.errors import InvalidValue
from nas.evaluation.network_cost import BlockCosts, count_multiply_adds, network_cost, supernet_multiply_adds
from nas.signature import Signature
from nas.spaces.building import built_space
from nas.spaces.fitting import fitting_space, space_settings
from nas.spaces.macro.space import Macro
from nas.spaces.recorded import space_from_description
from nas.spaces.supernet import Implementation
from tests.problems import RANKS, batch_of, seeded_supernet, space_of_rank

CONF = Path(__file__).parents[2] / "conf"
CONV = {"type": "conv", "filters": [2, 3], "kernel_size": 3}
DENSE = {"type": "dense", "units": [3, 4]}


@pytest.mark.parametrize("implementation", ["plain", "fast"])
@pytest.mark.parametrize("name", RANKS)
def test_the_supernet_with_one_hot_weights_computes_what_the_network_computes(
    name: str, implementation: Implementation
) -> None:
    space = space_of_rank(name, implementation)
    supernet, _ = seeded_supernet(space)
    inputs = batch_of(space.signature, 5).inputs
    for seed in range(6):
        architecture = space.sample(Generator().manual_seed(seed)).architecture
        network = space.network(architecture).double()
        network.load_state_dict(supernet.inherited_state(architecture))
        weights = supernet.architecture_weights(architecture)
        part = space.sliced(supernet, weights)
        for training in (True, False):
            expected = network.train(training)(inputs)
            found = supernet.train(training)(inputs, weights)
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
            cut = part.supernet.train(training)(inputs, part.weights)
            torch.testing.assert_close(cut, expected, atol=1e-12, rtol=1e-12)
        places = space.input_shape[1:] if space.signature.head == "dense" else ()
        assert expected.shape == (len(inputs), space.outputs, *places)


@pytest.mark.parametrize("name", RANKS)
def test_costs_are_those_of_the_networks_and_of_the_slices(name: str) -> None:
    space = space_of_rank(name)
    supernet, _ = seeded_supernet(space)
    mean = supernet.mean_weights()
    assert space.sliced(supernet, mean).multiply_adds == supernet_multiply_adds(space, supernet.relaxation)
    for seed in range(4):
        architecture = space.sample(Generator().manual_seed(seed)).architecture
        network, weights = space.network(architecture), space.architecture_weights(architecture)
        for cost in ("parameters", "multiply_adds"):
            own = network_cost(cost)(network, space.signature)
            assert float(space.expected_cost(weights, BlockCosts(cost))) == pytest.approx(own, rel=1e-6)
        part = space.sliced(supernet, supernet.architecture_weights(architecture))
        assert part.multiply_adds == count_multiply_adds(network, space.signature)


@pytest.mark.parametrize("name", RANKS)
def test_a_space_survives_its_description(name: str) -> None:
    space = space_of_rank(name)
    again = space_from_description(space.describe())
    assert (again.signature, again.choices, again.describe()) == (space.signature, space.choices, space.describe())


def test_a_dilated_kernel_by_hand() -> None:
    space = Macro(
        [{"type": "conv", "filters": 1, "kernel_size": [1, 3], "dilation": [1, 2]}],
        ["relu"],
        signature=Signature((1, 7), 2),
    )
    supernet, _ = seeded_supernet(space)
    convolution = supernet.get_submodule("slots.layer1.conv")
    by_hand = torch.zeros(5, dtype=torch.float64)
    sizes, dilations = torch.tensor([0.3, 0.7]).double(), torch.tensor([0.6, 0.4]).double()
    for name, share in {"1": 0.3 * 0.6, "1_dilated_2": 0.3 * 0.4}.items():
        by_hand[2] += share * convolution.kernels[name].weight.detach().flatten()[0]
    by_hand[1:4] += 0.7 * 0.6 * convolution.kernels["3"].weight.detach().flatten()
    by_hand[::2] += 0.7 * 0.4 * convolution.kernels["3_dilated_2"].weight.detach().flatten()
    x = torch.randn(2, 1, 7, dtype=torch.float64)
    seen = []
    convolution.normalisation.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    convolution(x, {"kernel_size": sizes, "dilation": dilations})
    expected = nn.functional.conv1d(x, by_hand.view(1, 1, 5), padding=2)
    torch.testing.assert_close(seen[0].detach(), expected)


def test_the_layers_are_told_with_their_rank_and_dilation() -> None:
    layers = [{**CONV, "dilation": 2, "filters": 2}, {"type": "pool", "pool_size": 2}, {"type": "global_pool"}]
    told = {}
    for shape in ((1, 8), (1, 8, 8)):
        space = Macro(layers, ["relu"], "plain", signature=Signature(shape, 2))
        architecture = space.sample(Generator().manual_seed(0)).architecture
        told[len(shape) - 1] = [one.label + ", " + one.detail for one in space.layer_descriptions(architecture)]
    assert told[1] == ["conv 3 dilation 2, 2 relu", "max pool, 2 /2", "average pool, over all"]
    assert told[2] == ["conv 3x3 dilation 2, 2 relu", "max pool, 2x2 /2", "average pool, over all"]


@pytest.mark.parametrize(
    ("signature", "layers", "sentence"),
    [
        (
            Signature((13,), 2),
            [DENSE, CONV],
            "layers[1].type=conv is not allowed: no convolution or pooling can follow a dense layer.",
        ),
        (
            Signature((13,), 2),
            [CONV],
            "layers[0].type=conv is not allowed: rows of numbers take dense layers only, and the data are rows of 13 "
            "numbers with one prediction each: take space=macro_table.",
        ),
        (
            Signature((1, 8, 8), 2, "dense"),
            [CONV, DENSE],
            "layers[1].type=dense is not allowed: it leaves no places to predict for, and the data are 1x8x8 images "
            "with a prediction per place: take space=macro_dense.",
        ),
        (
            Signature((1, 8, 8), 2, "dense"),
            [CONV, {"type": "pool", "pool_size": 2}],
            "layers[1].stride=2 is not allowed: it must be 1 where there is a prediction per place, and the data are "
            "1x8x8 images with a prediction per place: take space=macro_dense.",
        ),
        (
            Signature((30,), 20, "sequence", (20,)),
            [DENSE],
            "space=macro is not allowed: it is for images or series or rows with one prediction each or a prediction "
            "per place, and the data are texts of 30 tokens with a prediction per token: take space=recurrent.",
        ),
        (
            Signature((1, 8), 2),
            [{"type": "global_pool"}, {"type": "global_pool"}],
            "layers[1].type=global_pool is not allowed: no convolution or pooling can follow a global_pool layer.",
        ),
        (
            Signature((1, 8), 2),
            [CONV, {"type": "global_pool", "optional": True}],
            "layers[1].optional=true is not allowed: a global_pool layer cannot be skipped.",
        ),
        (
            Signature((1, 8), 2),
            [{"choose": [{"type": "global_pool"}, CONV]}],
            "layers[0].choose=['global_pool', 'conv'] is not allowed: a global_pool layer has its place alone.",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_does(signature: Signature, layers: list[dict], sentence: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Macro(layers, ["relu"], signature=signature)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("signature", "name", "fits"),
    [
        (Signature((13,), 2), "macro_table", "tables with 13 inputs"),
        (Signature((6, 24), 2), "macro_series", "inputs of 6x24"),
        (Signature((1, 28, 64), 2), "macro", ""),
        (Signature((3, 65, 48), 2), "macro_large", "inputs of 3x65x48"),
        (Signature((1, 1500), 2, "dense"), "macro_dense", "inputs of 1x1500"),
        (Signature((3, 20, 30), 2, "dense"), "macro_dense", "inputs of 3x20x30"),
        (Signature((9,), 20, "sequence", (20,)), "recurrent", "texts of 9 tokens"),
        (Signature((9,), 2, categories=(20,), tokens=True), "transformer", "texts of 9 tokens"),
    ],
)
def test_a_space_is_proposed_for_the_data_and_takes_them(
    signature: Signature, name: str, fits: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert fitting_space(signature) == name
    full, small = (OmegaConf.load(CONF / file) for file in ("space/macro.yaml", "scale/space/small_macro.yaml"))
    caplog.set_level(logging.INFO)
    for chosen, kept in ((full, {"macro"}), (small, {"macro", "macro_large"}), (OmegaConf.create(), {name})):
        found = space_settings(chosen, signature, CONF / "space")  # type: ignore[arg-type]
        assert found == (chosen if name in kept else OmegaConf.load(CONF / "space" / f"{name}.yaml"))
    said = {f"space: {name}, which fits {fits}; space=... takes another"}
    assert {record.message for record in caplog.records} == (said if fits else set())
    if signature.is_tokens:
        return
    space = build(OmegaConf.load(CONF / "space" / f"{name}.yaml"), "space", signature=signature)
    architecture = space.sample(Generator().manual_seed(0)).architecture
    assert space.doubts(architecture) == []
    with torch.device("meta"):
        supernet, network = (
            space.supernet(seeded_supernet(space_of_rank("rows"))[0].relaxation),
            space.network(architecture),
        )
    assert supernet(signature.example(2).to("meta")).shape == network(signature.example(2).to("meta")).shape


def test_what_is_set_beside_the_layers_goes_along_or_is_refused() -> None:
    usual = OmegaConf.load(CONF / "space" / "macro.yaml")
    table = OmegaConf.load(CONF / "space" / "macro_table.yaml")
    chosen = OmegaConf.create({**usual, "activations": ["tanh"]})
    found = space_settings(chosen, Signature((13,), 2), CONF / "space")
    assert found == {**table, "activations": ["tanh"]}
    assert isinstance(usual, DictConfig)
    found = space_settings(usual, Signature((13,), 2), CONF / "space", typed={"activations"})
    assert found == {**table, "activations": usual.activations}  # typed as they are in the default chain
    assert space_settings(usual, Signature((13,), 2), CONF / "space", typed={"layers"}) == usual
    allowed = r"space.activations=\['tanh'\] is not allowed: space=recurrent, which fits texts of 9 tokens, has no such"
    with pytest.raises(InvalidValue, match=allowed):
        space_settings(chosen, Signature((9,), 20, "sequence", (20,)), CONF / "space")


@pytest.mark.parametrize("layers", ["space/macro.yaml", "scale/space/small_macro.yaml"])
def test_a_space_that_was_asked_for_is_never_exchanged(layers: str) -> None:
    chosen = OmegaConf.create(
        {**OmegaConf.load(CONF / "space" / "macro.yaml"), "layers": OmegaConf.load(CONF / layers).layers}
    )
    series, table = Signature((6, 24), 2), Signature((13,), 2)
    for asked_for in (False, True):
        space = built_space(chosen, series, CONF / "space", asked_for=asked_for)
        assert (space.settings()["layers"] == chosen.layers) is asked_for
    with pytest.raises(InvalidValue, match=r"rows of numbers take dense layers only, .*: take space=macro_table"):
        built_space(chosen, table, CONF / "space", asked_for=True)


def test_fast_series_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        space = space_of_rank("series", "fast")
        space_from_description(space.describe())
        space_of_rank("rows", "fast")
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("the chain computes series one operation after the other: ")
    assert space.implementation == "plain"


def test_a_series_that_is_too_short_is_doubted() -> None:
    layers = [{**CONV, "stride": 2}, {"type": "pool", "pool_size": 2}]
    space = Macro(layers, ["relu"], "plain", signature=Signature((1, 3), 2))
    architecture = space.sample(Generator().manual_seed(0)).architecture
    assert space.doubts(architecture) == ["it reduces series of 3 steps 4 times, to less than a step"]
