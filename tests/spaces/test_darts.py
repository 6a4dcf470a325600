"""The DARTS space: choices, discretisation, supernet and stand-alone networks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.configuration import build
from nas.errors import InvalidValue
from nas.interop.named_architecture import PUBLISHED
from nas.operations.stochastic import Dropout, DropPath
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.choices import OPERATIONS, cell_edges
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.network import Cell, CellShape, DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.darts.supernet import DartsSupernet
from nas.spaces.recorded import space_from_description

CONFIGURATION = Path(__file__).resolve().parents[2] / "conf" / "space"
SHAPE = (3, 16, 16)
SMALL: dict[str, Any] = {"channels": 2, "cells": 3, "final_channels": 2, "final_cells": 3}


def small_space(**settings: Any) -> Darts:
    return Darts(**(SMALL | settings), signature=Signature(SHAPE, 5))


def supernet_of(space: Darts) -> DartsSupernet:
    return space.supernet(Softmax(Temperature()))


def random_genotype(space: Darts, seed: int) -> Genotype:
    return space.genotype(space.sample(torch.Generator().manual_seed(seed)).architecture)


# --- choices -----------------------------------------------------------------------------------------------------


def test_two_pairs_of_input_and_operation_per_node() -> None:
    space = small_space()
    by_name = {choice.name: choice.options for choice in space.choices}
    assert len(by_name) == len(space.choices) == 2 * 4 * 2 * 2
    assert by_name["reduce.node4.second.input"] == ("0", "1", "2", "3")
    assert by_name["normal.node2.first.operation"] == OPERATIONS[1:]
    assert space.size() == (math.prod(node**2 for node in range(2, 6)) * 7**8) ** 2


def test_vector_round_trip_with_hyperparameters() -> None:
    ranges = {"learning_rate": Range(1e-3, 1.0, "log")}
    space = Darts(**SMALL, signature=Signature(SHAPE, 5), ranges=ranges)
    candidate = space.sample(torch.Generator().manual_seed(1))
    decoded = space.decode(space.encode(candidate))
    assert decoded.architecture == candidate.architecture
    assert decoded.hyperparameters["learning_rate"] == pytest.approx(candidate.hyperparameters["learning_rate"])


def test_samples_are_valid_reproducible_and_read_two_different_states_per_node() -> None:
    space = small_space()
    generator = torch.Generator().manual_seed(0)
    seen: set[tuple[int, ...]] = set()
    for _ in range(50):
        architecture = space.sample(generator).architecture
        architecture.check(space.choices)
        genotype = space.genotype(architecture)
        for edges in (genotype.normal, genotype.reduce):
            inputs = [source for _, source in edges]
            assert all(inputs[first] != inputs[first + 1] for first in range(0, 8, 2))
            seen.add(tuple(inputs[2:4]))
    assert seen == {(a, b) for a in range(3) for b in range(3) if a != b}
    again = torch.Generator().manual_seed(0)
    assert space.sample(again) == space.sample(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["darts_v1", "darts_v2", "pc_darts_cifar", "pc_darts_imagenet"])
def test_genotype_to_architecture_and_back_keeps_the_order_of_edges(name: str) -> None:
    space = small_space()
    architecture = space.architecture(PUBLISHED[name])
    assert space.genotype(architecture) == PUBLISHED[name]
    assert space.for_genotype(PUBLISHED[name]) is space


@pytest.mark.parametrize("name", ["nasnet", "amoebanet"])
def test_a_genotype_of_another_shape_gets_a_space_of_its_own(name: str) -> None:
    genotype = PUBLISHED[name]
    with pytest.raises(InvalidValue, match="5 nodes"):
        small_space().architecture(genotype)
    space = small_space().for_genotype(genotype)
    rebuilt = space_from_description(space.describe())
    assert isinstance(rebuilt, Darts)
    assert rebuilt.settings() == space.settings()
    architecture = Architecture("darts", dict(space.architecture(genotype)))
    assert rebuilt.genotype(architecture) == genotype
    assert rebuilt.network(architecture)(torch.randn(2, *SHAPE)).shape == (2, 5)
    # Its supernet can be searched too: the cells' widths differ where the concatenations do.
    assert supernet_of(space)(torch.randn(2, *SHAPE)).shape == (2, 5)


def test_a_space_says_what_it_cannot_express() -> None:
    darts_v1 = PUBLISHED["darts_v1"]
    with pytest.raises(InvalidValue, match=r"genotype\.reduce_concat"):
        small_space(reduce_concat=[4, 5]).architecture(darts_v1)
    with pytest.raises(InvalidValue, match=r"architecture\.normal\.node2\.first\.operation"):
        small_space(operations=["skip_connect", "max_pool_3x3", "avg_pool_3x3"]).architecture(darts_v1)
    uneven = Genotype(darts_v1.normal[:4], (2, 3), darts_v1.reduce, darts_v1.reduce_concat)
    with pytest.raises(InvalidValue, match="nodes"):
        small_space().for_genotype(uneven)


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", 0),
        ("channels", "16"),
        ("channels", True),
        ("cells", 10**9),
        ("steps", 17),
        ("steps", 2.0),
        ("multiplier", 5),
        ("stem_multiplier", -1),
        ("operations", []),
        ("operations", "skip_connect"),
        ("operations", ["none"]),
        ("operations", ["skip_connect", "skip_connect"]),
        ("operations", ["skip_connect", "nothing"]),
        ("operations", [["skip_connect"]]),
        ("normal_concat", []),
        ("normal_concat", [1, 2]),
        ("normal_concat", "23"),
        ("reduce_concat", [6]),
        ("final_channels", None),
        ("final_cells", 0),
        ("final_network", "mnist"),
        ("final_network", ["cifar"]),
        ("auxiliary", 1),
    ],
)
def test_impossible_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(InvalidValue) as refused:
        Darts.from_settings(small_space().settings() | {key: value}, Signature(SHAPE, 5))
    assert refused.value.key == key


@pytest.mark.parametrize("settings", [None, [], {}, small_space().settings() | {"more": 1}])
def test_descriptions_hold_exactly_the_settings(settings: object) -> None:
    with pytest.raises(InvalidValue, match="it must"):
        space_from_description({**small_space().describe(), "settings": settings})


def test_description_round_trip_and_configuration() -> None:
    space = small_space(steps=3, multiplier=2, reduce_concat=[2, 4], final_network="imagenet", auxiliary=True)
    rebuilt = space_from_description(space.describe())
    assert rebuilt.describe() == space.describe()
    built = build({"_target_": "nas.spaces.Darts", **space.settings()}, "space", signature=Signature(SHAPE, 5))
    assert built.settings() == space.settings()


def test_the_configured_space_is_the_papers() -> None:
    settings = OmegaConf.load(CONFIGURATION / "darts.yaml")
    space = build(settings, "space", signature=Signature((3, 32, 32), 10))
    # A cell of 14 edges with 8 operations each, and the network of 3.3 million parameters (paper, table 1).
    assert (len(cell_edges(space.steps)), space.operations) == (14, OPERATIONS)
    with torch.device("meta"):
        network = space.network(space.architecture(PUBLISHED["darts_v2"]))
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_825_768


# --- discretisation ----------------------------------------------------------------------------------------------


def alpha_of(supernet: DartsSupernet, kind: str, strengths: dict[tuple[int, int, str], float]) -> None:
    """Set alpha to 0 but for ``strengths``: (node, state, operation) to value."""
    rows = {edge: row for row, edge in enumerate(cell_edges(supernet.space.steps))}
    with torch.no_grad():
        supernet.alpha[kind].zero_()
        for (node, source, operation), value in strengths.items():
            supernet.alpha[kind][rows[node, source], supernet.space.operations.index(operation)] = value


def test_the_two_strongest_edges_with_the_stronger_one_first() -> None:
    supernet = supernet_of(small_space(steps=2, multiplier=2))
    alpha_of(
        supernet,
        "normal",
        {
            (2, 1, "sep_conv_3x3"): 2.0,
            (2, 0, "max_pool_3x3"): 1.0,
            (3, 0, "none"): 9.0,
            (3, 0, "dil_conv_5x5"): 3.0,
            (3, 1, "skip_connect"): 2.0,
            (3, 2, "avg_pool_3x3"): 1.0,
        },
    )
    genotype = supernet.space.genotype(supernet.discretise())
    # The edge (3, 0) wants nothing most of all, and that leaves little probability for its dilated convolution.
    assert genotype.normal == (("sep_conv_3x3", 1), ("max_pool_3x3", 0), ("skip_connect", 1), ("avg_pool_3x3", 2))


def test_ties_go_to_the_earlier_state_and_the_earlier_operation() -> None:
    supernet = supernet_of(small_space())
    for kind in ("normal", "reduce"):
        alpha_of(supernet, kind, {})
    genotype = supernet.space.genotype(supernet.discretise())
    assert genotype.normal == genotype.reduce == (("max_pool_3x3", 0), ("max_pool_3x3", 1)) * 4


def test_edges_that_want_none_keep_their_strongest_other_operation() -> None:
    supernet = supernet_of(small_space(steps=2, multiplier=2))
    wanted = {(node, source, "none"): 8.0 for node, source in cell_edges(2)}
    alpha_of(supernet, "reduce", wanted | {(3, 2, "sep_conv_5x5"): 1.0})
    genotype = supernet.space.genotype(supernet.discretise())
    assert genotype.reduce[2:] == (("sep_conv_5x5", 2), ("max_pool_3x3", 0))
    # So extreme that every other probability is exactly 0.
    alpha_of(supernet, "reduce", dict.fromkeys(wanted, 1e4))
    assert supernet.space.genotype(supernet.discretise()).reduce == (("max_pool_3x3", 0), ("max_pool_3x3", 1)) * 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_alpha_that_is_not_finite_is_named(value: float) -> None:
    supernet = supernet_of(small_space())
    with torch.no_grad():
        supernet.alpha["reduce"][4, 3] = value  # edges of node 2: 0, 1; of node 3: 2, 3, 4
    with pytest.raises(FloatingPointError, match=r"alpha of reduce\.node3\.from2 is not finite"):
        supernet.discretise()


def test_operations_without_none_are_discretised_too() -> None:
    supernet = supernet_of(small_space(operations=["sep_conv_3x3", "skip_connect"]))
    alpha_of(supernet, "normal", {(2, 1, "skip_connect"): 1.0})
    assert supernet.space.genotype(supernet.discretise()).normal[:2] == (("skip_connect", 1), ("sep_conv_3x3", 0))


# --- supernet ----------------------------------------------------------------------------------------------------


def test_alpha_is_small_at_first_and_no_weight() -> None:
    torch.manual_seed(0)
    supernet = supernet_of(small_space())
    assert {name: tuple(alpha.shape) for name, alpha in supernet.alpha.items()} == {
        "normal": (14, 8),
        "reduce": (14, 8),
    }
    assert 0.5e-3 < float(supernet.alpha["normal"].detach().std()) < 2e-3
    weights = {id(parameter) for parameter in supernet.weight_parameters()}
    assert not weights & {id(alpha) for alpha in supernet.architecture_parameters()}
    assert len(supernet.probabilities()) == 28
    assert sum(supernet.probabilities()["normal.node5.from4"].values()) == pytest.approx(1)


def test_only_the_stem_has_affine_batch_norms() -> None:
    supernet = supernet_of(small_space())
    affine = [name for name, module in supernet.named_modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
    assert affine == ["stem.1"]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 28, 28), {"cells": 2}),
        ((3, 9, 15), {"steps": 1, "multiplier": 1, "cells": 1}),
        ((2, 8, 8), {"steps": 3, "multiplier": 2, "stem_multiplier": 1, "channels": 3}),
    ],
)
def test_other_images_and_cells(shape: tuple[int, int, int], settings: dict[str, Any]) -> None:
    space = Darts(**(SMALL | settings), signature=Signature(shape, 4))
    supernet = supernet_of(space)
    logits = supernet(torch.randn(3, *shape))
    assert logits.shape == (3, 4)
    logits.sum().backward()
    assert space.network(supernet.discretise())(torch.randn(2, *shape)).shape == (2, 4)


def test_one_hot_supernet_computes_the_discretised_network() -> None:
    operations = ["none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"]
    space = small_space(operations=operations, cells=5, final_cells=5)
    torch.manual_seed(0)
    supernet = supernet_of(space).double()
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    supernet(x)  # so that the running statistics are not those of a fresh network
    for seed in range(3):
        architecture = space.sample(torch.Generator().manual_seed(seed)).architecture
        network = space.network(architecture).double()
        network.load_state_dict(supernet.inherited_state(architecture))
        weights = supernet.architecture_weights(architecture)
        for training in (False, True):
            supernet.train(training)
            network.train(training)
            assert torch.allclose(supernet(x, weights), network(x), rtol=0, atol=1e-12)


def test_an_edge_used_twice_counts_twice() -> None:
    space = small_space(steps=1, multiplier=1)
    twice = Genotype((("skip_connect", 1), ("skip_connect", 1)), (2,), (("sep_conv_3x3", 0), ("max_pool_3x3", 0)), (2,))
    weights = supernet_of(space).architecture_weights(space.architecture(twice))
    assert weights["normal"].nonzero().tolist() == [[1, 3]]
    assert float(weights["normal"].sum()) == float(weights["reduce"].sum()) == 2


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"final_channels": 4}, "final_channels"),
        ({"final_cells": 4}, "final_cells"),
        ({"auxiliary": True}, "auxiliary"),
    ],
)
def test_weights_are_not_inherited_by_another_network(settings: dict[str, Any], key: str) -> None:
    space = small_space(**settings)
    with pytest.raises(InvalidValue) as refused:
        supernet_of(space).inherited_state(space.architecture(PUBLISHED["darts_v1"]))
    assert refused.value.key == key


def test_pooling_has_nothing_to_inherit() -> None:
    space = small_space()
    with pytest.raises(InvalidValue, match="pool"):
        supernet_of(space).inherited_state(space.architecture(PUBLISHED["darts_v1"]))


# --- stand-alone networks ----------------------------------------------------------------------------------------


def small_network(genotype: Genotype, **settings: Any) -> DartsNetwork:
    arguments: dict[str, Any] = {"in_channels": 3, "channels": 4, "cells": 3, "classes": 5} | settings
    return DartsNetwork(genotype, **arguments)


@pytest.mark.parametrize(("kind", "sides"), [("cifar", (32, 28, 8, 64)), ("imagenet", (224, 64))])
def test_auxiliary_logits_come_in_training_only(kind: str, sides: tuple[int, ...]) -> None:
    network = small_network(PUBLISHED["darts_v2"], kind=kind, auxiliary=True, channels=2)
    for side in sides:
        x = torch.randn(2, 3, side, side)
        network.train()
        logits, auxiliary = network(x)
        assert logits.shape == auxiliary.shape == (2, 5)
        network.eval()
        assert isinstance(network(x), Tensor)


def test_auxiliary_head_sees_the_cell_at_two_thirds() -> None:
    network = small_network(PUBLISHED["darts_v2"], cells=6, auxiliary=True)
    seen: list[Tensor] = []
    network.cells[4].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    assert network.auxiliary_head is not None
    network.auxiliary_head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network(torch.randn(2, 3, 16, 16))
    assert seen[0] is seen[1]


def test_without_auxiliary_head_training_gives_logits() -> None:
    assert small_network(PUBLISHED["darts_v2"]).train()(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_drop_path_drops_whole_samples_but_no_identity() -> None:
    edges = (("skip_connect", 0), ("skip_connect", 1))
    cell = Cell(edges, (2,), CellShape(3, 3, 4, reduction=False, halve_before=False))
    states = torch.randn(64, 3, 4, 4), torch.randn(64, 3, 4, 4)
    before = cell(*states)
    cell.drop_path.rate = 0.5
    assert torch.equal(cell(*states), before)
    # Stride 2 makes a skip a factorised reduction, which is dropped as any other operation.
    cell = Cell(edges, (2,), CellShape(3, 3, 4, reduction=True, halve_before=False))
    cell.drop_path.rate = 0.5
    dropped = (cell(*states).flatten(1) == 0).all(dim=1)
    assert 0 < int(dropped.sum()) < 64
    cell.eval()
    assert not bool((cell(*states).flatten(1) == 0).all(dim=1).any())


def test_both_networks_have_a_place_for_learned_rates_which_changes_nothing_at_first() -> None:
    space = small_space()
    for network in (supernet_of(space), space.network(space.architecture(PUBLISHED["darts_v2"]))):
        noisy = [module for module in network.modules() if isinstance(module, Dropout | DropPath)]
        assert {type(module) for module in noisy} == {Dropout, DropPath}
        x = torch.randn(4, *SHAPE)
        calm = network(x)
        assert torch.equal(network(x), calm)
        rate = torch.tensor(0.4, requires_grad=True)
        for module in noisy:
            module.rate = rate
        (gradient,) = torch.autograd.grad(network(x).square().sum(), rate)
        assert float(gradient) != 0


def test_network_does_not_take_another_spaces_architecture() -> None:
    candidate = Candidate(Architecture("darts", {"normal.node2.first.input": "0"}), Hyperparameters())
    with pytest.raises(InvalidValue, match="architecture"):
        small_space().network(candidate.architecture)


def test_network_can_be_exported() -> None:
    network = small_network(PUBLISHED["darts_v2"], auxiliary=True).eval()
    x = torch.randn(2, 3, 16, 16)
    exported = torch.export.export(network, (x,)).module()
    assert torch.allclose(exported(x), network(x), atol=1e-6)


def test_random_genotypes_give_working_networks() -> None:
    space = small_space()
    for seed in range(5):
        network = small_network(random_genotype(space, seed), channels=2)
        network(torch.randn(2, 3, 8, 8)).sum().backward()
        assert all(
            bool(torch.isfinite(parameter.grad).all())
            for parameter in network.parameters()
            if parameter.grad is not None
        )


@pytest.mark.parametrize("side", [32, 224, 256, 448])
def test_the_imagenet_network_pools_as_the_original(side: int) -> None:
    """Windows of 7 where one fits; at 256 pixels it leaves out the last row and column of the 8 x 8 that are left."""
    network = DartsNetwork(PUBLISHED["darts_v1"], in_channels=3, channels=2, cells=2, classes=3, kind="imagenet").eval()
    seen: list[torch.Tensor] = []
    network.cells[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = network(torch.randn(1, 3, side, side))
        used = seen[0][:, :, :7, :7] if side in (224, 256) else seen[0]
        assert torch.allclose(logits, network.classifier(used.mean((2, 3))), atol=1e-5)
