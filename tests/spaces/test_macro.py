"""The macro space: its supernet against its stand-alone networks, discretisation, and what the networks are made of."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.operations.mixed import ACTIVATIONS
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.spaces.macro.supernet import MacroSupernet

CONV = {"type": "conv", "filters": [3, 5], "kernel_size": [3, 5]}
HALF_CONV = {"type": "conv", "filters": [2, 6], "kernel_size": [1, 3], "stride": 2}
POOL = {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]}
KEEPING_POOL = {"type": "pool", "pool_size": [3, 5], "kind": "average", "stride": 1}
DENSE = {"type": "dense", "units": [4, 9]}

SPACES: dict[str, dict[str, Any]] = {
    "of the design": {
        "layers": [CONV, POOL, {**CONV, "optional": True}, {"choose": [HALF_CONV, POOL]}, DENSE],
        "activations": ["relu", "sigmoid"],
        "input_shape": (1, 8, 8),
    },
    "narrowing, odd sides": {
        "layers": [{**CONV, "filters": [7, 2]}, {**CONV, "filters": [4, 3], "stride": 2}, POOL],
        "activations": ["tanh", "softplus"],
        "input_shape": (3, 7, 9),
    },
    "wide layers may be skipped": {
        "layers": [
            {**CONV, "filters": [2, 3]},
            {**CONV, "filters": [6, 1], "optional": True},
            {"choose": [CONV, KEEPING_POOL, {**CONV, "filters": [1, 8]}], "optional": True},
        ],
        "activations": ["sigmoid"],
        "input_shape": (2, 5, 4),
    },
    "pools of every size": {
        "layers": [{**POOL, "pool_size": [2, 3, 4, 5]}, HALF_CONV, {**POOL, "pool_size": [5, 4]}],
        "activations": ["elu"],
        "input_shape": (2, 11, 6),
    },
    "a first slot that mixes": {
        "layers": [{"choose": [HALF_CONV, {**POOL, "pool_size": [4, 5]}]}, {**KEEPING_POOL, "optional": True}],
        "activations": ["silu", "gelu"],
        "input_shape": (3, 5, 5),
    },
    "dense layers only": {
        "layers": [DENSE, {**DENSE, "optional": True}, {**DENSE, "units": [12, 2], "optional": True}],
        "activations": ["relu", "sigmoid"],
        "input_shape": (1, 4, 3),
    },
    "an optional dense layer behind a convolution": {
        "layers": [CONV, {**DENSE, "units": [2, 7, 400], "optional": True}, {"choose": [DENSE, DENSE]}],
        "activations": ["sigmoid", "relu"],
        "input_shape": (1, 3, 4),
    },
    "one architecture": {
        "layers": [{"type": "conv", "filters": 3, "kernel_size": 3}, {"type": "pool", "pool_size": 2}],
        "activations": ["relu"],
        "input_shape": (1, 6, 6),
    },
}


def space_of(name: str) -> Macro:
    declared = dict(SPACES[name])
    return Macro(signature=Signature(declared.pop("input_shape"), 4), **declared)


def every_architecture(space: Macro) -> Iterator[Architecture]:
    for options in itertools.product(*(choice.options for choice in space.choices)):
        yield Architecture(
            space.name, {choice.name: option for choice, option in zip(space.choices, options, strict=True)}
        )


def some_architectures(space: Macro, count: int = 14) -> list[Architecture]:
    """All of a small space, else samples in which every option of every choice occurs."""
    if space.size() <= count:
        return list(every_architecture(space))
    generator = Generator().manual_seed(0)
    found = [space.sample(generator).architecture for _ in range(count)]
    for choice in space.choices:
        for option in set(choice.options) - {one[choice.name] for one in found}:
            found.append(Architecture(space.name, {**found[0], choice.name: option}))
    return found


class OneHot(Relaxation):
    """A relaxation whose weights are exactly the one-hot of the largest alpha."""

    def __call__(self, alpha: Tensor) -> Tensor:
        return torch.zeros_like(alpha).scatter(-1, alpha.argmax(-1, keepdim=True), 1.0)

    def probabilities(self, alpha: Tensor) -> Tensor:
        return self(alpha)


def supernet_of(space: Macro, relaxation: Relaxation) -> MacroSupernet:
    """In double precision, its batch norms with factors, shifts and statistics that are not 1 and 0."""
    supernet = space.supernet(relaxation).double()
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for entry in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert entry is not None
                    entry.copy_(torch.rand_like(entry) + 0.5)
    return supernet


def prefer(supernet: MacroSupernet, architecture: Architecture, strength: float) -> None:
    """Set alpha to plus or minus ``strength``."""
    with torch.no_grad():
        for name, alpha in supernet.alpha.items():
            ((choice, options),) = supernet.alpha_rows(name)
            alpha.fill_(-strength)[options.index(architecture[choice])] = strength


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal up to 1e-12 of the largest entry."""
    actual, expected = actual.detach(), expected.detach()
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def assert_same_network(supernet: MacroSupernet, architecture: Architecture, x: Tensor, again: Any = None) -> None:
    """Logits in both modes and batch-norm statistics after a pass in training mode; ``again`` resets the noise."""
    network = supernet.space.network(architecture).double()
    network.load_state_dict(supernet.inherited_state(architecture))
    for training in (False, True, False):
        supernet.train(training)
        network.train(training)
        if again is not None:
            again()
        assert_same(supernet(x), network(x))
        state, inherited = network.state_dict(), supernet.inherited_state(architecture)
        assert state.keys() == inherited.keys()
        for key, entry in state.items():
            assert_same(inherited[key].double(), entry.double())


