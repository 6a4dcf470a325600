"""The exact hypergradient against brute force that shares no code with it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nas.bilevel.exact import Exact
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.operations.fast.library import without_kernels
from nas.signature import Signature
from nas.training.sgd import sgd
from tests.problems import (
    CELL_SPACES,
    CLASSES,
    INPUT_SHAPE,
    RANKS,
    batch_of,
    entries,
    momentum_buffers,
    problem_over,
    seeded_supernet,
    space_of_rank,
)

TOLERANCE = 1e-6  # relative, per parameter
ACTIVE, INACTIVE = 0.1, 1e3  # gradient_clip: the training gradient's norm lies between them
HYPERPARAMETERS = ("learning_rate", "weight_decay", "dropout")


@dataclass(frozen=True)
class Case:
    relaxation: str = "softmax"
    clip: float | None = None
    filled: bool = True
    momentum: float = 0.9
    schedule_factor: float = 1.0

    def problem(self, make_problem: Callable[..., BilevelProblem]) -> BilevelProblem:
        problem = make_problem(relaxation=self.relaxation, clip=self.clip, filled=self.filled, momentum=self.momentum)
        problem.schedule_factor = self.schedule_factor
        return problem


CASES = {
    "buffers empty": Case(filled=False),
    "buffers filled": Case(),
    "no momentum, scheduled rate": Case(filled=False, momentum=0.0, schedule_factor=0.6),
    "clipped": Case(clip=ACTIVE),
    "clipped, buffers empty": Case(clip=ACTIVE, filled=False),
    "clipping without effect": Case(clip=INACTIVE),
    "gumbel": Case(relaxation="gumbel"),
    "gumbel, clipped": Case(relaxation="gumbel", clip=ACTIVE, schedule_factor=0.6),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def targets_of(problem: BilevelProblem) -> dict[str, nn.Parameter]:
    return {**problem.supernet.alpha, **problem.hyperparameters.raw}


def gradients_by_exact(problem: BilevelProblem, training: Batch, validation: Batch) -> dict[str, Tensor]:
    targets = targets_of(problem)
    report = Exact().gradients(problem, training, validation, list(targets.values()))
    return dict(zip(targets, report.gradients, strict=True))


def rates(raw: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Learning rate, weight decay and dropout rate of the raw values: the bijections of conftest's entries, by hand."""
    return raw["learning_rate"].exp(), raw["weight_decay"].exp(), 0.9 / (1 + (-raw["dropout"]).exp())


class RealStep:
    """A step of torch.optim.SGD on a copy of the supernet, then the validation loss; nothing is differentiated."""

    def __init__(self, case: Case, problem: BilevelProblem, make_supernet: Callable, batches: list[Batch]) -> None:
        self.case, self.batches, self.make_supernet = case, batches, make_supernet
        self.state = {name: entry.clone() for name, entry in problem.supernet.state_dict().items()}
        self.buffers = [
            problem.optimiser.state.get(weight, {}).get("momentum_buffer")
            for weight in problem.supernet.weight_parameters()
        ]

    def __call__(self, point: dict[str, Tensor]) -> float:
        supernet, _ = self.make_supernet(self.case.relaxation, torch.float64, True)
        alphas = {f"alpha.{name}": value for name, value in point.items() if name not in HYPERPARAMETERS}
        supernet.load_state_dict(self.state | alphas)
        rate, decay, dropout = rates(point)
        weights = supernet.weight_parameters()
        optimiser = torch.optim.SGD(
            weights, lr=float(rate) * self.case.schedule_factor, momentum=self.case.momentum, weight_decay=float(decay)
        )
        for weight, buffer in zip(weights, self.buffers, strict=True):
            if buffer is not None:
                optimiser.state[weight]["momentum_buffer"] = buffer.clone()
        training, validation = self.batches
        supernet.dropout.rate = dropout
        F.cross_entropy(supernet(training.inputs), training.targets).backward()
        if self.case.clip is not None:
            norm = nn.utils.clip_grad_norm_(weights, self.case.clip)
            assert (norm > self.case.clip) == (self.case.clip == ACTIVE)
        optimiser.step()
        supernet.dropout.rate = 0.0
        with torch.no_grad():
            return float(F.cross_entropy(supernet(validation.inputs), validation.targets))


