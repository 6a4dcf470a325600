"""What a step of the upper level asks of its hypergradients, and what it moves."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch

from nas.bilevel.architecture_optimiser import Adam
from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.problem import BilevelProblem
from nas.errors import InvalidValue
from nas.hyperparameters.collection import SILENT_STEPS
from nas.hyperparameters.rules import GradientDescent
from tests.problems import ADAM


@dataclass(frozen=True)
class Counted(Hypergradient):
    """A hypergradient that notes what it was asked for; equal to another one with the same inner hypergradient."""

    inner: Hypergradient
    calls: list = field(default_factory=list, compare=False)

    def gradients(self, problem, training, validation, targets):
        self.calls.append(list(targets))
        return self.inner.gradients(problem, training, validation, targets)


def losses_taken(problem: BilevelProblem, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each loss of ``problem`` is computed from now on."""
    counts: Counter = Counter()
    for method, loss in (("training_pass", "training_loss"), ("validation_loss", "validation_loss")):
        original = getattr(problem, method)

        def counted(*arguments, loss=loss, original=original):
            counts[loss] += 1
            return original(*arguments)

        monkeypatch.setattr(problem, method, counted)
    return counts


def stepped(bilevel: BilevelOptimiser, make_batch, architecture: bool = True, hyperparameters: bool = True):
    return bilevel.upper_step(make_batch(10), make_batch(11), bilevel.requests(architecture, hyperparameters))


def test_equal_hypergradients_share_one_set_of_passes(make_problem, make_batch, monkeypatch):
    problem = make_problem()
    counts = losses_taken(problem, monkeypatch)
    one, other = Counted(Exact()), Counted(Exact())
    outcome = stepped(BilevelOptimiser(problem, one, other, ADAM), make_batch)
    assert counts == {"training_loss": 1, "validation_loss": 1}
    assert len(one.calls) + len(other.calls) == 1
    assert outcome.samples == 2 * 8


@pytest.mark.parametrize(
    ("architecture", "hyperparameters", "training", "validation"),
    [
        (FirstOrder(), Exact(), 1, 2),
        (FiniteDifference(), Exact(), 4, 2),
        (FiniteDifference(0.01), FiniteDifference(0.1), 6, 2),
        (FiniteDifference(), FiniteDifference(), 3, 1),
        (FirstOrder(), None, 0, 1),
        (None, Exact(), 1, 1),
    ],
)
def test_samples_are_counted_as_they_are_spent(
    architecture, hyperparameters, training, validation, make_problem, make_batch, monkeypatch
):
    problem = make_problem()
    counts = losses_taken(problem, monkeypatch)
    outcome = stepped(BilevelOptimiser(problem, architecture, hyperparameters, ADAM), make_batch)
    assert (counts["training_loss"], counts["validation_loss"]) == (training, validation)
    assert outcome.samples == 8 * (training + validation)


def test_hypergradients_that_differ_get_their_own_targets_at_the_same_alpha_and_hyperparameters(
    make_problem, make_batch
):
    problem = make_problem()
    alpha, raw = problem.supernet.architecture_parameters(), problem.hyperparameters.raw_parameters()
    values = []

    @dataclass(frozen=True)
    class Watching(Counted):
        def gradients(self, problem, training, validation, targets):
            values.append([parameter.detach().clone() for parameter in (*alpha, *raw)])
            return super().gradients(problem, training, validation, targets)

    first, second = Watching(FirstOrder()), Watching(Exact())
    stepped(BilevelOptimiser(problem, first, second, ADAM), make_batch)
    assert first.calls[0] == alpha
    assert second.calls[0] == raw
    assert all(torch.equal(one, other) for one, other in zip(*values, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(values[0], (*alpha, *raw), strict=True))


@pytest.mark.parametrize(("architecture", "hyperparameters"), [(False, True), (True, False)])
def test_what_takes_no_part_stays(architecture, hyperparameters, make_problem, make_batch):
    problem = make_problem()
    bilevel = BilevelOptimiser(problem, Exact(), Exact(), ADAM)
    stepped(bilevel, make_batch)  # so that Adam has moments, which would move alpha even without a gradient
    alpha = [one.detach().clone() for one in problem.supernet.architecture_parameters()]
    raw = [one.detach().clone() for one in problem.hyperparameters.raw_parameters()]
    stepped(bilevel, make_batch, architecture, hyperparameters)
    moved = [
        not torch.equal(one, other)
        for one, other in zip(alpha, problem.supernet.architecture_parameters(), strict=True)
    ]
    assert moved == [architecture] * len(moved)
    moved = [
        not torch.equal(one, other) for one, other in zip(raw, problem.hyperparameters.raw_parameters(), strict=True)
    ]
    assert moved == [hyperparameters] * len(moved)


def test_there_is_no_work_without_hypergradients_or_without_learned_hyperparameters(make_problem):
    assert BilevelOptimiser(make_problem(), None, None, ADAM).requests(True, True) == []
    assert BilevelOptimiser(make_problem(learned=()), None, Exact(), ADAM).requests(True, True) == []
    assert BilevelOptimiser(make_problem(), Exact(), Exact(), ADAM).requests(False, False) == []


def test_alpha_moves_as_adam_moves_it(make_problem, make_batch):
    problem, twin = make_problem(), make_problem()
    bilevel = BilevelOptimiser(problem, FirstOrder(), None, ADAM)
    adam = torch.optim.Adam(twin.supernet.architecture_parameters(), lr=0.03, betas=(0.5, 0.999), weight_decay=1e-3)
    for _ in range(3):
        outcome = stepped(bilevel, make_batch)
        alphas = twin.supernet.architecture_parameters()
        found = FirstOrder().gradients(twin, make_batch(10), make_batch(11), alphas).gradients
        for alpha, gradient in zip(alphas, found, strict=True):
            alpha.grad = gradient
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in found))
        assert outcome.gradient_norms == {"architecture": pytest.approx(norm)}
        adam.step()
    for name, alpha in problem.supernet.alpha.items():
        assert torch.equal(alpha, twin.supernet.alpha[name])
        assert alpha.grad is None


