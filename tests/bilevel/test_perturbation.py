"""Perturbed operation weights in the weight step: what they are, who sees them, and what they cost."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.implicit import NeumannSeries
from nas.bilevel.last_step import LastStep
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.perturbation import AdversarialPerturbation, Perturbation, RandomPerturbation, projected
from nas.bilevel.problem import BilevelProblem
from nas.errors import InvalidValue
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.training.sgd import sgd
from tests.bilevel.test_untouched_state import assert_same, everything
from tests.problems import (
    ADAM,
    CELL_SPACES,
    CLASSES,
    batch_for,
    entries,
    momentum_buffers,
    problem_over,
    seeded_supernet,
)

RATES = ("learning_rate", "weight_decay")  # learned; dropout is held, and off
WEIGHTS = {"normal": torch.tensor([[0.5, 0.3, 0.2], [0.01, 0.98, 0.01]], dtype=torch.float64)}


def seeded(perturbation: Perturbation) -> Perturbation:
    perturbation.generator = torch.Generator().manual_seed(7)
    return perturbation


def linear(slopes: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
    return lambda weights: (slopes * weights["normal"]).sum()


# ---------------------------------------------------------------- the perturbations


def test_noise_stays_within_its_radius_and_comes_back_to_the_simplex():
    perturbation = seeded(RandomPerturbation(0.2, 0.2))
    noise = perturbation.noise({"cell": torch.zeros(1000, 4)}, 0.2)["cell"]
    assert float(noise.min()) >= -0.2
    assert float(noise.max()) <= 0.2
    assert abs(float(noise.mean())) < 0.01
    moved = perturbation(WEIGHTS, linear(torch.zeros(2, 3)), 0.5)["normal"]
    assert not torch.equal(moved, WEIGHTS["normal"])
    torch.testing.assert_close(moved.sum(-1), torch.ones(2, dtype=torch.float64))
    assert float(moved.min()) >= 0


def test_a_row_that_is_cut_to_nothing_becomes_its_largest_entry():
    assert projected(torch.tensor([[-0.3, -0.1, -0.2], [0.5, 1.5, 0.5]])).tolist() == [[0, 1, 0], [0.25, 0.5, 0.25]]


def test_the_radius_goes_from_one_value_to_the_other():
    assert [RandomPerturbation().radius(epoch / 50) for epoch in (0, 25)] == pytest.approx([0.03, 0.165])


def test_the_adversary_climbs_a_linear_loss_to_the_edge_of_its_ball():
    slopes = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    loss = linear(slopes)
    moved = AdversarialPerturbation(0.05, 0.05, random_start=False)(WEIGHTS, loss, 0.0)
    expected = WEIGHTS["normal"][0] + torch.tensor([0.05, -0.05, 0.0], dtype=torch.float64)
    torch.testing.assert_close(moved["normal"][0], expected, rtol=0, atol=1e-12)
    assert float(loss(moved)) > float(loss(WEIGHTS))
    assert torch.equal(moved["normal"][1], WEIGHTS["normal"][1])


@pytest.mark.parametrize("random_start", [False, True])
def test_a_perturbation_that_has_lowered_the_loss_is_dropped(random_start):
    def falling(weights: Mapping[str, Tensor]) -> Tensor:
        """Highest at the present weights."""
        return -(weights["normal"] - WEIGHTS["normal"]).square().sum()

    attack = seeded(AdversarialPerturbation(0.05, 0.05, random_start=random_start))
    assert torch.equal(attack(WEIGHTS, falling, 0.0)["normal"], WEIGHTS["normal"])


# ---------------------------------------------------------------- the problem


def perturbed(name: str) -> Perturbation:
    return seeded(RandomPerturbation(0.1, 0.1) if name == "random" else AdversarialPerturbation(0.1, 0.1, steps=2))


def problem_with(
    make_problem: Callable[..., BilevelProblem], perturbation: Perturbation, learned: tuple[str, ...] = RATES
) -> BilevelProblem:
    problem = make_problem(filled=True, perturbation=perturbation, hyperparameters=entries(learned))
    problem.supernet.dropout.eval()
    return problem


def loss_of(problem: BilevelProblem, weights: Mapping[str, Tensor], batch, operation_weights, own) -> Tensor:
    """The cross-entropy of the supernet itself; ``own`` are its parameters, which ``weights`` replace."""
    logits = functional_call(problem.supernet, {**own, **weights}, (batch.inputs, operation_weights))
    return F.cross_entropy(logits, batch.targets)


class Noted(Perturbation):
    """Another perturbation whose last results are kept."""

    def __init__(self, inner: Perturbation) -> None:
        self.inner, self.passes, self.calls = inner, inner.passes, 0

    def __call__(self, weights, loss, progress):
        self.calls += 1
        moved = self.inner(weights, loss, progress)
        self.added = {name: moved[name] - weights[name] for name in moved}
        return moved


@pytest.mark.parametrize("name", ["random", "adversarial"])
def test_exact_is_the_derivative_of_the_whole_step_at_the_perturbed_weights(name, make_problem, make_batch):
    perturbation = Noted(perturbed(name))
    problem = problem_with(make_problem, perturbation)
    training, validation = make_batch(10), make_batch(11)
    alphas, raw = dict(problem.supernet.alpha), dict(problem.hyperparameters.raw)
    targets = [*alphas.values(), *raw.values()]
    found = Exact().gradients(problem, training, validation, targets).gradients
    assert all(float(one.abs().max()) > 1e-4 for one in perturbation.added.values())

    own = {key: one.detach() for key, one in problem.supernet.named_parameters()}
    own |= {key: one.clone() for key, one in problem.supernet.named_buffers()}
    weights = {key: one.detach().clone().requires_grad_() for key, one in problem.weights().items()}
    relaxed = {key: (alpha / 0.9).softmax(-1) for key, alpha in alphas.items()}
    moved = {key: one + perturbation.added[key] for key, one in relaxed.items()}
    loss = loss_of(problem, weights, training, moved, own)
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    values = {key: one.exp() for key, one in raw.items()} | {"momentum": 0.9}
    gradients = dict(zip(weights, slopes, strict=True))
    after, _ = sgd(weights, gradients, momentum_buffers(problem), values, None)
    expected = torch.autograd.grad(loss_of(problem, after, validation, relaxed, own), targets)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)


def test_a_difference_of_training_losses_sees_one_and_the_same_perturbation(make_problem, make_batch):
    """An adversary that answered each of them would make the difference infinitely steep."""
    found = []
    for hypergradient in (Exact(), FiniteDifference(1e-3)):
        problem = problem_with(make_problem, perturbed("adversarial"))
        targets = problem.supernet.architecture_parameters()
        found.append(hypergradient.gradients(problem, make_batch(10), make_batch(11), targets).gradients)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["random", "adversarial"])
def test_the_step_with_a_graph_is_the_one_without(name, make_problem, make_batch):
    steps = []
    for keep in (False, True):
        problem = problem_with(make_problem, perturbed(name))
        step = problem.step(make_batch(10), keep_graph=keep, second_order=keep)
        steps.append([step.loss.detach(), step.logits, *problem.weights().values()])
    torch.testing.assert_close(*steps, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hypergradient", [FirstOrder(), Exact(), NeumannSeries(2, 0.05), FiniteDifference()])
def test_gradients_leave_everything_as_it_was(hypergradient, make_problem, make_batch):
    problem = problem_with(make_problem, perturbed("adversarial"))
    problem.supernet.dropout.train()
    before = everything(problem)
    targets = problem.supernet.architecture_parameters()
    hypergradient.gradients(problem, make_batch(10), make_batch(11), targets)
    assert_same(before, everything(problem))


def test_every_weight_step_finds_its_own_at_the_alpha_that_has_moved(make_problem, make_batch):
    perturbation = Noted(perturbed("random"))
    problem = problem_with(make_problem, perturbation)
    bilevel = BilevelOptimiser(problem, FirstOrder(), Exact(), ADAM)
    for step in range(2):
        bilevel.step(make_batch(10), make_batch(11), bilevel.requests(True, True))
        assert perturbation.calls == 2 * (step + 1)  # the step ahead, and the step


@pytest.mark.parametrize(
    ("hypergradient", "passes"), [(FirstOrder(), 1 + 1 + 4), (Exact(), 1 + 2 + 2 * 4), (LastStep(), 1 + 1 + 4)]
)
def test_its_passes_are_counted(hypergradient: Hypergradient, passes: int, make_problem, make_batch):
    problem = problem_with(make_problem, perturbed("adversarial"))  # two steps, and the losses before and after
    learned = None if isinstance(hypergradient, FirstOrder) else hypergradient
    bilevel = BilevelOptimiser(problem, hypergradient, learned, ADAM)
    requests = bilevel.requests(True, learned is not None)
    outcome = bilevel.step(make_batch(10), make_batch(11), requests)
    assert outcome.samples == 8 * passes
    assert outcome.samples <= 8 * (1 + bilevel.most_passes())
    again = bilevel.step(make_batch(10), None, [])
    assert again.samples == 8 * (1 + 4)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("nasbench201", "random"),
        ("nasbench201", "adversarial"),
        ("darts", "random"),
        pytest.param("darts", "adversarial", marks=pytest.mark.slow),
    ],
)
def test_the_fast_supernets_take_the_same_step(space, name):
    found = []
    for implementation in ("plain", "fast"):
        made = CELL_SPACES[space](implementation=implementation, signature=Signature((2, 6, 6), CLASSES))
        supernet, noise = seeded_supernet(made)
        problem = problem_over(supernet, entries(()), None, noise, perturbation=perturbed(name))
        batches = [batch_for(seed, shape=(2, 6, 6)) for seed in (4, 5)]
        losses = [problem.step(batch).loss for batch in batches]  # the second one at running statistics of the first
        found.append([*losses, *problem.weights().values(), *dict(supernet.named_buffers()).values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["random", "adversarial"])
def test_what_was_taken_away_stays_away(name):
    made = CELL_SPACES["nasbench201"](implementation="plain", signature=Signature((2, 6, 6), CLASSES))
    supernet, noise = seeded_supernet(made)
    kept = torch.ones_like(supernet.alpha["cell"])
    kept[:, 2:] = 0
    supernet.keep("cell", kept)
    perturbation = Noted(perturbed(name))
    problem = problem_over(supernet, entries(()), None, noise, perturbation=perturbation)
    seen, original = [], problem.weight_gradients

    def looking(batch, weights, values):
        seen.append(weights["cell"])
        return original(batch, weights, values)

    problem.weight_gradients = looking
    problem.step(batch_for(4, shape=(2, 6, 6)))
    assert float(perturbation.added["cell"][:, 2:].abs().max()) > 0
    assert float(seen[0][:, 2:].abs().max()) < 1e-15
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(6, dtype=torch.float64))


# ---------------------------------------------------------------- what is refused


def test_what_does_not_lie_on_the_simplex_or_is_run_alone_is_refused():
    with pytest.raises(InvalidValue, match="relaxation=Sigmoid is not allowed: perturbed weights are brought back"):
        RandomPerturbation().check(Sigmoid())
    sampled = GumbelSoftmax(Temperature(), hard=True)
    sampled.sampled = True
    with pytest.raises(InvalidValue, match="relaxation=GumbelSoftmax is not allowed: a perturbed edge is a mixture"):
        AdversarialPerturbation().check(sampled)
    RandomPerturbation().check(Softmax(Temperature()))


@pytest.mark.parametrize("setting", [{"initial": 0.0}, {"final": math.inf}, {"steps": 0}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(InvalidValue, match=f"{next(iter(setting))}="):
        AdversarialPerturbation(**setting)
