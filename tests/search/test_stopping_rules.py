"""When a search ends before its last epoch."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.bilevel.exact import Exact
from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.search.gradient_search import GradientSearch
from nas.search.removal import Removal
from nas.search.stopping_rules import Converged, Eigenvalue, EndedEpoch, Skips, StoppingRule
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import SEARCHED_LAYERS, search_parts, seeded_supernet

RISING = [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6]
EARLY = {"every": 1, "window": 1, "delta": 1, "factor": 1.0 + 1e-9, "first_epoch": 0, "images": 16, "products": 3}


def test_the_averages_are_those_of_the_published_rule() -> None:
    """An average counts for the middle of its window, so that the search goes back by six measurements."""
    rule = Eigenvalue(first_epoch=0)
    back = [rule.measured(2 * place, value) for place, value in enumerate(RISING)]
    assert rule.averages[:3] == pytest.approx([0.2, 0.2, 0.2])  # of three, four and five measurements
    assert rule.averages[-1] == pytest.approx(sum(RISING[-5:]) / 5)
    # (0.2 + 0.2 + 0.2 + 0.3 + 0.4) / 5 = 0.26 is not above 1.3 * 0.2, the next one, 0.32, is.
    assert next(place for place, epoch in enumerate(back) if epoch is not None) == 10
    assert back[10] == 2 * (10 - 6)


def test_it_never_goes_back_before_its_first_epoch() -> None:
    rule = Eigenvalue(first_epoch=10)
    assert [rule.measured(2 * place, value) for place, value in enumerate(RISING)][10] is None


def ended(epoch: int, supernet: Any, space: Any, eigenvalue: Callable[[int, int], float]) -> EndedEpoch:
    return EndedEpoch(epoch, supernet.discretise(), supernet, space, lambda: {"architecture": None}, eigenvalue)


def test_it_ends_with_the_alpha_of_the_earlier_epoch() -> None:
    space = NasBench201(channels=2, cells_per_stage=1, signature=Signature((1, 6, 6), 3))
    supernet, _ = seeded_supernet(space)
    rule, alphas = Eigenvalue(every=1, window=1, delta=2, first_epoch=0), []
    for epoch, value in enumerate([1.0, 1.1, 1.2, 9.0]):
        with torch.no_grad():
            supernet.alpha["cell"].fill_(float(epoch))
        alphas.append(supernet.alpha["cell"].detach().clone())
        reason = rule.after(ended(epoch, supernet, space, lambda products, images, value=value: value))
        assert (reason is None) == (epoch < 3)
    assert torch.equal(supernet.alpha["cell"], alphas[1])
    assert rule.numbers() == {"eigenvalue": 9.0, "average": 9.0}


def cell(normal: str) -> tuple[Darts, Architecture]:
    space = Darts(channels=2, cells=2, steps=2, multiplier=2, stem_multiplier=1, signature=Signature((1, 6, 6), 3))
    options = {choice.name: choice.options[0] for choice in space.choices}
    options |= {"normal.node2.second.input": "1", "normal.node3.second.input": "2"}
    for place in ("node2.first", "node2.second", "node3.second"):
        options[f"normal.{place}.operation"] = normal
    options |= {name: "skip_connect" for name in options if name.startswith("reduce") and name.endswith("operation")}
    return space, Architecture("darts", options)


def test_only_the_skips_of_the_normal_cell_count() -> None:
    space, many = cell("skip_connect")
    assert [row for row, _ in space.skips(many)] == ["normal.node2.from0", "normal.node2.from1", "normal.node3.from2"]
    assert space.skips(cell("sep_conv_3x3")[1]) == []


@pytest.mark.parametrize(("skips", "stops"), [(3, True), (4, False)])
def test_too_many_skips_end_it(skips: int, stops: bool) -> None:
    space, many = cell("skip_connect")
    supernet, _ = seeded_supernet(space)
    state = EndedEpoch(0, many, supernet, space, dict, lambda products, images: 0.0)
    assert (Skips(skips).after(state) is not None) == stops


def test_ranks_that_stand_still_end_it() -> None:
    space, none = cell("sep_conv_3x3")
    supernet, _ = seeded_supernet(space)
    state = EndedEpoch(0, none, supernet, space, dict, lambda products, images: 0.0)
    rule = Skips(skips=9, standing=2)
    assert [rule.after(state) for _ in range(2)] == [None, None]
    with torch.no_grad():
        supernet.alpha["normal"].mul_(-1.0)
    assert [rule.after(state) for _ in range(2)] == [None, None]
    assert rule.after(state) == "the ranks of all operations have stood for 2 epochs"


def test_convergence_ends_it() -> None:
    space, none = cell("sep_conv_3x3")
    supernet, _ = seeded_supernet(space)
    moving = EndedEpoch(0, none, supernet, space, lambda: {"architecture": "moved"}, lambda products, images: 0.0)
    still = EndedEpoch(1, none, supernet, space, lambda: {"architecture": None}, lambda products, images: 0.0)
    assert Converged().after(moving) is None
    assert Converged().after(still) == "everything has settled"


class Third(StoppingRule):
    def after(self, ended: EndedEpoch) -> str | None:
        return "it is the third" if ended.epoch == 2 else None


def test_a_search_ends_where_its_rule_says_and_tells_why(tmp_path: Path) -> None:
    found = GradientSearch(search_parts(tmp_path, stopping=Third(), search={"epochs": 5})).search()
    assert found.epoch == 2
    assert found.remarks["ended early"] == "after epoch 3: it is the third"
    again = GradientSearch(search_parts(tmp_path, stopping=Third(), search={"epochs": 5})).search()
    assert again.remarks == found.remarks


@pytest.mark.parametrize("architecture", [None, Exact()], ids=["first order", "exact"])
def test_killed_and_resumed_it_measures_and_ends_alike(architecture: Any, tmp_path: Path) -> None:
    settings = {} if architecture is None else {"architecture_gradient": architecture}

    def made(folder: str) -> GradientSearch:
        # Any two measurements differ, and the second one may be the larger: some of these epochs end it.
        rule = Eigenvalue(**EARLY)
        return GradientSearch(search_parts(tmp_path / folder, stopping=rule, search={"epochs": 4}, **settings))

    whole = made("whole")
    expected = whole.search()
    broken = made("killed")
    with killed(broken.bilevel_optimiser, "step", lambda *_: broken.step == 6):
        broken.search()
    assert_same_results(made("killed").search(), expected)
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")
    assert b"stopping/eigenvalue" in (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_what_it_measures_is_paid_for(tmp_path: Path) -> None:
    rule = Eigenvalue(**(EARLY | {"factor": 1e9}))
    with_rule = GradientSearch(search_parts(tmp_path / "with", stopping=rule)).search()
    without = GradientSearch(search_parts(tmp_path / "without")).search()
    assert with_rule.cost.samples == without.cost.samples + 2 * (1 + 3) * 16
    assert with_rule.candidate == without.candidate


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"relaxation": GumbelSoftmax(Temperature())}, "stopping=Eigenvalue is not allowed: GumbelSoftmax draws"),
        ({"discretisation": Removal(10)}, "discretisation=Removal is not allowed: Eigenvalue may go back to an old"),
        ({"stopping": Skips()}, "stopping=Skips is not allowed: no option of this space macro skips"),
    ],
    ids=["sampler", "removal", "no skips"],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        GradientSearch(search_parts(tmp_path, **{"stopping": Eigenvalue(), **settings}))


@pytest.mark.parametrize("wrong", [{"every": 0}, {"factor": 1.0}, {"images": 1}, {"weight_decay": math.inf}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(wrong))):
        Eigenvalue(**wrong)


def test_a_space_with_an_optional_layer_can_skip() -> None:
    layers = [SEARCHED_LAYERS[0], {**SEARCHED_LAYERS[0], "optional": True}, SEARCHED_LAYERS[1]]
    space = Macro(layers, ["relu"], signature=Signature((1, 6, 6), 3))
    Skips().check(space)