def shifted(point: dict[str, Tensor], name: str, index: int, by: float) -> dict[str, Tensor]:
    moved = point[name].detach().clone()
    moved.view(-1)[index] += by
    return {**point, name: moved}


def central_difference(function: RealStep, point: dict[str, Tensor], name: str, step: float) -> Tensor:
    """The derivative with respect to every entry of ``point[name]``, Richardson-extrapolated: an error of step^4."""
    result = torch.zeros_like(point[name])
    for index in range(result.numel()):
        slopes = [
            (function(shifted(point, name, index, h)) - function(shifted(point, name, index, -h))) / (2 * h)
            for h in (step, step / 2)
        ]
        result.view(-1)[index] = (4 * slopes[1] - slopes[0]) / 3
    return result


def relative_error(found: Tensor, reference: Tensor) -> float:
    return float((found - reference).abs().max() / reference.abs().max())


def test_it_agrees_with_finite_differences_of_a_step_done_for_real(case, make_problem, make_supernet, make_batch):
    problem, batches = case.problem(make_problem), [make_batch(10), make_batch(11)]
    step_for_real = RealStep(case, problem, make_supernet, batches)
    point = {name: target.detach().clone() for name, target in targets_of(problem).items()}
    for name, gradient in gradients_by_exact(problem, *batches).items():
        # The concrete mask bends at a scale of its temperature, a tenth: its step must be smaller.
        reference = central_difference(step_for_real, point, name, 1e-3 if name == "dropout" else 1e-2)
        print(f"{name}: {relative_error(gradient, reference):.1e}")
        assert relative_error(gradient, reference) < TOLERANCE, name


class DifferentiableStep:
    """The whole step written down once more with ``torch.func``, differentiable in alpha and the raw values."""

    def __init__(self, case: Case, problem: BilevelProblem, batches: list[Batch]) -> None:
        self.case, self.problem, (self.training, self.validation) = case, problem, batches
        self.names = list(targets_of(problem))
        self.noise = [generator.get_state() for generator in problem.generators]

    def loss(
        self, weights: dict[str, Tensor], alphas: dict[str, Tensor], batch: Batch, dropout: Tensor | float
    ) -> Tensor:
        supernet = self.problem.supernet
        supernet.dropout.rate = dropout
        # Inside torch.func.grad, batch norm may only write into tensors made there.
        buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        with without_kernels():  # which torch.func cannot look into
            logits = functional_call(supernet, {**weights, **alphas, **buffers}, (batch.inputs,))
        return F.cross_entropy(logits, batch.targets)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for generator, state in zip(self.problem.generators, self.noise, strict=True):
            generator.set_state(state)
        point = dict(zip(self.names, inputs, strict=True))
        alphas = {f"alpha.{name}": value for name, value in point.items() if name not in HYPERPARAMETERS}
        rate, decay, dropout = rates(point)
        live = self.problem.supernet.named_weight_parameters()
        weights = {name: weight.detach() for name, weight in live.items()}
        gradients = torch.func.grad(self.loss)(weights, alphas, self.training, dropout)
        if self.case.clip is not None:
            norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
            factor = torch.where(norm + 1e-6 > self.case.clip, self.case.clip / (norm + 1e-6), 1.0)
            gradients = {name: factor * gradient for name, gradient in gradients.items()}
        moved = {}
        for name, weight in weights.items():
            velocity = gradients[name] + decay * weight
            buffer = self.problem.optimiser.state.get(live[name], {}).get("momentum_buffer")
            if buffer is not None:
                velocity = velocity + self.case.momentum * buffer
            moved[name] = weight - self.case.schedule_factor * rate * velocity
        return self.loss(moved, alphas, self.validation, 0.0)


