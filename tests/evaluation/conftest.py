"""A tiny setup on the digits, the same at every call."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nas.candidate import Candidate, Categorical, Hyperparameters, Range
from nas.data.augmentation import Augmentation
from nas.data.pictures.embedded import Digits
from nas.data.stratified_split import SplitSettings
from nas.evaluation.objective import Fixed
from nas.evaluation.training_setup import TrainingSetup
from nas.evaluation.truth import RESULTS, Truth, TruthRow
from nas.hyperparameters.kinds import DropoutRate
from nas.spaces.macro.space import Macro
from nas.spaces.space import SearchSpace
from nas.tasks import Classification
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
        space=Macro(LAYERS, ["relu"], signature=splits.signature, ranges=RANGES),
        task=Classification().fitted(splits)[0],
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


def samples_of(setup: TrainingSetup, count: int, seed: int = 0) -> list[Candidate]:
    generator = torch.Generator().manual_seed(seed)
    return [setup.space.sample(generator) for _ in range(count)]


EFFECTS = (0.0, 0.6, 0.25)  # of a choice's options on the log loss, by their place; a later choice's count less


def made_up_log_loss(space: SearchSpace, candidate: Candidate) -> float:
    """A closed form: it is best at two thirds of the learning rate's range, with the first option of every choice."""
    places = enumerate(space.choices, start=1)
    options = math.fsum(EFFECTS[one.options.index(candidate.architecture[one.name])] / place for place, one in places)
    rate = space.ranges["learning_rate"].to_unit(candidate.hyperparameters["learning_rate"])
    return -1.0 + options + 3 * (rate - 2 / 3) ** 2


def made_up_truth(
    space: SearchSpace, configuration: dict[str, Any], rows: int = 80, repeats: int = 2, noise: float = 0.03
) -> Truth:
    """Every fourth candidate is trained ``repeats`` times more; ``noise`` is the log loss's standard deviation.

    Losses on the curve fall to the last one, the test loss is a tenth above it, and accuracies are ``exp(-loss)``.
    """
    generator, draw = torch.Generator().manual_seed(3), np.random.default_rng(3)
    epochs, found = configuration["final"]["epochs"], []
    for number in range(rows):
        candidate = space.sample(generator)
        mean = made_up_log_loss(space, candidate)
        for repeat in range(1 + (repeats if number % 4 == 0 else 0)):
            loss = math.exp(mean + noise * draw.standard_normal())
            losses = tuple(loss * (1 + 0.2 * (epochs - epoch)) for epoch in range(1, epochs + 1))
            results = dict.fromkeys(RESULTS, 1.0) | {
                "validation_loss": loss,
                "validation_accuracy": math.exp(-loss),
                "test_loss": 1.1 * loss,
                "test_accuracy": math.exp(-1.1 * loss),
            }
            accuracies = tuple(math.exp(-one) for one in losses)
            found.append(TruthRow(number, repeat, candidate, 7 + number, results, losses, accuracies))
    return Truth(configuration, space, found)


@pytest.fixture(scope="session")
def log_loss() -> Callable[[SearchSpace, Candidate], float]:
    return made_up_log_loss


@pytest.fixture(scope="session")
def make_truth() -> Callable[..., Truth]:
    return made_up_truth


@pytest.fixture(scope="session")
def truth(setup: TrainingSetup) -> Truth:
    configuration = {"final": {"epochs": 4}, "hyperparameters": {"weight_decay": {"initial": 3e-4}}}
    return made_up_truth(setup.space, configuration)


@pytest.fixture(scope="session")
def make_setup() -> Callable[..., TrainingSetup]:
    return tiny_task


@pytest.fixture(scope="session")
def setup() -> TrainingSetup:
    return tiny_task()


@pytest.fixture(scope="session")
def candidates(setup: TrainingSetup) -> list[Candidate]:
    return samples_of(setup, 5)


@pytest.fixture
def accuracy(setup: TrainingSetup) -> Fixed:
    return Fixed({"accuracy": 1.0}, 0.0, {}, space=setup.space)


@pytest.fixture(scope="session")
def without_seconds() -> Callable[[Any], Any]:
    """Evaluations as values that two runs share."""

    def plain(evaluation: Any) -> Any:
        content = evaluation.to_json()
        content["cost"].pop("seconds")
        return content

    return plain
