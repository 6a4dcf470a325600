"""Every hyperparameter on the macro space: the exact hypergradients against differences of a step done for real."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from nas.bilevel.exact import Exact
from nas.bilevel.last_step import LastStep
from nas.bilevel.problem import BilevelProblem
from nas.hyperparameters.collection import HyperparameterSet
from tests.problems import every_entry, problem_for

TOLERANCE = 1e-6


ENTRIES = every_entry(layers={"layer1": 0.2, "layer4": 0.4})


@pytest.fixture
def problem(make_batch: Callable) -> BilevelProblem:
    augmentation = torch.Generator().manual_seed(5)
    problem = problem_for(relaxation="gumbel", clip=0.1, hyperparameters=ENTRIES, augmentation=augmentation)
    problem.schedule_factor = 0.7
    problem.step(make_batch(1))  # fills the momentum buffers
    return problem


@contextmanager
def undone(problem: BilevelProblem) -> Iterator[None]:
    """What is done to the weights inside is taken back, and the noise drawn again."""
    state = {name: entry.clone() for name, entry in problem.supernet.state_dict().items()}
    buffers = {weight: entry["momentum_buffer"].clone() for weight, entry in problem.optimiser.state.items()}
    noise = problem.noise_state()
    yield
    problem.supernet.load_state_dict(state)
    for weight, buffer in buffers.items():
        problem.optimiser.state[weight]["momentum_buffer"].copy_(buffer)
    problem.repeat_noise(noise)


def loss_after_a_step(problem: BilevelProblem, make_batch: Callable) -> float:
    with undone(problem):
        problem.step(make_batch(10))
        loss, _ = problem.validation_loss(problem.weights(), make_batch(11))
    return float(loss.detach())


@pytest.mark.parametrize("hypergradient", [Exact(), LastStep()], ids=["exact", "last step"])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_hyperparameter_gets_the_gradient_of_the_whole_step(name, hypergradient, problem, make_batch):
    problem.hyperparameters.require_effect_on(problem.supernet)
    raw = problem.hyperparameters.raw[name]
    with undone(problem):
        if hypergradient.looks_back:
            problem.step(make_batch(10), keep_graph=True, second_order=bool(problem.act_through_loss([raw])))
        (gradient,) = hypergradient.gradients(problem, make_batch(10), make_batch(11), [raw]).gradients
    value, slopes = raw.detach().clone(), []
    wide = 1e-4 if name == "cutout" else 1e-3  # the borders of a cut-out square meet those of pixels
    for step in (wide, wide / 2):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                raw.copy_(value + sign * step)
            ends.append(loss_after_a_step(problem, make_batch))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    expected = (4 * slopes[1] - slopes[0]) / 3
    assert float(gradient) == pytest.approx(expected, rel=TOLERANCE)
    assert abs(expected) > 1e-7


def test_rate_factors_need_groups(make_supernet):
    supernet, _ = make_supernet("softmax", torch.float64, True)
    with pytest.raises(ValueError, match="grouped"):
        BilevelProblem(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), HyperparameterSet(ENTRIES))
