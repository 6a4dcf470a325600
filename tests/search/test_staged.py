"""The search in stages, its dropout behind skips and its cap on them."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.errors import InvalidValue
from nas.evaluation.budget import Budget
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.operations.cell_operations import MixedEdge
from nas.operations.skip_dropout import SkipDropout, add_skip_dropouts
from nas.operations.stochastic import set_dropout
from nas.search.few_skips import FewSkips, with_few_skips
from nas.search.gradient_search import GradientSearch
from nas.search.staged import FadingSkipDropout, Staged, kept_options
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from tests.killing import assert_same_bytes, assert_same_results, killed_in_search
from tests.problems import INPUT_SHAPE, batch_for, search_parts, seeded_supernet

OPERATIONS = ["none", "skip_connect", "avg_pool_3x3", "max_pool_3x3"]


def tiny(**settings: Any) -> Darts:
    usual = {"channels": 2, "cells": 2, "steps": 2, "multiplier": 2, "stem_multiplier": 1, "operations": OPERATIONS}
    made_for = {"signature": Signature(INPUT_SHAPE, 3)}
    return Darts(**{**usual, **made_for, **settings})


def staged(folder: Path, **settings: Any) -> Staged:
    own: dict[str, Any] = {"further_cells": [1, 1], "keep": [3, 2], "skip_dropout": [0.0, 0.4, 0.7]}
    own |= {name: settings.pop(name) for name in own if name in settings}
    hyperparameters = HyperparameterSet(
        {
            "learning_rate": LearningRate(0.01, 1e-5, 0.5, "log", False),
            "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
        }
    )
    usual = {
        "space": tiny(signature=Signature((1, 8, 8), 10)),
        "hyperparameters": hyperparameters,
        "hyperparameter_gradient": None,
        "discretisation": FewSkips(1),
        "search": {"epochs": 2, "warmup_epochs": 1},
    }
    return Staged(**own, parts=search_parts(folder, **{**usual, **settings}))


def test_the_least_probable_go_and_of_equals_the_first() -> None:
    rows = {"a": {"x": 0.1, "y": 0.1, "z": 0.8}, "b": {"x": 0.5, "y": 0.2, "z": 0.3}}
    assert kept_options(rows, 2) == {"a": ("y", "z"), "b": ("x", "z")}


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[GradientSearch]:
    found: list[GradientSearch] = []
    original = GradientSearch.search

    def noting(self: GradientSearch) -> Any:
        found.append(self)
        return original(self)

    monkeypatch.setattr(GradientSearch, "search", noting)
    return found


def test_each_stage_is_deeper_and_has_less_to_choose(tmp_path: Path, searches: list[GradientSearch]) -> None:
    method = staged(tmp_path)
    found = method.search()
    spaces = [one.parts.space for one in searches]
    assert [space.cells for space in spaces] == [2, 3, 3]  # type: ignore[attr-defined]
    assert [one.supernet.alpha["normal"].shape[1] for one in searches] == [4, 3, 2]
    for before, after in pairwise(searches):
        options = kept_options(before.supernet.probabilities(), after.supernet.alpha["normal"].shape[1])
        rows = {row: options for name in after.supernet.alpha for row, options in after.supernet.alpha_rows(name)}
        assert rows == options
    assert found.candidate.architecture == searches[-1].reader.chosen
    found.candidate.architecture.check(method.parts.space.choices)
    assert len(method.parts.space.skips(found.candidate.architecture)) <= 1
    assert found.cost.samples == found.metrics["samples"] == sum(one.meter.spent.samples for one in searches)
    assert found.remarks["stages"] == "2 cells, 3 cells, 3 cells"
    assert (tmp_path / "stages" / "1" / "metrics.csv").is_file()


def test_what_is_learned_goes_on_from_stage_to_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[GradientSearch] = []
    begun: list[dict[str, float]] = []
    original = GradientSearch.search

    def noting(self: GradientSearch) -> Any:
        searches.append(self)
        begun.append(self.hyperparameters.numbers())
        return original(self)

    monkeypatch.setattr(GradientSearch, "search", noting)
    own = {"further_cells": [1], "keep": [2], "skip_dropout": [0.3, 0.3]}
    space = tiny(signature=Signature((1, 8, 8), 10))
    found = Staged(**own, parts=search_parts(tmp_path, space=space, search={"epochs": 1})).search()
    handed_on = searches[0].trajectory.tail_average()
    assert {"learning_rate", "dropout"} <= handed_on.keys()
    assert {name: begun[1][name] for name in handed_on} == pytest.approx(dict(handed_on))
    assert begun[1] != begun[0]
    assert found.candidate.hyperparameters["dropout"] != begun[0]["dropout"]


@pytest.mark.parametrize(
    ("stage", "step"), [(1, 4), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((0, 5), (2, 7)))]
)
def test_killed_and_resumed_it_ends_alike(stage: int, step: int, tmp_path: Path) -> None:
    expected = staged(tmp_path / "whole").search()
    with killed_in_search(stage, step):
        staged(tmp_path / "killed").search()
    assert_same_results(staged(tmp_path / "killed").search(), expected)
    names = ("metrics.csv", "stages/0/metrics.csv", "stages/1/metrics.csv")
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole", *names)


def test_the_dropout_falls_linearly_and_then_exponentially(tmp_path: Path) -> None:
    search = staged(tmp_path, search={"epochs": 25, "warmup_epochs": 10}).first
    fading = FadingSkipDropout(0.4, search)
    assert fading.layers
    assert [fading.at(epoch) for epoch in (0, 9)] == pytest.approx([0.4 * 24 / 25, 0.4 * 15 / 25])
    assert [fading.at(epoch) for epoch in (10, 20)] == pytest.approx([0.4, 0.4 * math.exp(-2)])
    fading.on_epoch(4, 0, search.supernet.discretise())
    assert {layer.rate for layer in fading.layers} == {fading.at(1)}
    other = FadingSkipDropout(0.4, staged(tmp_path / "other", search={"epochs": 25, "warmup_epochs": 10}).first)
    other.load_state_dict(fading.state_dict())
    assert {layer.rate for layer in other.layers} == {fading.at(1)}


@pytest.mark.parametrize("implementation", ["plain", "fast"])
def test_skips_alone_are_dropped_and_without_a_rate_nothing_is(implementation: str) -> None:
    space, images = tiny(implementation=implementation), batch_for(3).inputs
    supernet, generators = seeded_supernet(space)
    before = supernet(images)
    names = set(supernet.state_dict())
    layers = add_skip_dropouts(supernet)
    edges = [module for module in supernet.modules() if isinstance(module, MixedEdge)]
    assert len(layers) == sum(type(edge.operations[1]) is SkipDropout for edge in edges)
    assert not any(type(operation) is nn.Identity for edge in edges for operation in edge.operations)
    assert set(supernet.state_dict()) == names
    assert torch.allclose(supernet(images), before, rtol=0, atol=1e-12)
    set_dropout(supernet, 0.5)  # the dropout in front of the classifier, which is another one
    assert {layer.rate for layer in layers} == {0.0}
    set_dropout(supernet, 0.0)
    for layer in layers:
        layer.rate, layer.generator = 0.5, generators[0]
    assert not torch.allclose(supernet(images), before)
    supernet.eval()
    assert torch.equal(supernet(images), supernet(images))


def test_the_weakest_skips_go_first() -> None:
    space = tiny(operations=["none", "skip_connect", "avg_pool_3x3"])
    supernet, _ = seeded_supernet(space)
    with torch.no_grad():
        supernet.alpha["normal"][:, 1] += 3.0
    probabilities = supernet.probabilities()
    found = {most: with_few_skips(space, probabilities, most) for most in (4, 2, 0)}
    assert [len(space.skips(found[most])) for most in (4, 2, 0)] == [4, 2, 0]
    kept = dict(space.skips(found[2]))
    everything = dict(space.skips(found[4]))
    weakest = sorted(everything, key=lambda row: probabilities[row]["skip_connect"])
    assert weakest[0] not in kept
    assert space.skips(found[4]) != []


def test_a_row_with_nothing_else_keeps_its_skip() -> None:
    space = tiny(operations=["none", "skip_connect"])
    supernet, _ = seeded_supernet(space)
    assert len(space.skips(with_few_skips(space, supernet.probabilities(), 0))) == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"keep": [4, 2]}, r"keep=\[4, 2\] is not allowed: each must be below the one before"),
        ({"keep": [3, 1]}, r"keep=\[3, 1\] is not allowed: each must be at least 2"),
        ({"further_cells": [1]}, "it must have 2 whole numbers"),
        ({"skip_dropout": [0.1]}, "it must have 3 rates"),
        ({"budget": Budget(samples=400)}, "budget.samples=.* is not allowed: a search of one step costs up to"),
    ],
    ids=["nothing goes", "one left", "cells", "rates", "budget"],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        staged(tmp_path, **settings)


def test_a_space_without_such_cells_is_refused(tmp_path: Path) -> None:
    from nas.spaces.macro.space import Macro

    layers = [{"type": "conv", "filters": [2, 4, 6], "kernel_size": [1, 3, 5]}, {"type": "dense", "units": [4, 6, 8]}]
    space = Macro(layers, ["relu"], signature=Signature((1, 8, 8), 10))
    with pytest.raises(InvalidValue, match="space=macro is not allowed: its search network has no number of cells"):
        staged(tmp_path, space=space, keep=[2], further_cells=[1], skip_dropout=[0.0, 0.0])
