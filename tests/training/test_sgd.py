"""The weight step: the function against ``torch.optim.SGD`` and its derivatives, and the groups of the weights."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from nas.hyperparameters.kinds import GROUPS, group_of, learning_rates
from nas.training.sgd import grouped, set_step, sgd, take_step

FACTORS = {"rate_factor_convolution": 0.5, "rate_factor_dense": 3.0, "rate_factor_normalisation": 1.5}
CLIPS = pytest.mark.parametrize("max_norm", [None, 0.5, 1e3], ids=["free", "clipped", "clipping without effect"])
SHAPES = {"kernel": (2, 1, 2, 2), "matrix": (2, 3), "vector": (2,)}
STEP = ("learning_rate", "weight_decay", "momentum", *FACTORS)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def drawn(seed: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(one.shape, generator=generator, dtype=torch.float64) for name, one in like.items()}


class Both:
    """The same weights, moved by ``torch.optim.SGD`` and by :func:`sgd`."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.real = dict(network().double().named_parameters())
        self.optimiser = torch.optim.SGD(grouped(self.real.values()), lr=0.0, momentum=0.9)
        self.weights = {name: weight.detach().clone() for name, weight in self.real.items()}
        self.buffers: dict[str, Tensor] = {}

    def step(self, seed: int, values: Mapping[str, float], max_norm: float | None) -> None:
        gradients = drawn(seed, self.weights)
        self.weights, self.buffers = sgd(self.weights, gradients, self.buffers, values, max_norm)
        if values["momentum"] == 0:
            self.buffers = {}
        set_step(self.optimiser, values)
        norm = take_step(self.optimiser, list(self.real.values()), list(gradients.values()), max_norm)
        assert max_norm is None or (norm > max_norm) == (max_norm == 0.5)

    def assert_same(self) -> None:
        for name, weight in self.real.items():
            torch.testing.assert_close(weight.detach(), self.weights[name], rtol=1e-14, atol=1e-14, msg=name)
            assert weight.grad is None
            if self.buffers:
                buffer = self.optimiser.state[weight]["momentum_buffer"]
                torch.testing.assert_close(buffer, self.buffers[name], rtol=1e-14, atol=1e-14, msg=name)


