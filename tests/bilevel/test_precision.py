"""The precision that makes a GPU fast, as far as a CPU can try it."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.problem import BilevelProblem
from nas.signature import Signature
from nas.spaces.nasbench201.space import NasBench201
from nas.training.settings import TrainingSettings
from tests.problems import batch_for, entries, problem_over, seeded_supernet

BFLOAT16 = TrainingSettings(16, 0.9, 5.0, "cosine", precision="bfloat16")


def one_step(problem: BilevelProblem, make_batch: Callable[..., object]) -> list[Tensor]:
    alphas = problem.supernet.architecture_parameters()
    training, validation = make_batch(1, dtype=torch.float32), make_batch(2, dtype=torch.float32)
    report = FirstOrder().gradients(problem, training, validation, alphas)  # type: ignore[arg-type]
    step = problem.step(training)  # type: ignore[arg-type]
    return [report.validation_loss, report.validation_logits, *report.gradients, step.loss, step.logits]


def test_bfloat16_is_near_float32_and_leaves_alpha_and_losses_there(make_problem, make_batch) -> None:
    exact = one_step(make_problem(dtype=torch.float32, learned=()), make_batch)
    problem = make_problem(dtype=torch.float32, learned=())
    problem.functional.precision = partial(BFLOAT16.autocast, torch.device("cpu"))
    rounded = one_step(problem, make_batch)
    assert all(one.dtype == torch.float32 for one in rounded)
    assert any(not torch.equal(one, other) for one, other in zip(rounded, exact, strict=True))
    for one, other in zip(rounded, exact, strict=True):
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("hypergradient", [FirstOrder(), Exact()], ids=["first order", "exact"])
def test_bfloat16_in_fast_cells(hypergradient) -> None:
    space = NasBench201(4, 1, signature=Signature((3, 8, 8), 5))
    supernet, _ = seeded_supernet(space, dtype=torch.float32)
    precision = partial(BFLOAT16.autocast, torch.device("cpu"))
    problem = problem_over(supernet, entries(()), 5.0, precision=precision)
    batches = [batch_for(seed, torch.float32, shape=(3, 8, 8), classes=5, size=4) for seed in (1, 2)]
    report = hypergradient.gradients(problem, *batches, supernet.architecture_parameters())
    step = problem.step(batches[0])
    (gradient,) = report.gradients
    for one in (report.validation_loss, gradient, step.loss, step.logits):
        assert one.dtype == torch.float32
        assert bool(torch.isfinite(one).all())
