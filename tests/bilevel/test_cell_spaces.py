"""Joint learning on DARTS and NAS-Bench-201 cells: exact hypergradients of one step, and a search that moves them all.

The cells have ReLU and max pooling, whose kinks make finite differences meaningless where one is crossed, and where one
lies depends on the last bit of the machine's arithmetic. Here both are replaced by their smooth counterparts, in the
plain implementation: that the fast one has the same derivatives is tested beside its spaces.
"""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.bilevel.architecture_optimiser import weighs_edges
from nas.bilevel.exact import Exact
from nas.bilevel.problem import BilevelProblem
from nas.data.augmentation import Augmentation
from nas.hyperparameters.collection import HyperparameterSet
from nas.search.gradient_search import GradientSearch
from nas.signature import Signature
from nas.training.settings import TrainingSettings
from tests.problems import (
    ADAM,
    CELL_SPACES,
    STRUCTURED_SPACES,
    batch_for,
    digits,
    every_entry,
    problem_over,
    search_parts,
    seeded_supernet,
)

INPUT_SHAPE, CLASSES = (1, 8, 8), 10
every_kind = partial(every_entry, weight_decay=3e-3, drop_path=True)
STEP = 2e-3  # of the raw hyperparameters, and along a direction of all alphas
RELATIVE, ROUNDING = 1e-7, 1e-11
CLIP = 0.5  # below the norm of the training gradient

SPACES = {
    name: partial(made, implementation="plain", signature=Signature(INPUT_SHAPE, CLASSES))
    for name, made in {**CELL_SPACES, **STRUCTURED_SPACES}.items()
}
batch = partial(batch_for, shape=INPUT_SHAPE, classes=CLASSES, size=6)
TRAINING, VALIDATION = batch(10), batch(11)


def smooth_maximum(
    x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, *_: object, **__: object
) -> Tensor:
    return F.avg_pool2d(x.exp(), kernel_size, stride, padding).log()


@pytest.fixture(params=CELL_SPACES)
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BilevelProblem:
    """In float64, without kinks, after two steps, so that the momentum buffers are filled."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    monkeypatch.setattr(F, "max_pool2d", smooth_maximum)
    supernet, generators = seeded_supernet(SPACES[request.param]())
    augmentation = torch.Generator().manual_seed(3)
    problem = problem_over(supernet, every_kind(), CLIP, generators, augmentation=augmentation)
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


@pytest.mark.parametrize("name", every_kind())
def test_a_hyperparameter_gets_the_exact_gradient_of_the_whole_step(problem: BilevelProblem, name: str) -> None:
    raw = problem.hyperparameters.raw[name]
    # Cutout's square has edges, which no pixel's border may cross between the two ends of a difference.
    assert_slope(problem, [raw], [torch.ones_like(raw)], wide=2e-4 if name == "cutout" else STEP)


@pytest.mark.parametrize("problem", SPACES, indirect=True)
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
    learned = HyperparameterSet(every_kind())
    search = GradientSearch(
        search_parts(
            tmp_path,
            space=SPACES[name](),
            splits=digits(64, 64),
            augmentation=Augmentation(crop_padding=1),
            hyperparameters=learned,
            search={"hyperparameter_every": 2, "checkpoint_every": 100, "architecture": ADAM},
            training=TrainingSettings(16, 0.9, 5.0, "cosine", 0.04),
        )
    )
    alphas = {key: alpha.detach().clone() for key, alpha in search.supernet.alpha.items()}
    before = learned.numbers()
    candidate = search.search().candidate
    after = learned.numbers()
    assert set(candidate.hyperparameters) == set(learned.entries)
    for key, entry in learned.entries.items():
        assert math.isfinite(after[key])
        assert abs(after[key] - before[key]) > 1e-3 * before[key]
        assert entry.low < candidate.hyperparameters[key] < entry.high
    for key, alpha in search.supernet.alpha.items():
        assert (alpha - alphas[key]).abs().max() > (1e-3 if weighs_edges(key) else 0.03)
    SPACES[name]().network(candidate.architecture)  # it fits the space
