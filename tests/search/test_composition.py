"""Searches with the choices of the one-shot methods: they end, go on after a kill to the same bytes, and are sound."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.bilevel.exponentiated_gradient import ExponentiatedGradient
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.perturbation import AdversarialPerturbation, RandomPerturbation
from nas.bilevel.regulariser import BetaDecay, DirichletKL, Entropy, ZeroOne
from nas.bilevel.single_level import SingleLevel
from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue
from nas.evaluation.budget import Budget
from nas.evaluation.objective import Fixed
from nas.relaxations.dirichlet import Dirichlet
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.simplex import Simplex
from nas.relaxations.softmax import Softmax
from nas.run.randomness import Randomness
from nas.search.gradient_search import GradientSearch
from nas.signature import Signature
from nas.spaces.transformer.space import Transformer
from nas.training.settings import TrainingSettings
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import CELL_SPACES, digits, search_parts

COOLING = Temperature(10.0, 0.1, "linear")
CELLS = CELL_SPACES["nasbench201"](implementation="fast", signature=Signature((1, 8, 8), 10))
COMPILED = TrainingSettings(16, 0.9, 5.0, "cosine", compile=True)
ADAMW = TrainingSettings(16, 0.9, 5.0, "cosine", optimiser="adamw")
PATCHES = Transformer(8, 2, 1, heads=(1, 2), patch=4, signature=Signature((1, 8, 8), 10))
COSTLY = Fixed({"accuracy": 1.0}, 0.1, {"parameters": 1.0}, space=CELLS)


def sampled() -> GumbelSoftmax:
    return GumbelSoftmax(COOLING, True, "official", True)


COMPOSITIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "beta decay, random": lambda: {"regulariser": BetaDecay(), "perturbation": RandomPerturbation()},
    "adversarial": lambda: {"perturbation": AdversarialPerturbation(steps=2)},
    "adversarial, exact": lambda: {
        "perturbation": AdversarialPerturbation(steps=2),
        "architecture_gradient": Exact(),
    },
    "zero one": lambda: {"regulariser": ZeroOne(), "relaxation": Sigmoid(), "space": CELLS},
    "sampled": lambda: {"relaxation": sampled(), "space": CELLS},
    "sampled, exact": lambda: {"relaxation": sampled(), "space": CELLS, "architecture_gradient": Exact()},
    "single level": lambda: {"relaxation": GumbelSoftmax(COOLING), "architecture_gradient": SingleLevel()},
    "adamw": lambda: {"training": ADAMW, "architecture_gradient": Exact()},
    "transformer, adamw": lambda: {"training": ADAMW, "architecture_gradient": Exact(), "space": PATCHES},
    "dirichlet": lambda: {"regulariser": DirichletKL(), "relaxation": Dirichlet()},
    "simplex": lambda: {
        "regulariser": Entropy(),
        "relaxation": Simplex(),
        "search": {"architecture": ExponentiatedGradient()},
    },
}
OFTEN = ("transformer, adamw", "beta decay, random", "adversarial, exact", "simplex", "sampled, exact")


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    return digits()


def made(name: str, splits: DataSplits, folder: Path, **settings: Any) -> GradientSearch:
    return GradientSearch(search_parts(folder, splits=splits, **COMPOSITIONS[name]() | settings))


@pytest.mark.parametrize(
    "name",
    [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in COMPOSITIONS],
)
def test_a_killed_search_goes_on_as_if_nothing_had_happened(name, splits, tmp_path):
    """Two epochs of four steps with a checkpoint at every third, beside a learned rate and a learned dropout."""
    whole = made(name, splits, tmp_path / "whole")
    begun = {key: alpha.detach().clone() for key, alpha in whole.supernet.alpha.items()}
    expected = whole.search()
    assert all(not torch.equal(begun[key], alpha) for key, alpha in whole.supernet.alpha.items())
    broken = made(name, splits, tmp_path / "killed")
    with killed(broken.problem, "step", lambda *_: broken.step == 5):
        broken.search()
    resumed = made(name, splits, tmp_path / "killed")
    found = resumed.search()
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")
    assert_same_results(found, expected)
    states = [search.supernet.state_dict() for search in (whole, resumed)]
    assert all(torch.equal(entry, states[1][key]) for key, entry in states[0].items())


def test_alpha_stays_on_the_simplex(splits, tmp_path):
    search = made("simplex", splits, tmp_path)
    search.search()
    for alpha in search.supernet.architecture_parameters():
        torch.testing.assert_close(alpha.detach().sum(-1), torch.ones(alpha.shape[:-1]))


def test_every_sample_is_counted(splits, tmp_path):
    """Per step of 16 images: the weight step, alpha's validation pass, h's two, and four passes for either attack."""
    search = made("adversarial", splits, tmp_path)
    found = search.search()
    per_step = 1 + 1 + 2 + 2 * 4
    untrained, measured = 48, 48
    assert found.cost.samples == 8 * 16 * per_step + untrained + measured
    assert search.meter.reserve().samples >= per_step * 16


def test_a_budget_keeps_back_what_an_attack_costs(splits, tmp_path):
    found = made("adversarial", splits, tmp_path, budget=Budget(samples=1200)).search()
    assert 0 < found.step < 8
    assert found.cost.samples <= 1200


@pytest.mark.slow
@pytest.mark.parametrize("space", CELL_SPACES)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_cells_are_searched_with_them(space, name, splits, tmp_path):
    shape = {"signature": splits.signature}
    search = made(name, splits, tmp_path, space=CELL_SPACES[space](implementation="fast", **shape))
    assert search.search().candidate.architecture


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"relaxation": Sigmoid(), "perturbation": RandomPerturbation()}, "relaxation=Sigmoid is not allowed"),
        ({"regulariser": DirichletKL()}, "relaxation=Softmax is not allowed: dirichlet_kl measures"),
        ({"relaxation": Simplex()}, "relaxation=Simplex is not allowed: Adam's steps leave the simplex"),
        ({"search": {"architecture": ExponentiatedGradient()}}, "relaxation=Softmax is not allowed"),
        ({"relaxation": sampled()}, "relaxation.sampled=true is not allowed"),
        ({"relaxation": Sigmoid()}, "relaxation=Sigmoid is not allowed: the mask of layer1.filters"),
        ({"relaxation": Sigmoid(), "space": CELLS, "objective": COSTLY}, "objective.costs=parameters is not allowed"),
        (
            {
                "relaxation": sampled(),
                "space": CELLS,
                "training": TrainingSettings(16, 0.9, 5.0, "cosine", compile=True),
            },
            "training.compile=true is not allowed: a sampled",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(parts, sentence, splits, tmp_path):
    composed = partial(search_parts, tmp_path / "run", splits=splits, architecture_gradient=FirstOrder())
    with pytest.raises(InvalidValue, match=sentence):
        GradientSearch(composed(**{"relaxation": Softmax(Temperature())} | parts))
    assert not (tmp_path / "run").exists()


class Own(Relaxation):
    """A user's own."""

    def __init__(self, weights: Callable[[Tensor], Tensor], probabilities: Callable[[Tensor], Tensor]) -> None:
        self.weights, self.mean = weights, probabilities

    def __call__(self, alpha: Tensor) -> Tensor:
        return self.weights(alpha)

    def probabilities(self, alpha: Tensor) -> Tensor:
        return self.mean(alpha)