def test_its_attributes_are_all_but_the_types_of_layers() -> None:
    layers = [DENSE, {**DENSE, "units": 3, "optional": True}]
    space = Macro(layers, ["relu", "sigmoid"], signature=Signature((4,), 3))
    types, attributes = {"layer2.type"}, {"layer1.units", "layer1.activation", "layer2.activation"}
    assert space.attributes() == attributes == {choice.name for choice in space.choices} - types


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("relaxation", [OneHot(), Softmax(Temperature())], ids=["one-hot", "softmax of +-1e4"])
def test_the_supernet_with_one_hot_alpha_computes_what_the_network_computes(name: str, relaxation: Relaxation) -> None:
    torch.manual_seed(0)
    space = space_of(name)
    supernet = supernet_of(space, relaxation)
    x = torch.randn(5, *space.input_shape, dtype=torch.float64)
    for architecture in some_architectures(space):
        prefer(supernet, architecture, 1e4)
        assert supernet.discretise() == architecture
        assert_same_network(supernet, architecture, x)


@pytest.mark.parametrize("name", ["of the design", "wide layers may be skipped"])
def test_hard_gumbel_computes_the_network_it_has_sampled(name: str) -> None:
    torch.manual_seed(0)
    space = space_of(name)
    relaxation = GumbelSoftmax(Temperature(), hard=True)
    relaxation.generator = Generator()
    supernet = supernet_of(space, relaxation)
    x = torch.randn(5, *space.input_shape, dtype=torch.float64)
    sampled = set()
    for seed in range(8):
        again = partial(relaxation.generator.manual_seed, seed)
        again()
        weights = supernet.operation_weights()
        options = {}
        for key, row in weights.items():
            ((choice, labels),) = supernet.alpha_rows(key)
            options[choice] = labels[int(row.argmax())]
        architecture = Architecture(space.name, options)
        sampled.add(architecture)
        assert_same_network(supernet, architecture, x, again)
    assert len(sampled) > 4


def test_another_architecture_gives_other_logits() -> None:
    """What the comparisons above would miss if every option computed the same."""
    torch.manual_seed(0)
    space = space_of("of the design")
    supernet = supernet_of(space, OneHot()).eval()
    x = torch.randn(5, *space.input_shape, dtype=torch.float64)
    base = Architecture(
        space.name,
        {choice.name: choice.options[0] for choice in space.choices} | {"layer4.type": "pool"},
    )
    prefer(supernet, base, 1.0)
    logits = supernet(x)
    for choice in space.choices:
        if choice.name.startswith("layer4.conv"):
            continue
        other = Architecture(
            space.name, {**base, choice.name: choice.options[-1 if choice.name != "layer4.type" else 0]}
        )
        assert other != base
        prefer(supernet, other, 1.0)
        assert not torch.allclose(supernet(x), logits), choice.name


