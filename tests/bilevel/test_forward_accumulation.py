"""Forward accumulation against reverse-mode differentiation through the same steps, written down independently."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.hyperparameters.kinds import group_of
from nas.hyperparameters.rules import CosineNormalised
from tests.problems import every_entry, momentum_buffers, problem_for

STEPS = 4
CLIP = 0.3


ENTRIES = every_entry(groups=("dense",))


@pytest.fixture(params=[None, CLIP], ids=["free", "clipped"])
def problem(request: pytest.FixtureRequest) -> BilevelProblem:
    augmentation = torch.Generator().manual_seed(5)
    return problem_for(relaxation="gumbel", clip=request.param, hyperparameters=ENTRIES, augmentation=augmentation)


def follow(problem: BilevelProblem, hypergradient: ForwardAccumulation, batches: list[Batch]) -> None:
    for number, batch in enumerate(batches):
        problem.schedule_factor = 1.0 - 0.1 * number
        stepped(problem, hypergradient, batch)


def stepped(problem: BilevelProblem, hypergradient: ForwardAccumulation, batch: Batch) -> int:
    """Take a weight step that ``hypergradient`` follows. Returns the passes that following it took."""
    step = problem.step(batch, keep_graph=True, second_order=True)
    return hypergradient.after_weight_step(problem, step, problem.hyperparameters.raw_parameters())


def gradients(problem: BilevelProblem, hypergradient: ForwardAccumulation, validation: Batch) -> dict[str, float]:
    raw = problem.hyperparameters.raw
    report = hypergradient.gradients(problem, validation, validation, list(raw.values()))
    return dict(zip(raw, map(float, report.gradients), strict=True))


@dataclass
class Reverse:
    """All steps as one graph, with a copy of every raw parameter for each of them."""

    problem: BilevelProblem
    batches: list[Batch]

    def __call__(self, validation: Batch) -> dict[str, list[Tensor]]:
        problem = self.problem
        copies = [
            {name: raw.detach().clone().requires_grad_() for name, raw in problem.hyperparameters.raw.items()}
            for _ in self.batches
        ]
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in problem.weights().items()}
        buffers: dict[str, Tensor] = {}
        for number, (batch, raw) in enumerate(zip(self.batches, copies, strict=True)):
            values = {name: entry.value(raw[name]) for name, entry in problem.hyperparameters.entries.items()}
            loss = problem.training_loss(weights, batch, values)
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            norm = torch.cat([gradient.flatten() for gradient in found]).norm()
            clip = problem.gradient_clip
            if clip is not None:
                assert norm > clip
                found = tuple(gradient * clip / (norm + 1e-6) for gradient in found)
            moved = {}
            for (name, weight), gradient in zip(weights.items(), found, strict=True):
                step = gradient + values["weight_decay"] * weight
                buffers[name] = step + values["momentum"] * buffers[name] if name in buffers else step
                factor = values["rate_factor_dense"] if group_of(weight) == "dense" else 1.0
                moved[name] = weight - (1.0 - 0.1 * number) * values["learning_rate"] * factor * buffers[name]
            weights = moved
        loss, _ = problem.validation_loss(weights, validation)
        names = list(copies[0])
        flat = torch.autograd.grad(loss, [raw[name] for raw in copies for name in names], materialize_grads=True)
        return {name: list(flat[index :: len(names)]) for index, name in enumerate(names)}


@pytest.mark.parametrize(
    ("horizon", "discount"), [(None, 1.0), (None, 0.7), (STEPS, 0.9), (2, 1.0), (3, 0.5), (1, 0.9)]
)
def test_it_agrees_with_reverse_mode_through_the_same_steps(horizon, discount, problem, make_batch):
    batches = [make_batch(seed) for seed in range(1, STEPS + 1)]
    noise = problem.noise_state()
    expected = Reverse(problem, batches)(make_batch(11))
    problem.repeat_noise(noise)
    hypergradient = ForwardAccumulation(horizon, discount)
    follow(problem, hypergradient, batches)
    covered = STEPS if horizon is None else (STEPS - 1) % horizon + 1  # since it last began anew
    for name, found in gradients(problem, hypergradient, make_batch(11)).items():
        parts = [float(part) * discount**ago for ago, part in enumerate(reversed(expected[name])) if ago < covered]
        assert found == pytest.approx(sum(parts), rel=1e-6), name
        assert abs(found) > 1e-9


def test_one_step_is_what_exact_finds_at_that_step(problem, make_batch):
    noise = problem.noise_state()
    raw = problem.hyperparameters.raw
    report = Exact().gradients(problem, make_batch(1), make_batch(11), list(raw.values()))
    expected = dict(zip(raw, map(float, report.gradients), strict=True))
    problem.repeat_noise(noise)
    hypergradient = ForwardAccumulation(1, 1.0)
    stepped(problem, hypergradient, make_batch(1))
    assert gradients(problem, hypergradient, make_batch(11)) == pytest.approx(expected, rel=1e-8)


def test_following_changes_nothing_and_the_step_is_the_usual_one(problem, make_batch):
    hypergradient = ForwardAccumulation()
    start = {name: entry.clone() for name, entry in problem.supernet.state_dict().items()}
    noise = problem.noise_state()
    step = problem.step(make_batch(1), keep_graph=True, second_order=True)
    after = problem.noise_state()
    state = {name: entry.clone() for name, entry in problem.supernet.state_dict().items()}
    buffers = momentum_buffers(problem)
    assert hypergradient.after_weight_step(problem, step, problem.hyperparameters.raw_parameters()) == len(ENTRIES)
    assert hypergradient.most_passes(len(ENTRIES)) == 1 + len(ENTRIES)
    assert all(torch.equal(entry, state[name]) for name, entry in problem.supernet.state_dict().items())
    assert all(torch.equal(one, other) for one, other in zip(after, problem.noise_state(), strict=True))
    assert all(weight.grad is None for weight in problem.weights().values())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in momentum_buffers(problem).items())
    problem.supernet.load_state_dict(start)
    problem.optimiser.state.clear()
    problem.repeat_noise(noise)
    usual = problem.step(make_batch(1))
    for one, other in ((step.loss, usual.loss), (step.logits, usual.logits), (step.norm, usual.norm)):
        torch.testing.assert_close(one.detach(), other, rtol=1e-12, atol=1e-12)
    for name, entry in problem.supernet.state_dict().items():
        torch.testing.assert_close(entry, state[name], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(one, other) for one, other in zip(after, problem.noise_state(), strict=True))


def test_before_the_first_step_and_after_a_restart_there_is_no_gradient(problem, make_batch):
    hypergradient = ForwardAccumulation()
    assert set(gradients(problem, hypergradient, make_batch(11)).values()) == {0.0}
    follow(problem, hypergradient, [make_batch(1)])
    assert set(gradients(problem, hypergradient, make_batch(11)).values()) != {0.0}
    hypergradient.forget()
    assert set(gradients(problem, hypergradient, make_batch(11)).values()) == {0.0}


def test_a_state_that_is_loaded_goes_on(problem, make_batch, tmp_path):
    hypergradient, other = ForwardAccumulation(3), ForwardAccumulation(3)
    assert (hypergradient.needs_graph, Exact().needs_graph) == ("always", "never")
    follow(problem, hypergradient, [make_batch(1), make_batch(2)])
    torch.save(hypergradient.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found = []
    step = problem.step(make_batch(3), keep_graph=True, second_order=True)
    noise = problem.noise_state()
    for one in (hypergradient, other):
        problem.repeat_noise(noise)
        one.after_weight_step(problem, step, problem.hyperparameters.raw_parameters())
        found.append(gradients(problem, one, make_batch(11)))
    assert found[0] == found[1]


def test_tangents_that_are_not_finite_are_dropped(problem, make_batch):
    hypergradient = ForwardAccumulation()
    follow(problem, hypergradient, [make_batch(1)])
    hypergradient._tangents["dropout"][0]["classifier.weight"][0, 0] = torch.inf
    stepped(problem, hypergradient, make_batch(2))
    found = gradients(problem, hypergradient, make_batch(11))
    assert found["dropout"] == 0.0
    assert found["momentum"] != 0.0


def test_the_cosine_is_that_of_the_validation_gradient_and_the_accumulated_change(problem, make_batch):
    hypergradient = ForwardAccumulation(None, 1.0)
    follow(problem, hypergradient, [make_batch(1), make_batch(2)])
    raw = problem.hyperparameters.raw["learning_rate"]
    noise = problem.noise_state()
    report = hypergradient.gradients(problem, make_batch(3), make_batch(11), [raw])
    problem.repeat_noise(noise)
    moved = torch.cat([entry.flatten() for entry in hypergradient._tangents["learning_rate"][0].values()])
    loss, _ = problem.validation_loss(problem.weights(), make_batch(11))
    slope = torch.cat([entry.flatten() for entry in torch.autograd.grad(loss, list(problem.weights().values()))])
    cosine = float(torch.dot(moved, slope) / (moved.norm() * slope.norm()))
    before = float(raw.detach())
    (raw.grad,) = report.gradients
    CosineNormalised(0.3).step(raw, report.sensitivity[raw] * report.validation_gradient_norm)
    assert float(raw.detach()) - before == pytest.approx(-0.3 * cosine)


@pytest.mark.parametrize("settings", [{"horizon": 0}, {"discount": 1.1}, {"discount": -0.1}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidValue):
        ForwardAccumulation(**settings)
