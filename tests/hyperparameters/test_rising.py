"""Fixed values that go up from 0 over the search, as drop path and cutout of RobustDARTS do."""

import pytest

from nas.errors import InvalidValue
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropPathRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate
from nas.search.gradient_search import GradientSearch
from tests.problems import CELL_SPACES, digits, search_parts


def entries(drop_path: DropPathRate) -> HyperparameterSet:
    return HyperparameterSet(
        {
            "learning_rate": LearningRate(0.05, 1e-5, 0.5, "log", False),
            "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
            "drop_path": drop_path,
        }
    )


def test_a_search_sees_it_rise_and_the_candidate_carries_its_end(tmp_path):
    splits = digits(32, 16)
    shape = {"signature": splits.signature}
    parts = search_parts(
        tmp_path,
        splits=splits,
        space=CELL_SPACES["nasbench201"](implementation="plain", **shape),
        hyperparameters=entries(DropPathRate(0.4, 0.0, 0.9, "logit", False, rises=True)),
        hyperparameter_gradient=None,
    )
    search = GradientSearch(parts)
    rates, original = [], search.problem.step

    def stepping(*arguments):
        rates.append(search.hyperparameters.loss_values()["drop_path"])
        return original(*arguments)

    search.problem.step = stepping
    found = search.search()
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert found.candidate.hyperparameters["drop_path"] == 0.4
    assert search.hyperparameters.values()["learning_rate"] == 0.05


def test_what_is_learned_or_acts_on_the_update_cannot_rise():
    with pytest.raises(InvalidValue, match="rises=true is not allowed: only what acts through the loss"):
        DropPathRate(0.4, 0.0, 0.9, "logit", True, AdamUpdate(0.1), rises=True)
    with pytest.raises(InvalidValue, match="rises=true is not allowed"):
        WeightDecay(3e-4, 1e-6, 1e-2, "log", False, rises=True)
