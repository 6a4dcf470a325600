"""Searches in cells whose edges have a structure: killed and resumed, and the auxiliary skip on its way."""

from functools import partial
from pathlib import Path

import pytest
import torch

from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.search.gradient_search import GradientSearch
from nas.signature import Signature
from nas.spaces.cell_supernet import CellSupernet
from nas.spaces.darts.space import Darts
from nas.spaces.space import SearchSpace
from tests.killing import assert_same_bytes, assert_same_results, killed_in_search
from tests.problems import STRUCTURED_SPACES, search_parts

SPACES = {
    **{name: partial(made, signature=Signature((1, 8, 8), 10)) for name, made in STRUCTURED_SPACES.items()},
    "noise": partial(Darts, 2, 3, 2, 2, 1, ("noise", "sep_conv_3x3"), signature=Signature((1, 8, 8), 10)),
}


def made(space: SearchSpace, folder: Path) -> GradientSearch:
    """A search of eight steps that moves alpha and the weights."""
    rate = LearningRate(0.01, 1e-5, 0.5, "log", learn=False)
    held = HyperparameterSet({"learning_rate": rate, "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", learn=False)})
    return GradientSearch(search_parts(folder, space=space, hyperparameter_gradient=None, hyperparameters=held))


@pytest.mark.parametrize("name", SPACES)
def test_a_killed_search_goes_on_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    whole = made(SPACES[name](), tmp_path / "whole")
    expected = whole.search()
    with killed_in_search(0, 5):
        made(SPACES[name](), tmp_path / "killed").search()
    resumed = made(SPACES[name](), tmp_path / "killed")
    assert_same_results(resumed.search(), expected)
    for entry, value in whole.supernet.state_dict().items():
        assert torch.equal(resumed.supernet.state_dict()[entry], value), entry
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")


def test_the_auxiliary_skip_follows_the_search(tmp_path: Path) -> None:
    search = made(SPACES["structured darts"](), tmp_path)
    supernet = search.supernet
    assert isinstance(supernet, CellSupernet)
    assert supernet.auxiliary_skip is not None
    seen = []
    advance = search.advance

    def step() -> None:
        advance()
        assert supernet.auxiliary_skip is not None
        seen.append(float(supernet.auxiliary_skip))

    search.advance = step  # type: ignore[method-assign]
    search.search()
    assert seen == pytest.approx([1 - step / 8 for step in range(8)])
    assert float(supernet.auxiliary_skip) == 0.0  # at the end, when it is measured
