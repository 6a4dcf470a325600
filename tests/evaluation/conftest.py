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
from nas.evaluation.training_setup import TrainingSetup
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


def tiny_task(seed: int = 0, train: int = TRAINING_IMAGES) -> TrainingSetup:
    source = Digits(SplitSettings(train, VALIDATION_IMAGES, 100), Augmentation(1, False, 0))
    splits = source.load()
    return TrainingSetup(
        space=Macro(LAYERS, ["relu"], input_shape=splits.input_shape, classes=splits.classes, ranges=RANGES),
        train=splits.train,
        validation=splits.validation,
        mean=splits.mean,
        std=splits.std,
        augmentation=source.augmentation,
        training=TrainingSettings(16, 0.9, 5.0, "cosine"),
        final=FinalSettings(1, "learned", None, 0.0, 0.4, "linear", 100),
        held=Hyperparameters({"learning_rate": 0.05, "weight_decay": 3e-4, "dropout": 0.1, "batch_size": 16}),
        bound={"dropout": DropoutRate(0.1, 0.0, 0.5, "linear", False)},
        seed=seed,
        device=torch.device("cpu"),
    )


def samples_of(task: TrainingSetup, count: int, seed: int = 0) -> list[Candidate]:
    generator = torch.Generator().manual_seed(seed)
    return [task.space.sample(generator) for _ in range(count)]


@pytest.fixture(scope="session")
def make_task() -> Callable[..., TrainingSetup]:
    return tiny_task


@pytest.fixture(scope="session")
def task() -> TrainingSetup:
    return tiny_task()


@pytest.fixture(scope="session")
def candidates(task: TrainingSetup) -> list[Candidate]:
    return samples_of(task, 5)


@pytest.fixture
def accuracy(task: TrainingSetup) -> Fixed:
    return Fixed({"accuracy": 1.0}, 0.0, {}, space=task.space)


@pytest.fixture(scope="session")
def without_seconds() -> Callable[[Any], Any]:
    """Evaluations as values that two runs share."""

    def plain(evaluation: Any) -> Any:
        content = evaluation.to_json()
        content["cost"].pop("seconds")
        return content

    return plain