@pytest.mark.parametrize("name", SPACES)
def test_channels_that_an_architecture_does_not_have_are_exactly_zero(name: str) -> None:
    torch.manual_seed(0)
    space = space_of(name)
    supernet = supernet_of(space, OneHot())
    x = torch.randn(5, *space.input_shape, dtype=torch.float64)
    seen: dict[str, Tensor] = {}
    for place in space.places:
        for mixed in supernet.slots[place.name].values():  # type: ignore[union-attr, operator]
            mixed.register_forward_pre_hook(
                lambda _, arguments, place=place: seen.__setitem__(place.name, arguments[0])
            )
    supernet.classifier.register_forward_pre_hook(lambda _, arguments: seen.__setitem__("classifier", arguments[0]))
    zeros = 0
    for architecture in some_architectures(space):
        prefer(supernet, architecture, 1.0)
        supernet(x)
        used = space.plain_layers(architecture)
        widths = {place.name: shape[0] for place, *_, shape in used}
        widths["classifier"] = supernet.space.network(architecture)[-1].in_features  # type: ignore[assignment]
        for where, width in widths.items():
            assert torch.count_nonzero(seen[where][:, width:]) == 0
            assert torch.count_nonzero(seen[where][:, :width].abs().sum(0)) > 0
            zeros += seen[where][:, width:].numel()
    assert zeros > 0 or name == "one architecture"


def test_alpha_gets_gradients_everywhere_and_weights_are_separate() -> None:
    torch.manual_seed(0)
    space = space_of("of the design")
    supernet = space.supernet(Softmax(Temperature()))
    supernet(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert len(supernet.architecture_parameters()) == len(space.choices)
    for alpha in supernet.architecture_parameters():
        assert alpha.grad is not None
        assert float(alpha.grad.abs().min()) > 0
    weights, alphas = supernet.weight_parameters(), supernet.architecture_parameters()
    assert not {id(one) for one in weights} & {id(one) for one in alphas}
    assert len(weights) + len(alphas) == len(list(supernet.parameters()))


@pytest.mark.parametrize("name", SPACES)
def test_a_network_is_made_of_plain_modules(name: str) -> None:
    space = space_of(name)
    for architecture in some_architectures(space, 4):
        for module in space.network(architecture).modules():
            assert type(module).__module__.startswith("torch.nn.modules.")


def test_a_network_by_hand() -> None:
    space = space_of("of the design")
    options = {
        "layer1.filters": "5",
        "layer1.kernel_size": "3",
        "layer1.activation": "relu",
        "layer2.pool_size": "3",
        "layer2.kind": "average",
        "layer3.type": "skip",
        "layer3.filters": "3",
        "layer3.kernel_size": "5",
        "layer3.activation": "relu",
        "layer4.type": "conv",
        "layer4.conv.filters": "6",
        "layer4.conv.kernel_size": "1",
        "layer4.conv.activation": "sigmoid",
        "layer4.pool.pool_size": "2",
        "layer4.pool.kind": "max",
        "layer5.units": "9",
        "layer5.activation": "relu",
    }
    assert list(options) == [choice.name for choice in space.choices]
    network = space.network(Architecture("macro", options))
    assert [name for name, _ in network.named_children()] == [
        "layer1", "layer2", "layer4", "flatten", "layer5", "dropout", "classifier",
    ]  # fmt: skip
    # 1 -> 5 channels 3x3, batch norm; 5 -> 6 pointwise, batch norm; 6 channels of 2 x 2 -> 9; 9 -> 4 classes
    by_hand = (5 * 9 + 2 * 5) + (6 * 5 + 2 * 6) + (24 * 9 + 2 * 9) + (9 * 4 + 4)
    assert sum(parameter.numel() for parameter in network.parameters()) == by_hand == 371
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 4)
    assert [layer.kind for layer in space.layer_descriptions(Architecture("macro", options))] == [
        "conv", "pool", "skip", "conv", "dense",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["of the design", "pools of every size", "an optional dense layer behind a convolution"]
)
def test_a_network_can_be_exported(name: str) -> None:
    torch.manual_seed(0)
    space = space_of(name)
    network = space.network(space.sample(Generator().manual_seed(3)).architecture).eval()
    example, x = torch.randn(2, *space.input_shape), torch.randn(6, *space.input_shape)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x), network(x))


