"""The search whose hyperparameters go on learning on the network that it found."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.upper_level import ArchitectureOptimiser
from nas.data.augmentation import Augmentation
from nas.data.embedded import Digits
from nas.data.splits import SplitSettings
from nas.errors import InvalidValue
from nas.evaluation.budget import Budget
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, DropPathRate, LayerDropoutRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.stochastic import set_noise_generator
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.search.gradient_search import GradientSearch
from nas.search.guard import GuardSettings, SearchDiverged
from nas.search.parts import SearchParts, SearchSettings
from nas.search.refined_search import RefinedSearch
from nas.search.stand_alone import Discretised, StandAlone
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.training.settings import TrainingSettings

SHAPE = {"input_shape": (1, 8, 8), "classes": 10}
LAYERS = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"type": "conv", "filters": 4, "kernel_size": 3, "optional": True},
    {"type": "dense", "units": [8, 16]},
]
SPACES: dict[str, SearchSpace] = {
    "macro": Macro(LAYERS, ["relu"], **SHAPE),
    "darts": Darts(channels=2, cells=3, steps=2, multiplier=2, final_channels=4, final_cells=3, **SHAPE),
    "nasbench201": NasBench201(channels=2, cells_per_stage=1, **SHAPE),
}


def entries(space: str) -> HyperparameterSet:
    adam = AdamUpdate(0.1)
    common = {
        "learning_rate": LearningRate(0.05, 1e-5, 0.5, "log", True, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", True, adam),
    }
    if space == "macro":
        own = LayerDropoutRate(0.2, 0.0, 0.9, "logit", True, AdamUpdate(0.1), layer="layer1")
        gone = LayerDropoutRate(0.2, 0.0, 0.9, "logit", True, AdamUpdate(0.1), layer="layer2")
        return HyperparameterSet({**common, "dropout_layer1": own, "dropout_layer2": gone})
    return HyperparameterSet({**common, "drop_path": DropPathRate(0.2, 0.0, 0.6, "logit", True, AdamUpdate(0.1))})


def made(folder: Path, space: str = "macro", refinement_epochs: int = 2, **settings: Any) -> RefinedSearch:
    randomness = Randomness(0)
    rehearsal = settings.pop("rehearsal", None)
    defaults: dict[str, Any] = {
        "hyperparameters": entries(space),
        "training": TrainingSettings(16, 0.9, 5.0, "cosine"),
        "say": lambda notice: None,
    }
    parts = SearchParts(
        space=SPACES[space],
        splits=Digits(SplitSettings(64, 48, 100), Augmentation()).load(),
        augmentation=Augmentation(),
        relaxation=Softmax(Temperature(1.0, 1.0)),
        architecture_gradient=FirstOrder(),
        hyperparameter_gradient=Exact(),
        search=SearchSettings(
            2, 0, 1, "epochs", 2, 1.5, 3, ArchitectureOptimiser(0.1, (0.5, 0.999), 1e-3), GuardSettings()
        ),
        tracking=TrackingSettings(tensorboard=False, console="quiet"),
        randomness=randomness,
        folder=RunFolder(folder),
        **{**defaults, **settings},
    )
    return RefinedSearch(parts, refinement_epochs, rehearsal)


@pytest.mark.parametrize("name", SPACES)
def test_the_network_stands_in_for_a_supernet(name: str) -> None:
    space = SPACES[name]
    architecture = space.sample(torch.Generator().manual_seed(3)).architecture
    supernet = Discretised(space, architecture).supernet(Softmax(Temperature(1.0, 1.0)))
    plain = space.network(architecture)
    plain.load_state_dict(supernet.inherited_state(architecture))
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(supernet.eval()(images), plain.eval()(images))
    assert supernet.train()(images).shape == (4, 10)  # the auxiliary head's logits have no part
    assert supernet.discretise() == architecture
    assert supernet.architecture_parameters() == []


@pytest.mark.parametrize("name", SPACES)
def test_both_searches_move_the_hyperparameters(name: str, tmp_path: Path) -> None:
    search = made(tmp_path, name)
    candidate = search.search()
    found = search.first.candidate()
    assert search.second is not None
    assert candidate.architecture == found.architecture
    assert candidate.hyperparameters["learning_rate"] != found.hyperparameters["learning_rate"]
    assert candidate.hyperparameters["dropout"] != found.hyperparameters["dropout"]
    assert search.second.hyperparameters.entries["learning_rate"].initial == pytest.approx(
        found.hyperparameters["learning_rate"]
    )
    assert search.spent.samples == search.first.spent.samples + search.second.spent.samples
    assert (tmp_path / "refinement" / "metrics.csv").is_file()
    assert search.recorded().keys() == search.second.recorded().keys()
    assert search.settled().keys() == {"architecture", *search.first.hyperparameters.learned()}
    assert "refinement" in search.remarks()


def test_what_the_network_has_left_out_is_learned_no_more(tmp_path: Path) -> None:
    search = made(tmp_path)
    with torch.no_grad():
        search.first.supernet.alpha["layer2-type"].copy_(torch.tensor([-9.0, 9.0]))  # conv, skip
    candidate = search.search()
    assert candidate.architecture["layer2.type"] == "skip"
    assert "dropout_layer2" not in search.second.hyperparameters.learned()
    assert "dropout_layer1" in search.second.hyperparameters.learned()
    before = search.first.candidate().hyperparameters["dropout_layer2"]
    assert candidate.hyperparameters["dropout_layer2"] == pytest.approx(before)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 5])
def test_a_refinement_that_was_killed_goes_on_as_if_nothing_had_happened(step, tmp_path, monkeypatch) -> None:
    expected = made(tmp_path / "whole").search()
    original = GradientSearch._one_step

    def dying(self: GradientSearch, *arguments: object) -> None:
        if isinstance(self.supernet, StandAlone) and self.step == step:
            raise Killed
        original(self, *arguments)

    monkeypatch.setattr(GradientSearch, "_one_step", dying)
    with pytest.raises(Killed):
        made(tmp_path / "killed").search()
    monkeypatch.undo()
    assert made(tmp_path / "killed").search() == expected
    for name in ("metrics.csv", "refinement/metrics.csv", "refinement/trajectory.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_without_anything_left_of_the_budget_the_search_stands(tmp_path: Path) -> None:
    plenty = made(tmp_path / "plenty")
    plenty.search()
    search = made(tmp_path / "scarce", budget=Budget(samples=plenty.first.spent.samples))
    candidate = search.search()
    assert search.second is None or search.spent.samples <= plenty.first.spent.samples
    assert candidate.architecture == search.first.candidate().architecture


def test_a_refinement_that_fails_leaves_the_searchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    search = made(tmp_path, say=said.append)
    original = GradientSearch.search

    def failing(self: GradientSearch):
        if isinstance(self.supernet, StandAlone):
            raise SearchDiverged("step 3: dead")
        return original(self)

    monkeypatch.setattr(GradientSearch, "search", failing)
    assert search.search() == search.first.candidate()
    assert any("given up" in one for one in said)


def test_without_learned_hyperparameters_it_is_refused(tmp_path: Path) -> None:
    fixed = HyperparameterSet(
        {
            "learning_rate": LearningRate(0.05, 1e-5, 0.5, "log", False),
            "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
        }
    )
    with pytest.raises(InvalidValue, match="no hyperparameter is learned"):
        made(tmp_path, hyperparameters=fixed)
    with pytest.raises(InvalidValue, match="refinement_epochs=0"):
        made(tmp_path, refinement_epochs=0)


def test_noise_of_the_network_comes_from_the_branch(tmp_path: Path) -> None:
    one = Randomness(0).branch("refinement")
    other = Randomness(0).branch("refinement")
    assert one.seed == other.seed != Randomness(0).branch("another").seed
    supernet = StandAlone(
        SPACES["macro"], SPACES["macro"].sample(torch.Generator()).architecture, Softmax(Temperature(1, 1))
    )
    set_noise_generator(supernet, one.on_device("dropout"))
    assert supernet.network.dropout.generator is one.on_device("dropout")
