"""What a newcomer is promised: a class with ``gradients`` and nothing else is a whole hypergradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from nas.bilevel import BilevelOptimiser, BilevelProblem, Exact, FirstOrder, Hypergradient, Report
from nas.bilevel.reach import check_reach, differentiates_twice
from nas.configuration import build
from nas.data.batches import Batch
from nas.errors import InvalidValue, RunFailed
from tests.problems import ADAM


@dataclass(frozen=True)
class Scaled(Hypergradient):
    """``scale`` times the gradient through the whole weight step."""

    scale: float = 1.0

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        step = problem.step_ahead(training, second_order=True)
        loss, logits = problem.validation_loss(step.after, validation)
        found = torch.autograd.grad(self.scale * loss, targets, materialize_grads=True)
        return Report(found, loss.detach(), logits.detach(), passes=(1, 1))


@dataclass(frozen=True)
class Slipped(Scaled):
    """With gradients of another shape or type, or one too many."""

    slip: str = ""

    def gradients(self, *given: Any) -> Report:
        report = super().gradients(*given)
        first, *rest = report.gradients
        slips = {"shape": first.sum(-1), "type": first.float(), "number": first}
        return replace(report, gradients=[slips[self.slip], *rest, *([first] if self.slip == "number" else [])])


@pytest.mark.parametrize("slip", ["shape", "type", "number"])
def test_gradients_of_another_shape_are_told_in_one_sentence(
    slip: str, make_problem: Callable[..., BilevelProblem], make_batch: Callable[..., Batch]
) -> None:
    problem = make_problem()
    optimiser = BilevelOptimiser(problem, Slipped(slip=slip), None, ADAM)
    with pytest.raises(RunFailed, match=r"A hypergradient gives gradients of \[.*, and what they are of has \["):
        optimiser.step(make_batch(0), make_batch(1), optimiser.requests(True, False))


def configured(scale: object) -> Scaled:
    hypergradient = build({"_target_": f"{__name__}.Scaled", "scale": scale}, "hypergradient")
    assert isinstance(hypergradient, Scaled)
    return hypergradient


def test_it_is_configured_by_its_dotted_path_and_its_settings_are_checked() -> None:
    assert configured(2.0) == Scaled(2.0) != Scaled()
    with pytest.raises(InvalidValue, match=r"^hypergradient\.scale="):
        configured("much")


@pytest.mark.parametrize("hyperparameters", [None, Scaled(), Exact(), FirstOrder()], ids=str)
def test_it_is_accepted_for_whatever_is_to_move(
    hyperparameters: Hypergradient | None, make_problem: Callable[..., BilevelProblem]
) -> None:
    learned = () if hyperparameters in (None, FirstOrder()) else ("learning_rate", "weight_decay", "dropout")
    entries = make_problem(learned=learned).hyperparameters
    check_reach(Scaled(), hyperparameters, entries)
    assert differentiates_twice(Scaled(), hyperparameters, entries)


def test_it_moves_alpha_and_the_hyperparameters_as_exact_does_in_one_set_of_passes(
    make_problem: Callable[..., BilevelProblem], make_batch: Callable[..., Batch]
) -> None:
    states = []
    for hypergradient in (configured(1.0), Exact()):
        problem = make_problem(clip=0.1, learned=("weight_decay", "dropout"))
        bilevel = BilevelOptimiser(problem, hypergradient, hypergradient, ADAM)
        start = {name: one.detach().clone() for name, one in moving(problem).items()}
        for number in range(3):
            done = bilevel.step(make_batch(number), make_batch(10 + number), bilevel.requests(True, True))
            assert done.samples == 3 * len(make_batch(number).targets)
            assert done.upper_step is not None
            assert done.upper_step.gradient_norms.keys() == {"architecture", "weight_decay", "dropout"}
            assert done.upper_step.interventions == ()
        again = BilevelOptimiser(problem, hypergradient, hypergradient, ADAM)
        again.load_state_dict(bilevel.state_dict())
        again.forget_weights()
        assert not any(torch.equal(one, start[name]) for name, one in moving(problem).items())
        states.append(moving(problem) | problem.weights())
    for name, one in states[0].items():
        torch.testing.assert_close(one, states[1][name], rtol=1e-12, atol=1e-14, msg=name)


def moving(problem: BilevelProblem) -> dict[str, nn.Parameter]:
    return {**problem.supernet.alpha, **problem.hyperparameters.raw}


def test_a_report_without_a_gradient_for_a_target_is_refused() -> None:
    with pytest.raises(TypeError, match="zeros"):
        Report((torch.zeros(2), None), torch.zeros(()), torch.zeros(1, 2))  # type: ignore[arg-type]