def test_inherited_weights_are_copies() -> None:
    space = space_of("of the design")
    supernet = space.supernet(OneHot())
    before = {name: entry.clone() for name, entry in supernet.state_dict().items()}
    for entry in supernet.inherited_state(some_architectures(space)[0]).values():
        entry.zero_()
    assert all(torch.equal(before[name], entry) for name, entry in supernet.state_dict().items())


def test_discretising_takes_the_largest_and_of_equals_the_first() -> None:
    space = space_of("pools of every size")
    supernet = space.supernet(Softmax(Temperature()))
    with torch.no_grad():
        for alpha in supernet.architecture_parameters():
            alpha.zero_()
        supernet.alpha["layer1-pool_size"].copy_(torch.tensor([0.0, 2.0, 2.0, 1.0]))
        supernet.alpha["layer2-filters"].copy_(torch.tensor([-1.0, 0.5]))
    assert dict(supernet.discretise()) == {
        "layer1.pool_size": "3",
        "layer1.kind": "max",
        "layer2.filters": "6",
        "layer2.kernel_size": "1",
        "layer3.pool_size": "5",
        "layer3.kind": "max",
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_alpha_that_is_not_finite_is_named(value: float) -> None:
    space = space_of("of the design")
    for choice in space.choices:
        supernet = space.supernet(Softmax(Temperature()))
        with torch.no_grad():
            supernet.alpha[choice.name.replace(".", "-")][-1] = value
        with pytest.raises(FloatingPointError, match=f"^alpha of {choice.name} is not finite"):
            supernet.discretise()


def test_probabilities_are_told_by_choice_and_option() -> None:
    space = space_of("of the design")
    supernet = space.supernet(Softmax(Temperature()))
    with torch.no_grad():
        supernet.alpha["layer4-type"].copy_(torch.tensor([0.0, 3.0]).log1p())
    rows = supernet.probabilities()
    assert list(rows) == [choice.name for choice in space.choices]
    assert all(tuple(rows[choice.name]) == choice.options for choice in space.choices)
    assert rows["layer4.type"] == {"conv": pytest.approx(0.2), "pool": pytest.approx(0.8)}


@pytest.mark.parametrize(("name", "size"), [("of the design", 8 * 4 * 16 * 2 * 8 * 4 * 4), ("one architecture", 1)])
def test_the_size_of_the_space(name: str, size: int) -> None:
    assert space_of(name).size() == size


def test_every_architecture_of_a_small_space_gives_logits() -> None:
    space = space_of("a first slot that mixes")
    architectures = list(every_architecture(space))
    assert len(set(architectures)) == space.size() == 2 * 2 * 2 * 2 * 2 * 2 * 2 * 2
    x = torch.randn(2, *space.input_shape)
    for architecture in architectures[::5]:
        assert space.network(architecture)(x).shape == (2, 4)


def test_the_settings_remake_the_space() -> None:
    for name, arguments in SPACES.items():
        space = space_of(name)
        again = Macro(**space.settings(), signature=Signature(arguments["input_shape"], 4))
        assert again.choices == space.choices
        assert again.settings() == space.settings()


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"^architecture\."):
        space_of("of the design").network(some_architectures(space_of("dense layers only"))[0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_works_behind_masks(activation: str) -> None:
    torch.manual_seed(0)
    space = Macro([CONV, DENSE], [activation], signature=Signature((1, 4, 4), 3))
    supernet = supernet_of(space, OneHot())
    architecture = Architecture("macro", {"layer1.filters": "3", "layer1.kernel_size": "3", "layer2.units": "4"})
    prefer(supernet, architecture, 1.0)
    assert_same_network(supernet, architecture, torch.randn(4, 1, 4, 4, dtype=torch.float64))
