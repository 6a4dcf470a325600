"""Joint learning on DARTS and NAS-Bench-201 cells: exact hypergradients of one step, and a search that moves them all.

The cells have ReLU and max pooling, whose kinks make finite differences meaningless where one is crossed, and where one
lies depends on the last bit of the machine's arithmetic. Here both are replaced by their smooth counterparts, in the
plain implementation: that the fast one has the same derivatives is tested beside its spaces.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.upper_level import ArchitectureOptimiser
from nas.data.augmentation import Augmentation
from nas.data.batches import Batch
from nas.data.embedded import Digits
from nas.data.splits import SplitSettings
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import (
    Cutout,
    DropoutRate,
    DropPathRate,
    Hyperparameter,
    LabelSmoothing,
    LearningRate,
    Mixing,
    Momentum,
    RateFactor,
    WeightDecay,
)
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.stochastic import set_noise_generator
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.search.gradient_search import GradientSearch
from nas.search.guard import GuardSettings
from nas.search.parts import SearchParts, SearchSettings
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.training.settings import TrainingSettings
from nas.training.sgd import grouped

INPUT_SHAPE, CLASSES, BATCH_SIZE = (1, 8, 8), 10, 6
LEARNED = (
    "learning_rate",
    "rate_factor_convolution",
    "rate_factor_dense",
    "rate_factor_normalisation",
    "weight_decay",
    "momentum",
    "dropout",
    "drop_path",
    "label_smoothing",
    "cutout",
    "mixing",
)
STEP = 2e-3  # of the raw hyperparameters, and along a direction of all alphas
RELATIVE, ROUNDING = 1e-7, 1e-11
CLIP = 0.5  # below the norm of the training gradient

SPACES: dict[str, Callable[[], SearchSpace]] = {
    "darts": lambda: Darts(
        channels=2,
        cells=3,
        steps=2,
        multiplier=2,
        stem_multiplier=1,
        implementation="plain",
        input_shape=INPUT_SHAPE,
        classes=CLASSES,
    ),
    "nasbench201": lambda: NasBench201(
        channels=2, cells_per_stage=1, implementation="plain", input_shape=INPUT_SHAPE, classes=CLASSES
    ),
}


def hyperparameters() -> HyperparameterSet:
    entries: dict[str, Hyperparameter] = {
        "learning_rate": LearningRate(0.05, 1e-4, 1.0, "log", True, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(3e-3, 1e-5, 1e-1, "log", True, AdamUpdate(0.1)),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", True, AdamUpdate(0.1)),
        "drop_path": DropPathRate(0.2, 0.0, 0.6, "logit", True, AdamUpdate(0.1)),
        "momentum": Momentum(0.8, 0.0, 0.99, "logit", True, AdamUpdate(0.03)),
        "label_smoothing": LabelSmoothing(0.1, 0.0, 0.4, "linear", True, AdamUpdate(0.005)),
        "cutout": Cutout(0.4, 0.0, 0.9, "logit", True, AdamUpdate(0.1)),
        "mixing": Mixing(0.3, 0.0, 1.0, "linear", True, AdamUpdate(0.02)),
    }
    for group, factor in {"convolution": 0.7, "dense": 2.0, "normalisation": 1.5}.items():
        entries[f"rate_factor_{group}"] = RateFactor(factor, 0.1, 10.0, "log", True, CosineNormalised(0.3))
    return HyperparameterSet(entries)


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH_SIZE, *INPUT_SHAPE, generator=generator, dtype=torch.float64)
    return Batch(images, torch.randint(CLASSES, (BATCH_SIZE,), generator=generator))


TRAINING, VALIDATION = batch(10), batch(11)


def smooth_maximum(
    x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, *_: object, **__: object
) -> Tensor:
    return F.avg_pool2d(x.exp(), kernel_size, stride, padding).log()


@pytest.fixture(params=SPACES)
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BilevelProblem:
    """In float64, without kinks, after two steps, so that the momentum buffers are filled."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    monkeypatch.setattr(F, "max_pool2d", smooth_maximum)
    torch.manual_seed(0)
    supernet = SPACES[request.param]().supernet(Softmax(Temperature(1.0, 1.0))).double()
    for alpha in supernet.architecture_parameters():
        nn.init.normal_(alpha, std=0.5)
    noise = torch.Generator().manual_seed(1)
    set_noise_generator(supernet, noise)
    optimiser = torch.optim.SGD(grouped(supernet.weight_parameters()), lr=0.0)
    augmentation = torch.Generator().manual_seed(3)
    problem = BilevelProblem(supernet.train(), optimiser, hyperparameters(), CLIP, (noise,), augmentation)
    problem.schedule_factor = 0.7
    for seed in (12, 13):
        problem.step(batch(seed))
    return problem


class RealStep:
    """The validation loss after a real weight step with the same noise, from the same state each time."""

    def __init__(self, problem: BilevelProblem) -> None:
        self.problem = problem
        self.state = {name: entry.clone() for name, entry in problem.supernet.state_dict().items()}
        self.buffers = {
            weight: problem.optimiser.state[weight]["momentum_buffer"].clone() for weight in self._weights()
        }
        self.noise = problem.noise_state()

    def _weights(self) -> list[nn.Parameter]:
        return self.problem.supernet.weight_parameters()

    @torch.no_grad()
    def slope(self, parameters: list[nn.Parameter], direction: list[Tensor], step: float) -> float:
        """The central difference along ``direction``; everything is as it was before."""
        values = [parameter.clone() for parameter in parameters]
        losses = []
        for sign in (1, -1):
            for parameter, value, way in zip(parameters, values, direction, strict=True):
                parameter.copy_(value + sign * step * way)
            with torch.enable_grad():
                step_taken = self.problem.step(TRAINING)
            assert step_taken.norm > CLIP
            loss, _ = self.problem.validation_loss(self.problem.weights(), VALIDATION)
            losses.append(float(loss))
            self._back()
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
        return (losses[0] - losses[1]) / (2 * step)

    def _back(self) -> None:
        self.problem.supernet.load_state_dict(self.state)
        for weight in self._weights():
            self.problem.optimiser.state[weight]["momentum_buffer"].copy_(self.buffers[weight])
        self.problem.repeat_noise(self.noise)


