"""Hypergradients through AdamW's step, against automatic differentiation of that step written down once more."""

from pathlib import Path

import pytest
import torch

from nas.bilevel import (
    ByKind,
    ConjugateGradient,
    Exact,
    FiniteDifference,
    ForwardAccumulation,
    Hypergradient,
    LastStep,
    NeumannSeries,
)
from nas.bilevel.problem import BilevelProblem
from nas.errors import InvalidValue
from nas.hyperparameters.collection import HyperparameterSet
from nas.search.gradient_search import GradientSearch
from nas.tasks import PLAIN_CLASSIFICATION
from nas.training.settings import TrainingSettings
from nas.training.weight_step import weight_optimiser
from tests.brute_force import LEARNED, largest_error, targets_of, written_out
from tests.problems import batch_for, entries, search_parts, supernet_for

ADAMW = TrainingSettings(16, 0.9, 5.0, "cosine", optimiser="adamw")


def problem_for(clip: float | None = None, steps: int = 2) -> BilevelProblem:
    """One in which AdamW has taken so many steps."""
    supernet, generators = supernet_for("softmax", torch.float64, True)
    optimiser = weight_optimiser(ADAMW, supernet.weight_parameters())
    problem = BilevelProblem(supernet, optimiser, HyperparameterSet(entries(LEARNED)), clip, tuple(generators))
    problem.schedule_factor = 0.6
    for number in range(steps):
        problem.step(batch_for(number))
    return problem


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_exact_is_the_derivative_of_the_step(clip: float | None, steps: int) -> None:
    problem, batches = problem_for(clip, steps), [batch_for(10), batch_for(11)]
    references = written_out(problem, PLAIN_CLASSIFICATION, batches)
    targets = targets_of(problem)
    before = {name: weight.clone() for name, weight in problem.weights().items()}
    report = Exact().gradients(problem, *batches, list(targets.values()))
    for name, gradient in zip(targets, report.gradients, strict=True):
        assert largest_error(gradient, references[name]) < 1e-8, name
    assert all(torch.equal(weight, before[name]) for name, weight in problem.weights().items())
    problem.step(batches[0])
    went = [(weight.detach() - before[name]).norm() for name, weight in problem.weights().items()]
    assert report.step_length == pytest.approx(float(torch.stack(went).norm()), rel=1e-2)  # its noise is another


@pytest.mark.parametrize("steps", [0, 2])
def test_the_step_just_taken_has_the_same_derivatives_and_moves_the_weights_alike(steps: int) -> None:
    """In spite of moments that the real step changes in place."""
    problem, batches = problem_for(0.1, steps), [batch_for(10), batch_for(11)]
    references = written_out(problem, PLAIN_CLASSIFICATION, batches)
    raw = dict(problem.hyperparameters.raw)
    step = problem.step(batches[0], keep_graph=True, second_order=True)
    for name, weight in problem.weights().items():
        torch.testing.assert_close(step.after[name].detach(), weight.detach(), rtol=1e-12, atol=1e-14)
    found = LastStep().gradients(problem, *batches, list(raw.values())).gradients
    for name, gradient in zip(raw, found, strict=True):
        assert largest_error(gradient, references[name]) < 1e-8, name


@pytest.mark.parametrize(
    "hypergradient",
    [ForwardAccumulation(), NeumannSeries(), ConjugateGradient(), FiniteDifference(), ByKind(Exact(), NeumannSeries())],
    ids=lambda one: type(one).__name__,
)
def test_hypergradients_derived_for_sgd_are_refused(hypergradient: Hypergradient, tmp_path: Path) -> None:
    key, place = "hyperparameters.gradient", "hyperparameter_gradient"
    if isinstance(hypergradient, FiniteDifference):
        key, place = "hypergradient", "architecture_gradient"
    with pytest.raises(InvalidValue, match=r"derived for SGD: beside training\.optimiser=adamw") as caught:
        GradientSearch(search_parts(tmp_path, **{"training": ADAMW, place: hypergradient}))
    assert caught.value.key == key