def assert_agrees(problem: BilevelProblem, batches: list[Batch], case: Case) -> None:
    """The exact gradients are those of :class:`DifferentiableStep`, with the same noise."""
    step = DifferentiableStep(case, problem, batches)
    inputs = [target.detach().clone().requires_grad_() for target in targets_of(problem).values()]
    references = torch.autograd.grad(step(*inputs), inputs)
    for generator, state in zip(problem.generators, step.noise, strict=True):
        generator.set_state(state)
    found = gradients_by_exact(problem, *batches)
    for (name, gradient), reference in zip(found.items(), references, strict=True):
        assert relative_error(gradient, reference) < 1e-10, name


def test_it_agrees_with_automatic_differentiation_written_independently(case, make_problem, make_batch):
    assert_agrees(case.problem(make_problem), [make_batch(10), make_batch(11)], case)


def test_it_does_so_once_options_are_taken_away(make_batch):
    space = CELL_SPACES["nasbench201"](signature=Signature(INPUT_SHAPE, CLASSES), implementation="plain")
    supernet, generators = seeded_supernet(space, "gumbel")
    problem = problem_over(supernet, entries(HYPERPARAMETERS), generators=generators)
    supernet.keep("cell", torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]] * 3))
    batches = [make_batch(10), make_batch(11)]
    assert_agrees(problem, batches, Case(filled=False))


@pytest.mark.parametrize("name", RANKS)
def test_it_does_so_for_every_rank_and_head(name: str) -> None:
    space = space_of_rank(name)
    supernet, generators = seeded_supernet(space)
    problem = problem_over(supernet, entries(HYPERPARAMETERS), generators=generators)
    assert_agrees(problem, [batch_of(space.signature, seed) for seed in (10, 11)], Case(filled=False))


def test_the_independent_differentiation_passes_gradcheck(make_problem, make_batch):
    case = CASES["gumbel, clipped"]
    problem = case.problem(make_problem)
    inputs = [target.detach().clone().requires_grad_() for target in targets_of(problem).values()]
    step = DifferentiableStep(case, problem, [make_batch(10), make_batch(11)])
    assert torch.autograd.gradcheck(step, inputs, eps=1e-5, rtol=1e-5, atol=1e-9)


