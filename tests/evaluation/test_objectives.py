"""Objectives against their formulas."""

import math
from typing import Any

import pytest

from nas.candidate import Candidate
from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset, ImageDataset
from nas.data.pictures.embedded import Digits
from nas.data.stratified_split import SplitSettings
from nas.errors import InvalidValue
from nas.evaluation.evaluation import Evaluation
from nas.evaluation.multi_task import EveryTask, MultiTask, TaskWeight
from nas.evaluation.network_cost import BlockCosts, count_parameters
from nas.evaluation.objective import Dynamic, Fixed
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.tasks import Auto, Regression

METRICS = {"accuracy": 0.9, "macro_f1": 0.8, "macro_recall": 0.7, "loss": 0.25}


@pytest.mark.parametrize(
    ("weights", "score"),
    [
        ({"accuracy": 1.0}, 0.9),
        ({"macro_f1": 1.0}, 0.8),
        ({"macro_recall": 1.0}, 0.7),
        ({"loss": -1.0}, -0.25),
        ({"accuracy": 1.0, "loss": -1.0}, 0.65),
        ({"accuracy": 2.0, "loss": 0.0}, 1.8),
    ],
)
def test_fixed_weights(
    setup: TrainingSetup, candidates: list[Candidate], weights: dict[str, float], score: float
) -> None:
    objective = Fixed(weights, 0.0, {"parameters": 1.0}, space=setup.space)
    assert objective.score(Evaluation(candidates[0], METRICS)) == pytest.approx(score)
    assert not objective.advance(0.5, 1.0)


def test_the_cost_comes_off_in_proportion(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    objective = Fixed({"accuracy": 1.0}, 0.2, {"parameters": 1.0}, space=setup.space)
    uniform = {
        name: weight * 0 + 1 / weight.shape[-1]
        for name, weight in setup.space.architecture_weights(candidates[0].architecture).items()
    }
    mean = float(setup.space.expected_cost(uniform, BlockCosts("parameters")))
    for candidate in candidates:
        size = count_parameters(setup.space.network(candidate.architecture), setup.space.input_shape)
        assert objective.score(Evaluation(candidate, METRICS)) == pytest.approx(0.9 - 0.2 * size / mean)


def test_what_is_not_finite_or_not_there(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    objective = Fixed({"loss": -1.0}, 0.0, {}, space=setup.space)
    for loss in (math.inf, math.nan):
        assert objective.score(Evaluation(candidates[0], {"loss": loss})) == -math.inf
    with pytest.raises(InvalidValue, match=r"objective\.weights\.loss=-1\.0 .* gives accuracy"):
        objective.score(Evaluation(candidates[0], {"accuracy": 0.5}))
    with pytest.raises(InvalidValue, match="weights"):
        Fixed({"loss": 0.0}, 0.0, {}, space=setup.space)


def dynamic(setup: TrainingSetup, schedule: str, patience: int = 2, step: float = 0.4) -> Dynamic:
    return Dynamic(
        {"accuracy": 1.0}, {"loss": -2.0}, schedule, patience, step, cost_weight=0.0, costs={}, space=setup.space
    )


def test_weights_follow_the_schedule(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    evaluation = Evaluation(candidates[0], METRICS)
    for schedule, at_quarter in (("linear", 0.25), ("cosine", 0.5 * (1 - math.cos(math.pi / 4)))):
        objective = dynamic(setup, schedule)
        assert objective.score(evaluation) == pytest.approx(0.9)
        assert objective.advance(0.25, 0.9)
        assert objective.score(evaluation) == pytest.approx((1 - at_quarter) * 0.9 - at_quarter * 2 * 0.25)
        assert objective.advance(1.0, 0.9)
        assert objective.score(evaluation) == pytest.approx(-0.5)
        assert not objective.advance(1.0, 0.9)


def test_weights_react_to_stagnation(setup: TrainingSetup) -> None:
    objective = dynamic(setup, "stagnation")
    best = [0.5, 0.6, 0.6, 0.6, 0.55, 0.55, 0.55, 0.1, 0.1, 0.1, 0.1]
    moves = [objective.advance(0.0, one) for one in best]
    # 0.6 is first seen at 1, two rounds without anything better end at 3; then the scores are other numbers.
    assert [index for index, moved in enumerate(moves) if moved] == [3, 6, 9]
    assert objective.position == 1.0
    other = dynamic(setup, "stagnation")
    other.load_state_dict(objective.state_dict())
    assert other.weights == objective.weights == {"loss": -2.0}


def test_tasks_are_normalised_and_weighted(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    tasks = {"a": TaskWeight(1.0, "accuracy", 0.1, 1.0), "b": TaskWeight(3.0, "loss", 2.0, 0.0)}
    objective = MultiTask(tasks, 0.0, {}, space=setup.space)
    metrics = {"a/accuracy": 0.55, "b/loss": 0.5, "a/loss": 9.0}
    assert objective.score(Evaluation(candidates[0], metrics)) == pytest.approx((0.5 + 3 * 0.75) / 4)
    with pytest.raises(InvalidValue, match="evaluation=multi_task"):
        objective.score(Evaluation(candidates[0], METRICS))
    with pytest.raises(InvalidValue, match="gradient search"):
        objective.expected_penalty({})
    assert objective.score(Evaluation(candidates[0], {**metrics, "b/loss": math.inf})) == -math.inf


def test_one_architecture_may_have_tasks_of_several_kinds(setup: TrainingSetup, candidates: list[Candidate]) -> None:
    class Brightness:
        name, augmentation = "brightness", Augmentation(0, False, 0)

        def load(self) -> DataSplits:
            parts = []
            for images in (setup.train, setup.validation, setup.validation):
                assert isinstance(images, ImageDataset)
                parts.append(ArrayDataset(images.images, images.images.mean((1, 2, 3))))
            return DataSplits(self.name, *parts, setup.mean, setup.std)

    def task(source: Any, chosen: Any) -> Any:
        return lambda setup, objective, space: TrainedFromScratch(
            2, data=source, task=chosen, setup=setup, objective=objective
        )

    digits = Digits(SplitSettings(100, 48, 100), Augmentation(0, False, 0))
    tasks = {"digits": task(digits, Auto()), "light": task(Brightness(), Regression())}
    weights = {"digits": TaskWeight(1.0, "accuracy", 0.1, 1.0), "light": TaskWeight(3.0, "r2", 0.0, 1.0)}
    objective = MultiTask(weights, 0.0, {"parameters": 1.0}, space=setup.space)
    evaluator = EveryTask(tasks, setup=setup, objective=objective, space=setup.space)
    (found,) = evaluator.evaluate(candidates[:1])
    assert {"digits/accuracy", "light/r2", "light/rmse"} <= found.metrics.keys()
    expected = ((found.metrics["digits/accuracy"] - 0.1) / 0.9 + 3 * found.metrics["light/r2"]) / 4
    assert objective.score(found) == pytest.approx(expected)
