"""A tiny task on the digits, the same at every call."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nas.candidate import Candidate, Categorical, Hyperparameters, Range
from nas.data.augmentation import Augmentation
from nas.data.embedded import Digits
from nas.data.splits import SplitSettings
from nas.evaluation.objective import Fixed
from nas.evaluation.task import Task
from nas.hyperparameters.kinds import DropoutRate
from nas.spaces.macro.space import Macro
from nas.training.retraining import FinalSettings
from nas.training.settings import TrainingSettings

LAYERS = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"type": "pool", "pool_size": 2, "kind": ["max", "average"]},
    {"type": "dense", "units": [8, 16], "optional": True},
]
RANGES = {
    "learning_rate": Range(1e-3, 0.3, "log"),
    "dropout": Range(0.0, 0.5),
    "batch_size": Categorical(16, (8, 16, 32)),
}
TRAINING_IMAGES, VALIDATION_IMAGES = 100, 48


def tiny_task(seed: int = 0, train: int = TRAINING_IMAGES) -> Task:
    source = Digits(SplitSettings(train, VALIDATION_IMAGES, 100), Augmentation(1, False, 0))
    splits = source.load()
    return Task.of(
        Macro(LAYERS, ["relu"], input_shape=splits.input_shape, classes=splits.classes, ranges=RANGES),
        splits,
        source.augmentation,
        TrainingSettings(16, 0.9, 5.0, "cosine"),
        FinalSettings(1, "learned", None, 0.0, 0.4, "linear", 100),
        Hyperparameters({"learning_rate": 0.05, "weight_decay": 3e-4, "dropout": 0.1, "batch_size": 16}),
        {"dropout": DropoutRate(0.1, 0.0, 0.5, "linear", False)},
        seed,
        torch.device("cpu"),
    )


def samples_of(task: Task, count: int, seed: int = 0) -> list[Candidate]:
    generator = torch.Generator().manual_seed(seed)
    return [task.space.sample(generator) for _ in range(count)]


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    return tiny_task


@pytest.fixture(scope="session")
def task() -> Task:
    return tiny_task()


@pytest.fixture(scope="session")
def candidates(task: Task) -> list[Candidate]:
    return samples_of(task, 5)


@pytest.fixture
def accuracy(task: Task) -> Fixed:
    return Fixed({"accuracy": 1.0}, 0.0, {}, space=task.space)


@pytest.fixture(scope="session")
def without_seconds() -> Callable[[Any], Any]:
    """Evaluations as values that two runs share."""

    def plain(evaluation: Any) -> Any:
        content = evaluation.to_json()
        content["cost"].pop("seconds")
        return content

    return plain
