"""Cells of what is not below a threshold, and the DARTS space whose architectures may leave edges out."""

import pytest
import torch

from nas.candidate import Candidate
from nas.errors import InvalidValue
from nas.relaxations.sigmoid import Sigmoid
from nas.search.discretisation import Trained
from nas.search.threshold import Threshold, at_least
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201

SHAPE = {"signature": Signature((1, 8, 8), 3)}
SIZES = {"channels": 2, "cells": 3, "steps": 2, "multiplier": 2, "final_channels": 2, "final_cells": 3}
OPERATIONS = ["skip_connect", "sep_conv_3x3"]
SPACE = Darts(**SIZES, operations=OPERATIONS, optional_edges=True, **SHAPE)


def test_options_at_or_above_a_threshold_keep_their_weight() -> None:
    options = {"a": 0.9, "b": 0.3, "c": 0.5, "d": 0.6}
    assert at_least(options, 0.5) == {"a": 0.9, "b": 0.0, "c": 0.5, "d": 0.6}
    assert at_least(options, 0.2, most=2) == {"a": 0.9, "b": 0.0, "c": 0.0, "d": 0.6}


def test_a_node_may_have_two_edges_one_or_none() -> None:
    supernet = SPACE.supernet(Sigmoid())
    with torch.no_grad():
        supernet.alpha["normal"].fill_(-3.0)
        supernet.alpha["reduce"].fill_(3.0)
        supernet.alpha["normal"][3, 1] = 3.0  # into node 3, from state 1
    found = Threshold(0.85).choose(Trained(supernet, SPACE, lambda _: []))
    genotype = SPACE.genotype(found)
    assert [operation for operation, _ in genotype.normal] == ["none", "none", "sep_conv_3x3", "none"]
    assert genotype.normal[2] == ("sep_conv_3x3", 1)
    assert "none" not in [operation for operation, _ in genotype.reduce]
    network = SPACE.network(found)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    weights = SPACE.architecture_weights(found)
    assert float(weights["normal"].sum()) == 1
    assert float(weights["normal"][3, 1]) == 1
    assert SPACE.runner_up("normal.node2.first.operation", found, supernet.probabilities()) is None
    assert SPACE.doubts(found) == []


def test_a_cell_without_a_way_through_it_is_doubted() -> None:
    supernet = SPACE.supernet(Sigmoid())
    found = Threshold(0.85).choose(Trained(supernet, SPACE, lambda _: []))
    assert any("normal cell" in doubt for doubt in SPACE.doubts(found))


def test_a_space_with_optional_edges_comes_back_from_its_description() -> None:
    assert "optional_edges" not in Darts(**SIZES, **SHAPE).settings()  # as before there was the setting
    again = Darts.from_settings(SPACE.settings(), Signature((1, 8, 8), 3))
    assert again.choices == SPACE.choices
    candidate = SPACE.sample(torch.Generator().manual_seed(0))
    assert again.decode(again.encode(candidate)) == Candidate(candidate.architecture, candidate.hyperparameters)


def test_where_every_edge_has_an_operation_it_is_refused() -> None:
    space = Darts(**SIZES, **SHAPE)
    with pytest.raises(InvalidValue, match=r"space\.optional_edges=true"):
        Threshold().check(space.supernet(Sigmoid()), space)
    with pytest.raises(InvalidValue, match="from 0 to below 1"):
        Threshold(1.0)


def test_nasbench201_has_a_none_of_its_own() -> None:
    space = NasBench201(2, 1, **SHAPE)
    supernet = space.supernet(Sigmoid())
    Threshold(0.85).check(supernet, space)
    with torch.no_grad():
        supernet.alpha["cell"][0, 3] = 5.0
    found = Threshold(0.85).choose(Trained(supernet, space, lambda _: []))
    assert list(found.values()) == ["nor_conv_3x3", *["none"] * 5]
