"""Whether the architecture that is handed on has settled, by what is read off at the end of the last epochs."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.candidate import Architecture
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.discretisation import Alone, AloneOrStrongest, Strongest, Trained
from nas.search.gradient_search import GradientSearch
from nas.search.parts import SearchSettings
from nas.search.readings import Readings
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import search_parts

IMAGES = 8


def parts_of(path: Path, discretisation: Any, **search: Any) -> Any:
    settings = {"epochs": 4, "settled_by": "candidate", **search}
    return search_parts(path, discretisation=discretisation, search=settings)


def reading(
    path: Path, read: Sequence[dict[str, str]], losses: dict[str, dict[str, torch.Tensor]], **search: Any
) -> Any:
    """Readings that take ``read`` one after the other, the last of them at the losses ``losses``."""
    parts = parts_of(path, SimpleNamespace(asks_for_losses=True, losses=losses), **search)
    space: Any = SimpleNamespace(conditions=lambda: {"kernel": ("type", "conv")})
    space.acts = partial(SearchSpace.acts, space)
    left = iter(read)
    reader: Any = SimpleNamespace(read_off=lambda _: Architecture("one", next(left)), chosen=None)
    found = Readings(replace(parts, space=space), reader)
    for epoch in range(4):
        found.on_epoch(4 * (epoch + 1), epoch, Architecture("one", {}))
    reader.chosen = Architecture("one", read[-1])
    found.note(16)
    return found


CONV = {"type": "conv", "width": "8", "kernel": "3"}
SAMPLES = torch.linspace(0.0, 0.4, 101, dtype=torch.float64)  # their mean is 0.2
NOISE = torch.tensor([0.2, -0.2], dtype=torch.float64).repeat(51)[:101]  # twice its standard error is 0.04
LOSSES = {
    "type": {"conv": SAMPLES, "skip": SAMPLES + 0.1},
    "width": {"8": SAMPLES, "16": SAMPLES + 0.0199, "32": SAMPLES + 0.03, "noisy": SAMPLES + 0.03 + NOISE},
}


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        ([CONV, CONV], None),
        ([{**CONV, "width": "16"}, CONV], None),  # less than 10 % of the loss
        ([{**CONV, "width": "noisy"}, CONV], None),
        ([{**CONV, "width": "32"}, CONV], "width read off differently in the last 2 epochs"),
        ([{**CONV, "width": "64"}, CONV], "width read off differently in the last 2 epochs"),  # nothing is known of it
        ([{**CONV, "type": "skip"}, CONV], "type read off differently in the last 2 epochs"),
        ([{**CONV, "kernel": "5"}, CONV], "kernel read off differently in the last 2 epochs"),
        ([{**CONV, "kernel": "5", "type": "skip"}, {**CONV, "type": "skip"}], None),  # switched off
    ],
)
def test_settled_is_what_was_read_off_twice_or_makes_no_difference(
    read: list[dict[str, str]], reason: str | None, tmp_path: Path
) -> None:
    assert reading(tmp_path, read, LOSSES, settled_epochs=2).unsettled() == reason
    strict = reading(tmp_path, read, LOSSES, settled_epochs=2, settled_loss=0.0).unsettled()
    assert (strict is None) == (read[0] == read[1] or read[1]["type"] == "skip" or read[0]["width"] == "noisy")


def test_fewer_readings_than_epochs_tell_nothing(tmp_path: Path) -> None:
    found = reading(tmp_path, [CONV, CONV, CONV], LOSSES, settled_epochs=3)
    assert found.unsettled() is None  # after the epochs 2 and 3, and at the end
    found.forget()
    found.note(16)
    assert found.unsettled() == "too early to tell, 1 reading of 3"


def searched(path: Path, **search: Any) -> GradientSearch:
    return GradientSearch(parts_of(path, AloneOrStrongest(IMAGES), **search))


def test_a_search_pays_for_its_readings_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    expected = searched(tmp_path / "whole", settled_epochs=3).search()
    by_alpha = searched(tmp_path / "alpha", settled_epochs=3, settled_by="parameters").search()
    assert expected.candidate == by_alpha.candidate  # looking changes nothing
    one = AloneOrStrongest(IMAGES).images(parts_of(tmp_path, None).space, 48)
    assert 0 < expected.cost.samples - by_alpha.cost.samples <= 2 * one

    broken = searched(tmp_path / "killed", settled_epochs=3)
    with killed(broken.problem, "step", lambda *_: broken.step == 13):  # after the last reading but the final one
        broken.search()
    assert_same_results(searched(tmp_path / "killed", settled_epochs=3).search(), expected)
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")


def test_it_reads_after_every_epoch_that_may_be_the_last(tmp_path: Path) -> None:
    search = searched(tmp_path, epochs=6, stop="settled", settled_epochs=2, settled_loss=1e3)
    search.trajectory.settled = lambda *_: {"architecture": "alpha moved"}  # type: ignore[method-assign]
    result = search.search()
    assert search.step == 2 * search.steps_per_epoch
    assert not any(result.settled.values())


MACRO = Macro([{"type": "conv", "filters": [2, 4], "kernel_size": 1}], ["relu"], signature=Signature((1, 6, 6), 3))
CELLS = Darts(channels=2, cells=2, steps=2, multiplier=2, signature=Signature((1, 8, 8), 3))
EDGES = NasBench201(channels=2, cells_per_stage=1, signature=Signature((1, 8, 8), 3))


@pytest.mark.parametrize(
    ("space", "alone", "sliced"), [(MACRO, True, True), (EDGES, True, False), (CELLS, False, False)]
)
def test_options_are_asked_alone_where_each_choice_has_an_alpha(space: Any, alone: bool, sliced: bool) -> None:
    rule, supernet = AloneOrStrongest(IMAGES), space.supernet(Softmax(Temperature()))
    rule.check(supernet, space)
    assert (rule.asks_for_losses, rule.sliced) == (alone, sliced)
    images = Alone(IMAGES, types_first=True).images(space, 100) if alone else 0
    assert rule.images(space, 100) == images
    if not alone:
        assert rule.choose(Trained(supernet, space, lambda most: [])) == supernet.discretise()


def test_the_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"settled_loss=-1 .*must be a share of at least 0"):
        search_parts(tmp_path, search={"settled_loss": -1})
    assert SearchSettings.settled_by == "parameters"


def test_options_are_not_asked_alone_where_alpha_knows_more() -> None:
    rule: Any = AloneOrStrongest(IMAGES)
    free, dear = (SimpleNamespace(penalty=SimpleNamespace(shares=shares)) for shares in ({}, {"parameters": 1.0}))
    old: Any = SimpleNamespace(goes_back=True)
    assert rule.suited_to(free, None) is rule
    assert isinstance(rule.suited_to(dear, None), Strongest)
    assert isinstance(rule.suited_to(free, old), Strongest)
    alone: Any = Alone(IMAGES)
    assert alone.suited_to(dear, old) is alone
