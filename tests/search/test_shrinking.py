"""Options that are taken away while a search goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.errors import InvalidValue
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.gradient_search import GradientSearch
from nas.search.shrinking import Mask, Shrinker, strongest
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import CELL_SPACES, INPUT_SHAPE, batch_for, search_parts, seeded_supernet

LAYERS = [
    {"type": "conv", "filters": [2, 4, 6], "kernel_size": [1, 3]},
    {"type": "dense", "units": [4, 6, 8]},
]


def test_weights_and_alphas_are_those_of_the_original(reference_folder: Path) -> None:
    """DrNAS' pruning in NAS-Bench-201, with the softmax in the place of a sample."""
    file = np.load(reference_folder / "one_shot" / "drnas_nasbench201_c4_n1.npz")
    space = NasBench201(channels=2, cells_per_stage=1, signature=Signature(INPUT_SHAPE, 3))
    supernet = space.supernet(Softmax(Temperature())).double()
    with torch.no_grad():
        supernet.alpha["cell"].copy_(torch.from_numpy(file["prune0/alpha_before"]))
    for stage in ("prune0", "prune1"):
        keep = int(file[f"{stage}/keep"])
        shrinker = Shrinker(Mask([0.5], [keep]), supernet, space, epochs=2)
        shrinker.on_epoch(1, 0, supernet.discretise())
        assert torch.equal(supernet.alpha["cell"].detach(), torch.from_numpy(file[f"{stage}/alpha_after"]))
        expected = torch.from_numpy(file[f"{stage}/softmax_weights"])
        assert torch.allclose(supernet.operation_weights()["cell"], expected, rtol=0, atol=1e-12)
        sample = torch.from_numpy(file[f"{stage}/unmasked_sample"])
        ours = supernet.masked("cell", sample)
        assert torch.allclose(ours, torch.from_numpy(file[f"{stage}/weights"]), rtol=0, atol=1e-12)


def test_of_equals_the_first_stay_and_what_is_gone_stays_away() -> None:
    alpha = torch.tensor([[1.0, 2.0, 1.0, 1.0], [9.0, 0.0, 1.0, 2.0]])
    there = torch.tensor([[True] * 4, [False, True, True, True]])
    assert strongest(alpha, there, 2).tolist() == [[True, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize("name", CELL_SPACES)
def test_fast_cells_compute_what_plain_ones_do_without_some_options(name: str) -> None:
    logits = []
    for implementation in ("plain", "fast"):
        space = CELL_SPACES[name](signature=Signature(INPUT_SHAPE, 3), implementation=implementation)
        supernet, _ = seeded_supernet(space)
        Shrinker(Mask([0.5], [3]), supernet, space, 2).on_epoch(1, 0, supernet.discretise())
        logits.append(supernet(batch_for(3).inputs))
    assert torch.allclose(*logits, rtol=0, atol=1e-10)


def test_no_option_that_is_gone_is_chosen() -> None:
    space = Darts(channels=2, cells=2, steps=2, multiplier=2, stem_multiplier=1, signature=Signature(INPUT_SHAPE, 3))
    supernet, _ = seeded_supernet(space)
    Shrinker(Mask([0.5], [2]), supernet, space, 2).on_epoch(1, 0, supernet.discretise())
    with torch.no_grad():
        for alpha in supernet.alpha.values():
            alpha.normal_(std=9.0)
    genotype = space.genotype(supernet.discretise())
    probabilities = supernet.probabilities()
    for cell in ("normal", "reduce"):
        for place, (operation, source) in enumerate(getattr(genotype, cell)):
            assert probabilities[f"{cell}.node{2 + place // 2}.from{source}"][operation] > 0


def made(folder: Path, **settings: Any) -> GradientSearch:
    from nas.spaces.macro.space import Macro

    space = Macro(LAYERS, ["relu"], signature=Signature((1, 8, 8), 10))
    usual = {"space": space, "shrinking": Mask([0.4, 0.7], [3, 2], rest=0.2), "search": {"epochs": 5}}
    return GradientSearch(search_parts(folder, **{**usual, **settings}))


def test_killed_and_resumed_a_search_ends_alike(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", shrinking=Mask([0.4], [2], rest=0.2))
    expected = whole.search()
    broken = made(tmp_path / "killed", shrinking=Mask([0.4], [2], rest=0.2))
    resting: list[bool] = []

    def when(training: Any, validation: Any, requests: Any) -> bool:
        resting.append(all(broken.bilevel_optimiser.alpha[0] not in set(targets) for _, targets in requests))
        return broken.step == 14

    with killed(broken.bilevel_optimiser, "step", when):
        broken.search()
    assert resting == [False] * 8 + [True] * 4 + [False] * 3  # of five epochs, the third
    resumed = made(tmp_path / "killed", shrinking=Mask([0.4], [2], rest=0.2))
    assert_same_results(resumed.search(), expected)
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")
    state = resumed.supernet.state_dict()
    assert all(torch.equal(entry, state[name]) for name, entry in whole.supernet.state_dict().items())
    gone = [share for options in whole.supernet.probabilities().values() for share in options.values() if share == 0]
    assert len(gone) == 2  # of three filters and of three units; the two kernel sizes stay


def test_the_guard_gives_nothing_back(tmp_path: Path) -> None:
    search = made(tmp_path, shrinking=Mask([0.4], [2]))
    search.callbacks["shrinking"].on_epoch(8, 1, search.supernet.discretise())
    before = {name: share for name, share in search.supernet.state_dict().items() if name.startswith("kept.")}
    search.fresh_start.go_back(2.0)
    after = search.supernet.state_dict()
    assert before
    assert all(torch.equal(entry, after[name]) for name, entry in before.items())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"relaxation": GumbelSoftmax(Temperature(), hard=True), "shrinking": Mask([0.5], [2])},
            "shrinking=Mask is not allowed: with one option per sample",
        ),
        ({"shrinking": Mask([0.05], [2])}, "shrinking.after=.* of 5 epochs, every stage must have one"),
        ({"shrinking": Mask([0.5], [4])}, "shrinking.keep=.* no choice has more than 3 options"),
    ],
    ids=["hard sample", "no epoch", "nothing to take"],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        made(tmp_path, **settings)


@pytest.mark.parametrize(
    ("after", "keep", "rest", "key"),
    [
        ([0.5, 0.4], [3, 2], 0.0, "after"),
        ([0.5], [3, 2], 0.0, "keep"),
        ([0.5], [1], 0.0, "keep"),
        ([0.5], [2], 1, "rest"),
    ],
)
def test_wrong_settings_are_refused(after: list[float], keep: list[int], rest: float, key: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{key}="):
        Mask(after, keep, rest)