def exact_gradients(problem: BilevelProblem, targets: list[nn.Parameter]) -> list[Tensor]:
    noise = problem.noise_state()
    report = Exact().gradients(problem, TRAINING, VALIDATION, targets)
    problem.repeat_noise(noise)
    return list(report.gradients)


def assert_slope(
    problem: BilevelProblem, parameters: list[nn.Parameter], direction: list[Tensor], wide: float = STEP
) -> None:
    gradients = exact_gradients(problem, parameters)
    expected = sum(float((gradient * way).sum()) for gradient, way in zip(gradients, direction, strict=True))
    real = RealStep(problem)
    slope, shorter = (real.slope(parameters, direction, step) for step in (wide, wide / 2))
    extrapolated = (4 * shorter - slope) / 3  # Richardson: without the error of second order
    assert expected == pytest.approx(extrapolated, rel=RELATIVE, abs=ROUNDING)
    assert abs(expected) > 1e3 * ROUNDING


@pytest.mark.parametrize("name", LEARNED)
def test_a_hyperparameter_gets_the_exact_gradient_of_the_whole_step(problem: BilevelProblem, name: str) -> None:
    raw = problem.hyperparameters.raw[name]
    # Cutout's square has edges, which no pixel's border may cross between the two ends of a difference.
    assert_slope(problem, [raw], [torch.ones_like(raw)], wide=2e-4 if name == "cutout" else STEP)


def test_alpha_gets_the_exact_gradient_of_the_whole_step(problem: BilevelProblem) -> None:
    alphas = problem.supernet.architecture_parameters()
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(alpha.shape, generator=generator, dtype=torch.float64) for alpha in alphas]
    assert_slope(problem, alphas, direction)


def test_what_is_asked_for_beside_it_does_not_change_a_gradient(problem: BilevelProblem) -> None:
    raw = dict(problem.hyperparameters.named_raw())
    alphas = problem.supernet.architecture_parameters()
    together = dict(zip(raw, exact_gradients(problem, [*raw.values(), *alphas]), strict=False))
    update_only = (
        "learning_rate",
        "rate_factor_dense",
        "weight_decay",
        "momentum",
    )  # in closed form, without a second backward pass
    alone = dict(zip(update_only, exact_gradients(problem, [raw[name] for name in update_only]), strict=True))
    for name in update_only:
        assert float(alone[name]) == pytest.approx(float(together[name]), rel=1e-9)


def test_drop_path_acts_on_the_cells_and_dropout_on_the_classifier_alone(problem: BilevelProblem) -> None:
    """With one rate fixed at 0 the other still reaches the loss: neither stands in for the other."""
    weights, noise = problem.weights(), problem.noise_state()

    def loss(**rates: float) -> float:
        problem.repeat_noise(noise)
        values = {**problem.hyperparameters.numbers(), "dropout": 0.0, "drop_path": 0.0, **rates}
        return float(problem.training_loss(weights, TRAINING, values).detach())

    losses = [loss(), loss(dropout=0.5), loss(drop_path=0.5), loss(dropout=0.5, drop_path=0.5)]
    assert len(set(losses)) == 4


@pytest.mark.parametrize("name", SPACES)
def test_a_short_search_moves_every_hyperparameter_and_alpha(name: str, tmp_path: Path) -> None:
    splits = Digits(SplitSettings(64, 64, 100), Augmentation()).load()
    learned = hyperparameters()
    search = GradientSearch(
        SearchParts(
            space=SPACES[name](),
            splits=splits,
            augmentation=Augmentation(crop_padding=1),
            relaxation=Softmax(Temperature(1.0, 1.0)),
            architecture_gradient=FirstOrder(),
            hyperparameter_gradient=Exact(),
            hyperparameters=learned,
            search=SearchSettings(
                epochs=2,
                warmup_epochs=0,
                hyperparameter_every=2,
                stop="epochs",
                settled_epochs=2,
                settled_ratio=1.5,
                checkpoint_every=100,
                architecture=ArchitectureOptimiser(0.03, (0.5, 0.999), 1e-3),
                guard=GuardSettings(),
            ),
            training=TrainingSettings(16, 0.9, 5.0, "cosine", 0.04),
            tracking=TrackingSettings(tensorboard=False, console="quiet"),
            randomness=Randomness(0),
            folder=RunFolder(tmp_path),
            say=lambda notice: None,
        )
    )
    alphas = {key: alpha.detach().clone() for key, alpha in search.supernet.alpha.items()}
    before = learned.numbers()
    candidate = search.search()
    after = learned.numbers()
    assert set(candidate.hyperparameters) == set(LEARNED)
    for key, entry in learned.entries.items():
        assert math.isfinite(after[key])
        assert abs(after[key] - before[key]) > 1e-3 * before[key]
        assert entry.low < candidate.hyperparameters[key] < entry.high
    for key, alpha in search.supernet.alpha.items():
        assert (alpha - alphas[key]).abs().max() > 0.03
    search.space.network(candidate.architecture)  # it fits the space