def create_graph_arguments(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Filled with one entry per call of torch.autograd.grad."""
    calls: list[bool] = []
    differentiate = torch.autograd.grad

    def recorded(*arguments, create_graph: bool = False, **options):
        calls.append(create_graph)
        return differentiate(*arguments, create_graph=create_graph, **options)

    monkeypatch.setattr(torch.autograd, "grad", recorded)
    return calls


def without_graph(values: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}


@pytest.mark.parametrize("clip", [None, ACTIVE])
def test_what_acts_on_the_update_alone_is_the_closed_form_without_a_double_backward(
    clip, make_problem, make_batch, monkeypatch
):
    problem = make_problem(filled=True, clip=clip)
    problem.schedule_factor = 0.6
    training, validation = make_batch(10), make_batch(11)
    noise = problem.noise_state()
    calls = create_graph_arguments(monkeypatch)
    raw = problem.hyperparameters.raw
    report = Exact().gradients(problem, training, validation, [raw["learning_rate"], raw["weight_decay"]])
    assert calls == [False, False]
    monkeypatch.undo()

    problem.repeat_noise(noise)
    weights = {name: weight.detach().requires_grad_() for name, weight in problem.weights().items()}
    values = without_graph(problem.values())
    rate, decay = values["learning_rate"], values["weight_decay"]
    gradients = torch.autograd.grad(problem.training_loss(weights, training, values), list(weights.values()))
    buffers = momentum_buffers(problem)
    _, update = sgd(without_graph(weights), dict(zip(weights, gradients, strict=True)), buffers, values, clip)
    moved = {name: (weight - rate * update[name]).detach().requires_grad_() for name, weight in weights.items()}
    loss, _ = problem.validation_loss(moved, validation)
    at_moved = dict(zip(moved, torch.autograd.grad(loss, list(moved.values())), strict=True))
    along_update = sum(float((at_moved[name] * update[name]).sum()) for name in weights)
    along_weights = sum(float((at_moved[name] * weights[name].detach()).sum()) for name in weights)
    of_rate, of_decay = report.gradients
    assert float(of_rate) == pytest.approx(float(-rate * along_update), rel=1e-12)
    assert float(of_decay) == pytest.approx(float(-rate * decay * along_weights), rel=1e-12)

    length = float(rate) * sum(float(entry.square().sum()) for entry in update.values()) ** 0.5
    norm = sum(float(entry.square().sum()) for entry in at_moved.values()) ** 0.5
    assert report.step_length == pytest.approx(length, rel=1e-12)
    assert report.validation_gradient_norm == pytest.approx(norm, rel=1e-12)
    assert float(report.validation_loss) == pytest.approx(float(loss.detach()), rel=1e-12)


@pytest.mark.parametrize("target", ["layer1-filters", "dropout"])
def test_what_acts_through_the_training_loss_takes_a_double_backward(target, make_problem, make_batch, monkeypatch):
    problem = make_problem()
    calls = create_graph_arguments(monkeypatch)
    Exact().gradients(problem, make_batch(10), make_batch(11), [targets_of(problem)[target]])
    assert calls == [True, False]


def test_a_few_targets_get_the_gradients_they_get_among_all(make_problem, make_batch):
    together = gradients_by_exact(make_problem(), make_batch(10), make_batch(11))
    problem = make_problem()
    targets = targets_of(problem)
    chosen = ["layer2-pool_size", "learning_rate"]
    report = Exact().gradients(problem, make_batch(10), make_batch(11), [targets[name] for name in chosen])
    for name, gradient in zip(chosen, report.gradients, strict=True):
        torch.testing.assert_close(gradient, together[name], rtol=1e-12, atol=0)
    assert all(target.grad is None for target in targets.values())


def test_fixed_hyperparameters_act_as_learned_ones_of_the_same_value(make_problem, make_batch):
    """All but dropout, whose mask is relaxed only while it is learned."""
    found = []
    for learned in (("learning_rate", "weight_decay"), ()):
        problem = make_problem(learned=learned, filled=True)
        alphas = problem.supernet.architecture_parameters()
        found.append(Exact().gradients(problem, make_batch(10), make_batch(11), alphas).gradients)
    for everything, nothing in zip(*found, strict=True):
        torch.testing.assert_close(nothing, everything, rtol=1e-10, atol=0)


def test_a_network_without_any_gradient_is_no_nan(make_problem, make_batch):
    problem = make_problem(clip=ACTIVE, learned=("learning_rate",))
    labels = torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        problem.supernet.classifier.weight.zero_()
        problem.supernet.classifier.bias.copy_(torch.tensor([2000.0, 0.0, 0.0]))  # right beyond rounding
    batches = [Batch(make_batch(seed).inputs, labels) for seed in (10, 11)]
    for name, gradient in gradients_by_exact(problem, *batches).items():
        assert bool(torch.isfinite(gradient).all()), name


def test_single_precision_is_close_to_double(make_problem, make_batch):
    double, single = make_problem(filled=True, clip=ACTIVE), make_problem(filled=True, clip=ACTIVE)
    single.supernet.float()
    for state in single.optimiser.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].float()
    for problem in (double, single):
        problem.supernet.dropout.eval()  # its noise is another one in another precision
    exact = gradients_by_exact(double, make_batch(10), make_batch(11))
    found = gradients_by_exact(single, make_batch(10, torch.float32), make_batch(11, torch.float32))
    for name in exact.keys() - {"dropout"}:
        assert relative_error(found[name].double(), exact[name]) < 1e-3, name
