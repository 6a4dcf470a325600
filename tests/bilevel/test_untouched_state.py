"""A hypergradient leaves weights, buffers, optimiser state and modes bit for bit as they were."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.bilevel.by_kind import ByKind
from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.implicit import ConjugateGradient, NeumannSeries
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.smoothed import Smoothed

HYPERGRADIENTS = {
    "first order": FirstOrder(),
    "finite difference": FiniteDifference(),
    "exact": Exact(),
    "neumann": NeumannSeries(2, 0.05),
    "conjugate gradient": ConjugateGradient(2),
    "by kind": ByKind(ConjugateGradient(2), Exact()),
    "smoothed": Smoothed(),
}


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: copied(entry) for name, entry in value.items()}
    return [copied(entry) for entry in value] if isinstance(value, list | tuple) else value


def everything(problem: BilevelProblem) -> dict[str, Any]:
    """Copies of all that must stay, the non-persistent buffers and the gradients of the weights included."""
    supernet = problem.supernet
    return copied(
        {
            "parameters": dict(supernet.named_parameters()),
            "buffers": dict(supernet.named_buffers()),
            "gradients": {name: weight.grad for name, weight in problem.weights().items()},
            "optimiser": problem.optimiser.state_dict(),
            "raw": dict(problem.hyperparameters.raw),
            "modes": {name: module.training for name, module in supernet.named_modules()},
            "requires_grad": {name: parameter.requires_grad for name, parameter in supernet.named_parameters()},
            "schedule_factor": problem.schedule_factor,
        }
    )


def assert_same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name, entry in one.items():
            assert_same(entry, other[name], f"{where}/{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, entry in enumerate(one):
            assert_same(entry, other[index], f"{where}/{index}")
    else:
        assert one == other, where


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel", "hard gumbel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS.values(), ids=HYPERGRADIENTS.keys())
def test_nothing_changes(hypergradient, dtype, relaxation, make_problem, make_batch):
    problem = make_problem(relaxation=relaxation, dtype=dtype, smooth=False, clip=0.1)
    for seed in (1, 2):
        problem.step(make_batch(seed, dtype))  # fills the momentum buffers and the running statistics
    supernet = problem.supernet
    supernet.slots["layer3"]["dense"].normalisation.eval()  # a frozen layer must not be thawed
    kept = [torch.full_like(weight, 7.0) for weight in supernet.weight_parameters()]
    for weight, gradient in zip(supernet.weight_parameters(), kept, strict=True):
        weight.grad = gradient
    identities = [*map(id, supernet.parameters()), *map(id, supernet.buffers())]
    before = everything(problem)
    assert len(before["buffers"]) > 4
    assert float(before["buffers"]["slots.layer1.conv.normalisation.num_batches_tracked"]) == 2

    targets = [*supernet.architecture_parameters(), *problem.hyperparameters.raw_parameters()]
    report = hypergradient.gradients(problem, make_batch(10, dtype), make_batch(11, dtype), targets)

    assert_same(before, everything(problem))
    assert identities == [*map(id, supernet.parameters()), *map(id, supernet.buffers())]
    assert all(weight.grad is one for weight, one in zip(supernet.weight_parameters(), kept, strict=True))
    for target, gradient in zip(targets, report.gradients, strict=True):
        assert target.grad is None
        assert (gradient.dtype, gradient.shape) == (target.dtype, target.shape)
        assert not gradient.requires_grad
    assert sum(report.passes) <= hypergradient.most_passes(len(targets))
    assert not report.validation_loss.requires_grad
    assert not report.validation_logits.requires_grad


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS.values(), ids=HYPERGRADIENTS.keys())
def test_the_next_weight_step_is_the_one_there_would_have_been(hypergradient, make_problem, make_batch):
    used, without = make_problem(smooth=False), make_problem(smooth=False)
    for problem in (used, without):
        problem.step(make_batch(1))
    targets = [*used.supernet.architecture_parameters(), *used.hyperparameters.raw_parameters()]
    hypergradient.gradients(used, make_batch(10), make_batch(11), targets)
    used.repeat_noise(without.noise_state())
    for problem in (used, without):
        problem.step(make_batch(2))
    assert_same(copied(used.supernet.state_dict()), copied(without.supernet.state_dict()))


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS.values(), ids=HYPERGRADIENTS.keys())
def test_the_modes_come_back_even_if_the_network_fails(hypergradient, make_problem, make_batch):
    problem = make_problem()
    before = everything(problem)["modes"]
    wrong = make_batch(11)._replace(inputs=torch.zeros(8, 2, 6, 6, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        hypergradient.gradients(problem, make_batch(10), wrong, problem.supernet.architecture_parameters())
    assert everything(problem)["modes"] == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS.values(), ids=HYPERGRADIENTS.keys())
def test_a_supernet_on_a_gpu_works_with_raw_parameters_on_the_cpu(hypergradient, make_problem, make_batch):
    gradients = {}
    for device in ("cpu", "cuda"):
        problem = make_problem(filled=True, clip=0.1)
        problem.supernet.to(device)
        for state in problem.optimiser.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].to(device)
        problem.supernet.dropout.eval()  # a GPU draws other noise
        training, validation = (
            type(batch)(*(entry.to(device) for entry in batch)) for batch in map(make_batch, (10, 11))
        )
        targets = [*problem.supernet.architecture_parameters(), *problem.hyperparameters.raw_parameters()]
        gradients[device] = hypergradient.gradients(problem, training, validation, targets).gradients
        assert [one.device for one in gradients[device]] == [target.device for target in targets]
        assert all(raw.device.type == "cpu" for raw in problem.hyperparameters.raw_parameters())
    for here, there in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(here, there.cpu(), rtol=1e-5, atol=1e-10)