@CLIPS
@pytest.mark.parametrize("momenta", [[0.0], [0.9], [0.9, 0.7, 0.85, 0.6, 0.95]], ids=["none", "fixed", "learned"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("factors", [{}, FACTORS], ids=["one rate", "rate factors"])
def test_the_real_step_is_the_function_from_the_first_step_on(
    factors: dict[str, float], decay: float, momenta: Sequence[float], max_norm: float | None
) -> None:
    both = Both()
    for number in range(5):
        values = {"learning_rate": 0.1 / (1 + number), "weight_decay": decay, **factors}
        both.step(number, {**values, "momentum": momenta[number % len(momenta)]}, max_norm)
        both.assert_same()


def test_a_missing_buffer_is_the_first_step_of_that_weight_alone() -> None:
    both, values = Both(), {"learning_rate": 0.1, "weight_decay": 0.3, "momentum": 0.9}
    for number in range(2):
        both.step(number, values, None)
    del both.buffers["3.weight"]
    del both.optimiser.state[both.real["3.weight"]]
    both.step(2, values, None)
    both.assert_same()
    zero = {name: torch.zeros_like(weight) for name, weight in both.weights.items()}
    gradients = drawn(3, both.weights)
    first, started = sgd(both.weights, gradients, {}, values), sgd(both.weights, gradients, zero, values)
    for one, other in zip(first, started, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


def flat(max_norm: float | None, *inputs: Tensor) -> tuple[Tensor, ...]:
    """:func:`sgd` of weights, gradients, buffers and what else acts on the step; weights and buffers after it."""
    parts = [dict(zip(SHAPES, inputs[start : start + len(SHAPES)], strict=True)) for start in (0, 3, 6)]
    moved, buffers = sgd(parts[0], parts[1], parts[2], dict(zip(STEP, inputs[9:], strict=True)), max_norm)
    return (*moved.values(), *buffers.values())


def flat_inputs() -> list[Tensor]:
    shapes = {name: torch.empty(shape) for name, shape in SHAPES.items()}
    tensors = [one for seed in range(3) for one in drawn(seed, shapes).values()]
    numbers = [0.1, 0.3, 0.9, *FACTORS.values()]
    return [*tensors, *(torch.tensor(number, dtype=torch.float64) for number in numbers)]


@CLIPS
def test_it_is_differentiable_twice_in_all_that_it_takes(max_norm: float | None) -> None:
    inputs = [one.requires_grad_() for one in flat_inputs()]
    assert torch.autograd.gradcheck(lambda *given: flat(max_norm, *given), inputs)
    assert torch.autograd.gradgradcheck(lambda *given: flat(max_norm, *given), inputs)


@CLIPS
def test_its_forward_mode_is_that_of_finite_differences(max_norm: float | None) -> None:
    inputs = flat_inputs()
    generator = torch.Generator().manual_seed(9)
    way = [torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in inputs]

    def slope(width: float) -> list[Tensor]:
        ends = [
            flat(max_norm, *(one + sign * width * w for one, w in zip(inputs, way, strict=True))) for sign in (1, -1)
        ]
        return [(ahead - behind) / (2 * width) for ahead, behind in zip(*ends, strict=True)]

    _, found = torch.func.jvp(lambda *given: flat(max_norm, *given), tuple(inputs), tuple(way))
    for one, wide, narrow in zip(found, slope(1e-3), slope(5e-4), strict=True):
        torch.testing.assert_close(one, (4 * narrow - wide) / 3, rtol=1e-9, atol=1e-9)


def test_a_gradient_of_zero_has_a_derivative_when_it_is_clipped() -> None:
    inputs = [one.requires_grad_() for one in flat_inputs()]
    with torch.no_grad():
        for gradient in inputs[3:6]:
            gradient.zero_()
    found = torch.autograd.grad(sum(one.sum() for one in flat(0.5, *inputs)), inputs)
    assert all(bool(one.isfinite().all()) for one in found)


def test_kernels_matrices_and_vectors():
    names = {name: group_of(weight) for name, weight in network().named_parameters()}
    assert names == {
        "0.weight": "convolution",
        "0.bias": "normalisation",
        "1.weight": "normalisation",
        "1.bias": "normalisation",
        "3.weight": "dense",
        "3.bias": "normalisation",
    }


def test_a_group_without_weights_is_left_out():
    assert [group["name"] for group in grouped(nn.Linear(2, 2).parameters())] == ["dense", "normalisation"]


def test_every_weight_is_in_one_group():
    one = network()
    members = [id(weight) for group in grouped(one.parameters()) for weight in group["params"]]
    assert sorted(members) == sorted(map(id, one.parameters()))


def test_a_group_steps_at_the_common_rate_times_its_factor():
    values = {"learning_rate": 0.1, "rate_factor_dense": 3.0, "momentum": 0.0, "weight_decay": 0.5}
    assert learning_rates(values) == {"convolution": 0.1, "dense": pytest.approx(0.3), "normalisation": 0.1}
    one = network()
    optimiser = torch.optim.SGD(grouped(one.parameters()), lr=0.0, momentum=0.9)
    set_step(optimiser, values)
    before = {name: weight.detach().clone() for name, weight in one.named_parameters()}
    for weight in one.parameters():
        weight.grad = torch.ones_like(weight)
    optimiser.step()
    for name, weight in one.named_parameters():
        rate = 0.3 if name == "3.weight" else 0.1
        torch.testing.assert_close(weight, before[name] - rate * (1 + 0.5 * before[name]))
    assert {group["momentum"] for group in optimiser.param_groups} == {0.0}
    set_step(optimiser, {"learning_rate": 0.1})
    assert {group["momentum"] for group in optimiser.param_groups} == {0.0}  # its own, where none is given
    assert [group["lr"] for group in optimiser.param_groups] == [0.1] * len(GROUPS)


@CLIPS
def test_a_weight_without_a_gradient_stays_with_its_momentum(max_norm: float | None) -> None:
    """As an operation's that was not sampled: it neither decays nor follows its momentum."""
    both, values = Both(), {"learning_rate": 0.1, "weight_decay": 0.3, "momentum": 0.9}
    both.step(0, values, None)
    before, buffer = both.weights["3.weight"].clone(), both.buffers["3.weight"].clone()
    gradients = {name: gradient for name, gradient in drawn(1, both.weights).items() if name != "3.weight"}
    both.weights, both.buffers = sgd(both.weights, gradients, both.buffers, values, max_norm)
    set_step(both.optimiser, values)
    take_step(both.optimiser, list(both.real.values()), [gradients.get(name) for name in both.real], max_norm)
    both.assert_same()
    assert torch.equal(both.weights["3.weight"], before)
    assert torch.equal(both.buffers["3.weight"], buffer)