def soft(alpha: Tensor) -> Tensor:
    return alpha.softmax(-1)


@pytest.mark.parametrize(
    ("weights", "probabilities", "sentence"),
    [
        (
            lambda alpha: soft(alpha).sum(-1),
            soft,
            r"a call gives weights of shape \(\) for an alpha of shape \(2,\)",
        ),
        (soft, lambda alpha: 2 * soft(alpha), r"probabilities gives \[\[1.0, 1.0\]\] .* each row must add up to 1"),
        (
            lambda alpha: soft(alpha + torch.zeros(7)),
            soft,
            r"its call with an alpha of shape \(2,\) raises RuntimeError",
        ),
        (lambda alpha: soft(alpha / 0), soft, "a call gives .* not finite"),
        (lambda alpha: soft(alpha.detach()), soft, "which would never move: set hypergradient=none if alpha is to"),
    ],
    ids=["shape", "sum", "other options", "not finite", "no gradient"],
)
def test_weights_of_a_relaxation_of_ones_own_are_looked_at(weights, probabilities, sentence, splits, tmp_path):
    composed = partial(search_parts, tmp_path / "run", splits=splits, relaxation=Own(weights, probabilities))
    with pytest.raises(InvalidValue, match=f"relaxation=Own is not allowed: .*{sentence}"):
        GradientSearch(composed(architecture_gradient=FirstOrder()))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_relaxation_of_ones_own_may_have_tensors_where_the_run_computes(splits, tmp_path):
    shift = torch.zeros((), device="cuda")
    shifted = Own(lambda alpha: soft(alpha + shift.expand(1)), lambda alpha: soft(alpha + shift.expand(1)))
    GradientSearch(search_parts(tmp_path, splits=splits, relaxation=shifted, randomness=Randomness(0, "cuda")))


def test_a_relaxation_without_a_gradient_goes_where_nothing_moves_alpha(splits, tmp_path):
    at_rest = Own(lambda alpha: soft(alpha.detach()), soft)
    GradientSearch(search_parts(tmp_path, splits=splits, relaxation=at_rest, architecture_gradient=None))
