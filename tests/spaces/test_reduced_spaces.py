"""The spaces S1 to S4 of RobustDARTS: operations that differ from edge to edge, and noise among them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nas.baselines.strategy import Scored
from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.choices import CELLS, cell_edges, edge_name
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.space import Darts
from nas.spaces.recorded import space_from_description
from tests.baselines.joint_spaces import STRATEGIES

CONFIGS = Path(__file__).resolve().parents[2] / "conf" / "space"
NAMES = ("s1", "s2", "s3", "s4")
BY_EDGE: dict[str, Any] = {
    "normal": [["skip_connect", "sep_conv_3x3"], ["none", "dil_conv_3x3"], *[["max_pool_3x3", "none"]] * 3],
    "reduce": [["skip_connect", "sep_conv_3x3"]] * 5,
}


def small(name: str, **settings: Any) -> Darts:
    operations = yaml.safe_load((CONFIGS / f"darts_{name}.yaml").read_text(encoding="utf-8"))["operations"]
    sizes = {"channels": 2, "cells": 3, "final_channels": 2, "final_cells": 3, "stem_multiplier": 1}
    return Darts(**{**sizes, "operations": operations, **settings}, signature=Signature((3, 8, 8), 3))


def by_edge(**settings: Any) -> Darts:
    return small("s2", **{"operations": BY_EDGE, "steps": 2, "multiplier": 2, **settings})


def assert_on_its_edges(space: Darts, architecture: Architecture) -> None:
    genotype = space.genotype(architecture)
    for cell in CELLS:
        for index, (operation, source) in enumerate(getattr(genotype, cell)):
            assert operation in space.chosen_from(cell, index // 2 + 2, source)


def test_s1_has_two_operations_on_every_edge() -> None:
    space = small("s1")
    for cell in CELLS:
        assert [len(row) for row in space.edge_operations[cell]] == [2] * 14
    assert space.chosen_from("normal", 4, 0) == ("max_pool_3x3", "skip_connect")
    assert space.chosen_from("reduce", 4, 1) == ("max_pool_3x3", "sep_conv_3x3")
    assert "noise" in small("s4").operations


@pytest.mark.parametrize("name", NAMES)
def test_a_description_rebuilds_the_space(name: str) -> None:
    space = small(name)
    again = space_from_description(space.describe())
    assert again.describe() == space.describe()
    assert isinstance(again, Darts)
    assert again.edge_operations == space.edge_operations


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sampled_has_operations_of_its_edges_and_can_be_trained(name: str) -> None:
    space, generator = small(name), torch.Generator().manual_seed(0)
    for _ in range(20):
        assert_on_its_edges(space, space.sample(generator).architecture)
    network = space.network(space.sample(generator).architecture)
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def test_every_operation_of_an_edge_is_sampled_equally_often() -> None:
    space, generator = by_edge(), torch.Generator().manual_seed(0)
    found = [space.genotype(space.sample(generator).architecture).normal[:2] for _ in range(400)]
    of_edge = [operation for pair in found for operation, source in pair if source == 0]
    assert abs(of_edge.count("skip_connect") / len(of_edge) - 0.5) < 0.08


@pytest.mark.parametrize("method", STRATEGIES)
def test_black_box_methods_propose_architectures_of_the_space(method: str) -> None:
    space = small("s1")
    strategy = STRATEGIES[method](space=space, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        candidates = strategy.ask()
        for candidate in candidates:
            assert_on_its_edges(space, candidate.architecture)
        strategy.tell([Scored(candidate, float(place)) for place, candidate in enumerate(candidates)])


def test_a_wrong_operation_is_repaired_and_refused() -> None:
    space = by_edge()
    indices = space.encode(space.sample(torch.Generator().manual_seed(0)))
    first = space.choices[1]  # that of the first edge of node 2 of the normal cell
    for source in (0, 1):
        for index in range(len(first.options)):
            vector = [float(source), float(index), float(1 - source), *indices[3:]]
            repaired = space.repair(vector, torch.Generator().manual_seed(1))
            assert_on_its_edges(space, space.decode(repaired).architecture)
    assert space.repair(indices, torch.Generator()) == indices
    options = dict(space.decode(indices).architecture)
    options |= {"normal.node2.first.input": "0", "normal.node2.first.operation": "dil_conv_3x3"}
    with pytest.raises(InvalidValue, match=r"normal\.node2\.first\.operation.*skip_connect, sep_conv_3x3"):
        space.network(Architecture(space.name, options))
    pools = (("max_pool_3x3", 0), ("max_pool_3x3", 1))
    other = Genotype((("dil_conv_3x3", 0), ("dil_conv_3x3", 1), *pools), (2, 3), (("skip_connect", 0),) * 4, (2, 3))
    with pytest.raises(InvalidValue, match="the edge from 0"):
        space.architecture(other)
    assert space.for_genotype(other).architecture(other)


def test_the_discretisation_reads_each_edge_by_its_own_operations() -> None:
    space = by_edge()
    supernet = space.supernet(Softmax(Temperature()))
    assert [options for _, options in supernet.alpha_rows("normal")][1] == ("none", "dil_conv_3x3")
    with torch.no_grad():
        for alpha in supernet.alpha.values():
            alpha.zero_()
        supernet.alpha["normal"][1] = torch.tensor([5.0, 1.0])  # none does not count
        supernet.alpha["normal"][3] = torch.tensor([1.0, 0.0])
        supernet.alpha["normal"][4] = torch.tensor([2.0, 0.0])
    genotype = space.genotype(supernet.discretise())
    assert genotype.normal == (
        ("skip_connect", 0),
        ("dil_conv_3x3", 1),
        ("max_pool_3x3", 2),
        ("max_pool_3x3", 1),
    )


def test_the_supernet_hands_down_and_computes_an_architecture() -> None:
    operations = {
        cell: [["sep_conv_3x3", "none"], ["none", "dil_conv_3x3"], *[["skip_connect", "none"]] * 3] for cell in CELLS
    }
    space = by_edge(operations=operations)
    supernet = space.supernet(Softmax(Temperature())).double().eval()
    architecture = space.sample(torch.Generator().manual_seed(2)).architecture
    network = space.network(architecture).double().eval()
    network.load_state_dict(supernet.inherited_state(architecture))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network(x), supernet(x, supernet.architecture_weights(architecture)))


def _edge(rows: Any) -> dict[str, Any]:
    return {**BY_EDGE, "normal": rows}


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ({"normal": BY_EDGE["normal"]}, "normal and reduce"),
        (_edge(BY_EDGE["normal"][:4]), "5 lists"),
        (_edge([*BY_EDGE["normal"][:4], ["skip_connect"]]), "equally many"),
        (_edge([*BY_EDGE["normal"][:4], ["skip_connect", "quick"]]), r"normal\[4\]"),
        (_edge([*BY_EDGE["normal"][:4], "none"]), r"normal\[4\]"),
        (_edge("none"), "5 lists"),
    ],
)
def test_other_operations_are_refused(operations: Any, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        by_edge(operations=operations)


def test_rows_are_named_after_their_edges() -> None:
    names = [name for name, _ in small("s1").supernet(Softmax(Temperature())).alpha_rows("reduce")]
    assert names == [edge_name("reduce", *edge) for edge in cell_edges(4)]
