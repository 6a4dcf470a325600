"""The gradient through the step just taken; against brute force: ``test_macro_hyperparameters.py``."""

from collections import Counter

import pytest
import torch

from nas.bilevel.by_kind import ByKind
from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Report
from nas.bilevel.implicit import NeumannSeries
from nas.bilevel.last_step import LastStep, LastStepOrExact
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.step import WeightStep
from nas.data.batches import Batch
from nas.errors import InvalidValue
from tests.problems import ADAM


def kept_step(problem: BilevelProblem, batch: Batch) -> WeightStep:
    """A weight step whose graph is kept, as far as ``LastStep`` needs it."""
    kinds = problem.hyperparameters.learned_kinds()
    return problem.step(batch, keep_graph=True, second_order=LastStep().differentiates_twice(kinds))


def taken(problem: BilevelProblem, make_batch, targets) -> Report:
    kept_step(problem, make_batch(10))
    return LastStep().gradients(problem, make_batch(10), make_batch(11), targets)


def state_of(problem: BilevelProblem) -> list[torch.Tensor]:
    buffers = [state["momentum_buffer"] for state in problem.optimiser.state.values()]
    return [entry.clone() for entry in (*problem.supernet.state_dict().values(), *buffers)]


@pytest.mark.parametrize("clip", [None, 0.1, 1e3])
@pytest.mark.parametrize("learned", [("learning_rate",), ("learning_rate", "weight_decay", "dropout")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_step_whose_graph_is_kept_is_the_weight_step(clip, learned, dtype, make_problem, make_batch):
    results = []
    for kept in (False, True):
        problem = make_problem(clip=clip, learned=learned, dtype=dtype, relaxation="gumbel", smooth=False)
        problem.schedule_factor = 0.7
        for seed in (1, 2):
            batch = make_batch(seed, dtype)
            step = kept_step(problem, batch) if kept else problem.step(batch)
            assert (problem.last_step is step) == kept
        results.append([step.loss.detach(), step.logits, step.norm, *state_of(problem)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=1e-14)


def test_the_weights_it_differentiates_are_those_the_step_leaves(make_problem, make_batch):
    problem = make_problem(clip=0.1, filled=True)
    before = {name: weight.detach().clone() for name, weight in problem.weights().items()}
    step = kept_step(problem, make_batch(10))
    for name, weight in problem.weights().items():
        torch.testing.assert_close(step.after[name].detach(), weight.detach(), rtol=1e-13, atol=1e-15)
    went = (
        sum(float((weight.detach() - before[name]).square().sum()) for name, weight in problem.weights().items()) ** 0.5
    )
    assert step.length == pytest.approx(went, rel=1e-9)


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_alpha_gets_the_first_order_gradient_at_the_weights_after_the_step(relaxation, make_problem, make_batch):
    problem = make_problem(relaxation=relaxation, filled=True)
    alphas = problem.supernet.architecture_parameters()
    kept_step(problem, make_batch(10))
    noise = problem.noise_state()
    targets = [*alphas, *problem.hyperparameters.raw_parameters()]
    found = LastStep().gradients(problem, make_batch(10), make_batch(11), targets).gradients[: len(alphas)]
    problem.repeat_noise(noise)
    expected = FirstOrder().gradients(problem, make_batch(10), make_batch(11), alphas).gradients
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_the_hyperparameters_get_what_exact_gives_that_looks_ahead_at_the_same_step(make_problem, make_batch):
    ahead, back = (make_problem(clip=0.1, filled=True, relaxation="gumbel") for _ in range(2))
    expected = Exact().gradients(ahead, make_batch(10), make_batch(11), ahead.hyperparameters.raw_parameters())
    found = taken(back, make_batch, back.hyperparameters.raw_parameters())
    for one, other in zip(expected.gradients, found.gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_what_is_asked_for_gets_a_gradient_in_its_order_and_nothing_is_left_anywhere(make_problem, make_batch):
    problem, other = make_problem(), make_problem()
    raw = problem.hyperparameters.raw
    alphas = problem.supernet.architecture_parameters()
    (alone,) = taken(problem, make_batch, [raw["learning_rate"]]).gradients
    mixed = [other.hyperparameters.raw["learning_rate"], *other.supernet.architecture_parameters()]
    together = taken(other, make_batch, mixed).gradients
    torch.testing.assert_close(alone, together[0], rtol=1e-12, atol=0)
    assert [gradient.shape for gradient in together[1:]] == [alpha.shape for alpha in alphas]
    assert all(one.grad is None for one in (*problem.supernet.parameters(), *raw.values()))


@pytest.mark.parametrize("architecture", [FirstOrder(), LastStep(), None])
@pytest.mark.parametrize("hyperparameters", [True, False])
def test_a_step_takes_one_pass_of_either_batch(
    architecture, hyperparameters, make_problem, make_batch, monkeypatch: pytest.MonkeyPatch
):
    problem = make_problem()
    passes: Counter[int] = Counter()
    forward = problem.supernet.forward

    def counted(images, weights=None):
        passes[float(images.sum())] += 1
        return forward(images, weights)

    monkeypatch.setattr(problem.supernet, "forward", counted)
    bilevel = BilevelOptimiser(problem, architecture, LastStep(), ADAM)
    training, validation, requests = make_batch(10), make_batch(11), bilevel.requests(True, hyperparameters)
    if not requests:
        return
    done = bilevel.step(training, validation, requests)
    assert passes == {float(training.inputs.sum()): 1, float(validation.inputs.sum()): 1}
    assert done.samples == len(training.targets) + len(validation.targets)


def test_the_weights_move_first(make_problem, make_batch):
    problem, alone = make_problem(), make_problem()
    alone.step(make_batch(10))
    bilevel = BilevelOptimiser(problem, FirstOrder(), LastStep(), ADAM)
    bilevel.step(make_batch(10), make_batch(11), bilevel.requests(True, True))
    for one, other in zip(problem.weights().values(), alone.weights().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)  # with alpha and h as they were
    moved = [*problem.supernet.architecture_parameters(), *problem.hyperparameters.raw_parameters()]
    stayed = [*alone.supernet.architecture_parameters(), *alone.hyperparameters.raw_parameters()]
    assert not any(torch.equal(one, other) for one, other in zip(moved, stayed, strict=True))


def test_by_kind_refuses_what_looks_back():
    with pytest.raises(InvalidValue, match=r"update=LastStep is not allowed: it must look ahead"):
        ByKind(NeumannSeries(), LastStep())


def test_what_differentiates_twice():
    assert not LastStep().differentiates_twice(["architecture", "update", "decay"])
    assert LastStep().differentiates_twice(["update", "loss"])
    assert not FirstOrder().differentiates_twice(["architecture"])
    assert not Exact().differentiates_twice(["update"])
    assert Exact().differentiates_twice(["architecture"])
    by_kind = ByKind(NeumannSeries(), Exact())
    assert by_kind.differentiates_twice(["loss"])
    assert not by_kind.differentiates_twice(["update", "decay"])


def test_the_default_gives_way_where_alpha_has_another_hypergradient() -> None:
    default = LastStepOrExact()
    assert [default.suited_to(one) for one in (None, FirstOrder(), LastStep())] == [LastStep()] * 3
    assert default.suited_to(Exact()) == default.suited_to(NeumannSeries(2)) == Exact()
    assert LastStep().suited_to(Exact()) == LastStep()