def test_hyperparameters_stay_within_their_bounds(make_problem, make_batch):
    problem = make_problem()
    hyperparameters = problem.hyperparameters
    bilevel = BilevelOptimiser(problem, None, Exact(), ADAM)
    for name, entry in hyperparameters.entries.items():
        for value in (entry.low, entry.high):
            hyperparameters.set_value(name, value)
            for _ in range(2):
                stepped(bilevel, make_batch)
            low, high = entry.raw_bounds()
            assert low <= hyperparameters.raw[name].item() <= high, (name, value)


def test_the_state_goes_on_where_it_was(make_problem, make_batch):
    def made() -> BilevelOptimiser:
        return BilevelOptimiser(make_problem(), Exact(), Exact(), ADAM)

    whole, first, second = made(), made(), made()
    for _ in range(4):
        stepped(whole, make_batch)
    for _ in range(2):
        stepped(first, make_batch)
    second.problem.supernet.load_state_dict(first.problem.supernet.state_dict())
    second.problem.repeat_noise(first.problem.noise_state())
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        stepped(second, make_batch)
    for kind in ("supernet", "hyperparameters"):
        one, other = (getattr(bilevel.problem, kind).state_dict() for bilevel in (whole, second))
        assert all(torch.equal(one[name], other[name]) for name in one), kind


def test_forgetting_drops_what_adam_knows_of_alpha(make_problem, make_batch):
    problem = make_problem()
    bilevel = BilevelOptimiser(problem, FirstOrder(), None, ADAM)
    stepped(bilevel, make_batch)
    bilevel.forget()
    before = [alpha.detach().clone() for alpha in problem.supernet.architecture_parameters()]
    stepped(bilevel, make_batch)
    for alpha, old in zip(problem.supernet.architecture_parameters(), before, strict=True):
        torch.testing.assert_close((alpha - old).abs(), torch.full_like(alpha, 0.03), rtol=1e-3, atol=0)  # a first step


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"rate": 0.0}, "rate=0.0 is not allowed: it must be a number above 0."),
        ({"rate": math.nan}, "rate=nan is not allowed: it must be a number above 0."),
        ({"betas": (0.5, 1.0)}, "betas=[0.5, 1.0] is not allowed: it must be two numbers from 0 to below 1."),
        ({"betas": (0.5,)}, "betas=[0.5] is not allowed: it must be two numbers from 0 to below 1."),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 is not allowed: it must be at least 0."),
    ],
)
def test_impossible_settings_are_refused(setting, sentence):
    with pytest.raises(InvalidValue) as error:
        Adam(**{"rate": 0.03, "betas": (0.5, 0.999), "weight_decay": 1e-3, **setting})
    assert str(error.value) == sentence


def test_a_gradient_that_is_not_finite_moves_nothing_and_is_told(make_problem, make_batch):
    problem = make_problem()
    bilevel = BilevelOptimiser(problem, Exact(), Exact(), ADAM)
    with torch.no_grad():
        problem.supernet.classifier.weight[0, 0] = math.nan
    before = [one.detach().clone() for one in (*bilevel.alpha, *problem.hyperparameters.raw_parameters())]
    outcome = stepped(bilevel, make_batch)
    after = [*bilevel.alpha, *problem.hyperparameters.raw_parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    told = {(kind, what) for kind, what in outcome.interventions}
    assert told == {("gradient_not_finite", what) for what in ("architecture", *problem.hyperparameters.learned())}
    assert outcome.gradient_norms == {}


def test_a_gradient_that_stays_zero_is_told_once_however_often_the_run_is_resumed(make_problem, make_batch):
    problem = make_problem(learned=("dropout",))
    problem.supernet.dropout.eval()  # so that nothing depends on the rate
    bilevel = BilevelOptimiser(problem, None, Exact(), ADAM)
    told = []
    for number in range(SILENT_STEPS + 5):
        told += [(number, *one) for one in stepped(bilevel, make_batch).interventions]
        again = BilevelOptimiser(problem, None, Exact(), ADAM)
        again.load_state_dict(bilevel.state_dict())
        bilevel = again
    assert told == [(SILENT_STEPS - 1, "gradient_silent", "dropout")]


@pytest.mark.parametrize("region", [1e-3, 0.2])
def test_no_step_leaves_the_trust_region(region, make_problem, make_batch):
    problem = make_problem(learned=("learning_rate",))
    entries = problem.hyperparameters.entries
    entries["learning_rate"] = replace(entries["learning_rate"], update=GradientDescent(1e6), trust_region=region)
    raw = problem.hyperparameters.raw["learning_rate"]
    before = float(raw.detach())
    outcome = stepped(BilevelOptimiser(problem, None, Exact(), ADAM), make_batch)
    assert abs(float(raw.detach()) - before) == pytest.approx(region)
    assert outcome.interventions == (("trust_region", "learning_rate"),)
