"""The C++ kernels against PyTorch's operations: values, gradients and gradients of gradients."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from nas.operations.fast import library
from nas.operations.fast.activation import activated
from nas.operations.fast.chain import FastConvolution, FastPooling, FastSlot
from nas.operations.fast.depthwise import depthwise_convolution
from nas.operations.fast.mixed_pooling import Windows, mixed_poolings
from nas.operations.fast.mixture import Term, mixture, mixture_in_torch
from nas.operations.fast.normalisation import RunningAverages, Statistics
from nas.operations.fast.pooling import poolings, poolings_in_torch
from nas.operations.fast.separable import Kernel, Layer, _in_two_convolutions, separable, separable_in_torch
from nas.operations.mixed import ACTIVATIONS, MixedConvolution, MixedPooling, MixedSlot, pooling

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5}
WINDOWS = [
    Windows((2, 3), ("max", "average"), 2),
    Windows((5, 3, 1), ("average", "max"), 1),
    Windows((4, 15), ("max",), 2),
    Windows((3,), ("average",), 1),
    Windows((2, 1), ("max", "average"), 3),
]
KERNELS = [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2), (7, 1)]
GROUPS = [
    (Kernel(3, 1), Kernel(5, 2)),
    (Kernel(5, 1), Kernel(3, 2)),
    (Kernel(7, 1), Kernel(1, 1), Kernel(3, 1)),
    (Kernel(3, 2),),
]
NORMALISATIONS = ["none", "batch", "running"]


@pytest.fixture(autouse=True)
def _compiler(request: pytest.FixtureRequest) -> None:
    if "without_compiler" not in request.keywords and library.library() is None:
        pytest.skip("there is no C++ compiler here")


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def assert_close(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one / scale, other / scale, atol=TOLERANCES[dtype], rtol=0)


def derivatives(outs: Sequence[Tensor], leaves: Sequence[Tensor], third: bool) -> list[list[Tensor]]:
    """``outs``, their gradients, the gradients of those along some direction, and perhaps those of these.

    The first gradients are there twice: a backward pass that is not recorded is code of its own.
    """
    seed = 100
    towards = [drawn(seed + i, *out.shape, dtype=out.dtype) for i, out in enumerate(outs)]
    found = [list(outs), list(torch.autograd.grad(outs, leaves, towards, retain_graph=True))]
    gradients = torch.autograd.grad(outs, leaves, towards, create_graph=True)
    found.append(list(gradients))
    for more in (third, False)[: 1 + third]:
        seed += 100
        directions = [drawn(seed + i, *one.shape, dtype=one.dtype).detach() for i, one in enumerate(gradients)]
        sources = [*towards, *leaves]
        gradients = torch.autograd.grad(gradients, sources, directions, create_graph=more, materialize_grads=True)
        found.append(list(gradients))
    return found


def assert_derivatives_close(
    found: Sequence[Tensor], expected: Sequence[Tensor], leaves: Sequence[Tensor], dtype: torch.dtype, third: bool
) -> None:
    """The values, their gradients, the second and perhaps the third derivatives."""
    both = (derivatives(outs, leaves, third) for outs in (found, expected))
    for ones, others in zip(*both, strict=True):
        assert_close(ones, others, dtype)


def statistics_of(x: Tensor, of_batch: bool = True) -> Statistics:
    """Of ``x`` (batch, planes, H, W, C): its own, or running averages that are not."""
    variance, mean = (one.contiguous() for one in torch.var_mean(x.detach(), (0, 2, 3), correction=0))
    return Statistics(mean, variance, 1e-5, True) if of_batch else Statistics(mean + 0.3, variance + 1, 1e-5, False)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 23, 8, 6), (3, 16, 4, 1)])
def test_depthwise_convolution(
    shape: tuple[int, ...], kernel: tuple[int, int], stride: int, dtype: torch.dtype
) -> None:
    size, dilation = kernel
    padding = dilation * (size // 2)
    x, weight = drawn(0, *shape, dtype=dtype), drawn(1, shape[1], 1, size, size, dtype=dtype)
    expected = F.conv2d(x, weight, None, stride, padding, dilation, groups=shape[1])
    found = depthwise_convolution(x, weight, stride, padding, dilation)
    assert_derivatives_close([found], [expected], [x, weight], dtype, third=True)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_depthwise_convolution_with_any_padding(stride: int, padding: int, dtype: torch.dtype) -> None:
    x, weight = drawn(0, 1, 17, 6, 8, dtype=dtype), drawn(1, 17, 1, 3, 3, dtype=dtype)
    expected = F.conv2d(x, weight, None, stride, padding, 2, groups=17)
    found = depthwise_convolution(x, weight, stride, padding, 2)
    assert_derivatives_close([found], [expected], [x, weight], dtype, third=False)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_depthwise_derivatives(kernel: tuple[int, int], stride: int) -> None:
    size, dilation = kernel

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_convolution(x, weight, stride, dilation * (size // 2), dilation)

    inputs = (drawn(0, 1, 2, 4, 5), drawn(1, 2, 1, size, size))
    fast = size > 5  # one random direction instead of every number
    assert gradcheck(function, inputs, fast_mode=fast)
    assert gradgradcheck(function, inputs, fast_mode=fast)


@pytest.mark.without_compiler
@pytest.mark.parametrize("kernel", [(3, 1), (5, 2)])
def test_depthwise_convolution_in_half_precision_without_kernels(kernel: tuple[int, int]) -> None:
    size, dilation = kernel
    x = drawn(1, 2, 3, 8, 8, dtype=torch.float32).requires_grad_()
    weight = drawn(2, 3, 1, size, size, dtype=torch.float32).requires_grad_()
    padding = dilation * (size // 2)
    with library.without_kernels(), torch.autocast("cpu", torch.bfloat16):
        found = depthwise_convolution(x, weight, 1, padding, dilation)
        expected = F.conv2d(x, weight, None, 1, padding, dilation, groups=3)
    for one, other in zip(
        torch.autograd.grad(found.sum(), [x, weight]), torch.autograd.grad(expected.sum(), [x, weight]), strict=True
    ):
        assert torch.equal(one, other)


def separable_case(
    kernels: tuple[Kernel, ...], stride: int, normalisation: str, dtype: torch.dtype, channels: int, batch: int = 2
) -> tuple[Layer, Tensor, list[Tensor], list[Tensor]]:
    """Groups that read one plane where nothing is normalised, or otherwise each its own."""
    inputs = 1 if normalisation == "none" else len(kernels)
    x = drawn(0, batch, inputs, 7, 6, channels, dtype=dtype)
    depthwise = [drawn(1 + i, channels, 1, one.size, one.size, dtype=dtype) for i, one in enumerate(kernels)]
    pointwise = [drawn(5 + i, channels, channels, 1, 1, dtype=dtype) for i in range(len(kernels))]
    statistics = None if normalisation == "none" else statistics_of(x, normalisation == "batch")
    return Layer(kernels, stride, statistics), x, depthwise, pointwise


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("batch", "channels"), [(2, 5), (1, 32), (2, 19)])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", GROUPS)
def test_separable_layer(
    kernels: tuple[Kernel, ...], stride: int, normalisation: str, batch: int, channels: int, dtype: torch.dtype
) -> None:
    layer, x, depthwise, pointwise = separable_case(kernels, stride, normalisation, dtype, channels, batch)
    found, known = separable(x, layer, depthwise, pointwise)
    expected = separable_in_torch(x, layer, depthwise, pointwise)
    variance, mean = torch.var_mean(expected.detach(), (0, 2, 3), correction=0)
    assert known is not None
    assert_close(list(known), [mean, variance], dtype)
    assert_derivatives_close([found], [expected], [x, *depthwise, *pointwise], dtype, third=False)


@pytest.mark.parametrize("inputs", [1, 3])
def test_all_groups_in_two_convolutions(inputs: int) -> None:
    layer = Layer((Kernel(3, 2),) * 3, 2, None)
    x = drawn(0, 2, inputs, 7, 6, 4)
    depthwise = [drawn(1 + i, 4, 1, 3, 3) for i in range(3)]
    pointwise = [drawn(5 + i, 4, 4, 1, 1) for i in range(3)]
    found = _in_two_convolutions(F.relu(x).permute(0, 1, 4, 2, 3), layer, depthwise, pointwise)
    assert_close([found], [separable_in_torch(x, layer, depthwise, pointwise)], torch.float64)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", GROUPS)
def test_separable_derivatives(kernels: tuple[Kernel, ...], stride: int, normalisation: str) -> None:
    layer, x, depthwise, pointwise = separable_case(kernels, stride, normalisation, torch.float64, channels=2)
    with torch.no_grad():
        x.add_(0.2 * x.sign())  # away from the ReLU's kink
    constants = None if layer.statistics is None else statistics_of(x, of_batch=False)

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        statistics = statistics_of(x) if normalisation == "batch" else constants
        pair = weights[: len(kernels)], weights[len(kernels) :]
        return separable(x, Layer(kernels, stride, statistics), *pair)[0]

    leaves = (x, *depthwise, *pointwise)
    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 1, 7, 6, 5), (2, 1, 5, 5, 16), (1, 1, 4, 5, 23), (1, 1, 1, 1, 3)])
def test_poolings(shape: tuple[int, ...], stride: int, dtype: torch.dtype) -> None:
    x = drawn(0, *shape, dtype=dtype)
    with torch.no_grad():
        x.clamp_(-1, 1)  # equal values: the gradient belongs to the first of them
    pairs = poolings(x, stride)
    expected = poolings_in_torch(x, stride)
    for plane, known in pairs:
        variance, mean = torch.var_mean(plane.detach(), (0, 2, 3), correction=0)
        assert known is not None
        assert_close(list(known), [mean, variance], dtype)
    assert_derivatives_close([plane for plane, _ in pairs], expected, [x], dtype, third=False)


def test_a_nan_passes_the_maximum() -> None:
    x = drawn(0, 1, 1, 4, 4, 3).detach()
    x[0, 0, 1, 1, 1] = torch.nan
    torch.testing.assert_close(poolings(x, 1)[0][0], poolings_in_torch(x, 1)[0], equal_nan=True)


def terms(planes: list[Tensor], of_batch: bool) -> list[Term]:
    found = []
    for index, plane in enumerate(planes):
        statistics = statistics_of(plane, of_batch)
        if not of_batch:  # running averages: one row per edge, even where the plane is shared
            shift = torch.arange(2.0, dtype=plane.dtype)[:, None]
            statistics = Statistics(statistics.mean + shift, statistics.variance + shift, 1e-5, of_batch)
        found.append(Term(plane, statistics if index != 1 else None))
    return found


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("of_batch", [True, False])
@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (1, 2, 5, 23), (2, 4, 1, 16), (2, 3, 3, 1)])
@pytest.mark.parametrize("per_sample", [True, False])
def test_mixture(per_sample: bool, shape: tuple[int, ...], of_batch: bool, dtype: torch.dtype) -> None:
    batch, height, width, channels = shape
    planes = [drawn(i, batch, count, *shape[1:], dtype=dtype) for i, count in enumerate((2, 1, 1, 2))]
    planes[3] = drawn(8, batch, height, width, 2, channels, dtype=dtype).permute(0, 3, 1, 2, 4)  # any strides
    factors = drawn(7, batch if per_sample else 1, 2, 4, dtype=dtype)
    found, expected = (function(factors, terms(planes, of_batch)) for function in (mixture, mixture_in_torch))
    assert_derivatives_close(found, expected, [factors, *planes], dtype, third=False)

    def function(factors: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
        return tuple(mixture(factors, terms(list(planes), True)))

    if of_batch and dtype == torch.float64 and shape == (3, 3, 4, 5):
        assert gradcheck(function, (factors, *planes), fast_mode=True)
        assert gradgradcheck(function, (factors, *planes), fast_mode=True)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_more_terms_than_registers(dtype: torch.dtype) -> None:
    planes = [drawn(index, 2, 2, 3, 3, 4, dtype=dtype) for index in range(19)]
    factors = drawn(30, 1, 2, 19, dtype=dtype)
    found, expected = (function(factors, [Term(one) for one in planes]) for function in (mixture, mixture_in_torch))
    assert_derivatives_close(found, expected, [factors, *planes], dtype, third=True)


def test_partial_derivatives_where_one_input_comes_from_another() -> None:
    x, factors = drawn(0, 2, 1, 3, 3, 4), drawn(1, 1, 1, 2)

    def function(x: Tensor, factors: Tensor) -> Tensor:
        return mixture(factors, [Term(x), Term(x.square())])[0]

    assert gradcheck(function, (x, factors), fast_mode=True)
    assert gradgradcheck(function, (x, factors), fast_mode=True)


class Normalised(NamedTuple):
    """Inputs of :func:`activated`, those that have gradients first."""

    y: Tensor
    weight: Tensor
    bias: Tensor
    factors: Tensor
    norm: nn.BatchNorm2d
    functions: list[nn.Module]

    @classmethod
    def drawn(cls, names: Sequence[str], shape: tuple[int, ...], dtype: torch.dtype, training: bool) -> "Normalised":
        y, norm = drawn(0, *shape, dtype=dtype), nn.BatchNorm2d(shape[1], dtype=dtype).train(training)
        with torch.no_grad():
            y.flatten()[:4] = torch.tensor([0.0, 9.0, -9.0, 1e-6])  # kinks, straight lines, lost digits
        weight, bias = drawn(1, shape[1], dtype=dtype), drawn(2, shape[1], dtype=dtype)
        norm.weight, norm.bias = nn.Parameter(3 * weight.detach()), nn.Parameter(bias.detach())
        factors = drawn(3, len(names), shape[1], dtype=dtype)
        return cls(y, norm.weight, norm.bias, factors, norm, [ACTIVATIONS[name]() for name in names])

    def found(self) -> Tensor:
        return activated(self.y, self.norm, self.factors, self.functions)

    def expected(self) -> Tensor:
        z = self.norm(self.y)
        terms = [one[:, None, None] * function(z) for one, function in zip(self.factors, self.functions, strict=True)]
        return torch.stack(terms).sum(0)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("names", [*((name,) for name in ACTIVATIONS), tuple(ACTIVATIONS)])
@pytest.mark.parametrize("shape", [(2, 23, 3, 5), (6, 16, 1, 1), (1, 1, 4, 3)])
def test_activations(shape: tuple[int, ...], names: tuple[str, ...], training: bool, dtype: torch.dtype) -> None:
    results, statistics = [], []
    for function in (Normalised.found, Normalised.expected):
        case = Normalised.drawn(names, shape, dtype, training)
        results.append(derivatives([function(case)], case[:4], third=not training))
        statistics.append([entry for entry in case.norm.buffers() if entry.is_floating_point()])
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, dtype)
    assert_close(*statistics, dtype)


@pytest.mark.parametrize("places", [(0,), (3,), (1, 2), (0, 2)])
def test_activations_of_which_some_gradients_are_wanted(places: tuple[int, ...]) -> None:
    results = []
    for function in (Normalised.found, Normalised.expected):
        case = Normalised.drawn(("relu", "gelu"), (2, 5, 3, 3), torch.float64, training=True)
        for place, one in enumerate(case[:4]):
            one.requires_grad_(place in places)
        results.append(derivatives([function(case)], [case[place] for place in places], third=False))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, torch.float64)


def test_a_nan_passes_every_activation() -> None:
    for name in ACTIVATIONS:
        case = Normalised.drawn((name,), (2, 17, 1, 1), torch.float32, training=False)
        with torch.no_grad():
            case.y.fill_(torch.nan)
        assert case.found().isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (2, 16, 5, 5), (1, 23, 4, 6), (1, 3, 1, 1)])
def test_mixed_poolings(shape: tuple[int, ...], windows: Windows, dtype: torch.dtype) -> None:
    x = drawn(0, *shape, dtype=dtype)
    with torch.no_grad():
        x.clamp_(-1, 1)  # equal values: the gradient belongs to the first of them
    weights = drawn(1, len(windows.kinds), len(windows.sizes), dtype=dtype)
    found, expected = mixed_poolings(x, weights, windows), mixed_poolings_in_torch(x, weights, windows)
    assert_derivatives_close([found], [expected], [x, weights], dtype, third=True)


def mixed_poolings_in_torch(x: Tensor, weights: Tensor, windows: Windows) -> Tensor:
    pools = [
        weight * pooling(kind, size, windows.stride)(x)
        for kind, row in zip(windows.kinds, weights, strict=True)
        for size, weight in zip(windows.sizes, row, strict=True)
    ]
    return torch.stack(pools).sum(0)


@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_pooling_derivatives(stride: int) -> None:
    windows, x, weights = Windows((3, 2), ("average", "max"), stride), drawn(0, 1, 2, 4, 5), drawn(1, 2, 2)
    assert gradcheck(lambda *inputs: mixed_poolings(*inputs, windows), (x, weights))
    assert gradgradcheck(lambda *inputs: mixed_poolings(*inputs, windows), (x, weights))


def test_a_nan_passes_mixed_poolings() -> None:
    x = drawn(0, 1, 17, 5, 5).detach()
    x[:, :, 1, 1] = torch.nan
    windows, weights = WINDOWS[0], drawn(1, 2, 2).detach()
    found, expected = mixed_poolings(x, weights, windows), mixed_poolings_in_torch(x, weights, windows)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert not found.isnan().all()


Slot = tuple[dict[str, dict[str, Any]], bool, int]
CONVOLUTION = {"filters": (2, 7), "kernel_sizes": (3, 5), "activations": ("relu", "tanh")}
SLOTS: dict[str, Slot] = {
    "the widest last": ({"pool": {}, "convolution": CONVOLUTION}, False, 2),
    "optional": ({"convolution": CONVOLUTION, "pool": {"sizes": (3, 5)}}, True, 1),
    "the input is the widest": ({"convolution": {**CONVOLUTION, "filters": (2,)}}, True, 1),
    "two poolings": ({"pool": {}, "other": {"kinds": ("max",)}}, False, 3),
}


def slot(name: str, fast: bool, dtype: torch.dtype) -> tuple[MixedSlot, dict[str, dict[str, Tensor]]]:
    """The mixed layers in one place, for 3 channels, and the weights of what each has to choose from."""
    layers, optional, stride = SLOTS[name]
    made, weights, width = {}, {}, 3
    for seed, (label, settings) in enumerate(layers.items(), start=30):
        if "filters" in settings:
            kind: type[nn.Module] = FastConvolution if fast else MixedConvolution
            made[label] = kind(3, stride=stride, **settings)
            counts = {"filters": len(settings["filters"]), "kernel_size": 2, "activation": 2}
            width = max(width, *settings["filters"])
        else:
            kind, kinds = FastPooling if fast else MixedPooling, settings.get("kinds", ("max", "average"))
            made[label] = kind(settings.get("sizes", (2, 3)), kinds, stride)
            counts = {"pool_size": 2, "kind": len(kinds)}
        options = {attribute: count for attribute, count in counts.items() if count > 1}
        weights[label] = {one: drawn(seed, count, dtype=dtype) for one, count in options.items()}
    together = (FastSlot if fast else MixedSlot)(made, width, optional).to(dtype)
    for seed, one in enumerate(together.parameters(), start=40):
        one.data.copy_(drawn(seed, *one.shape, dtype=dtype).detach())
    return together, weights


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SLOTS)
def test_slots(name: str, batch: int, training: bool, dtype: torch.dtype) -> None:
    results = []
    for fast in (True, False):
        layers, weights = slot(name, fast, dtype)
        x, by_type = drawn(0, batch, 3, 7, 6, dtype=dtype), drawn(1, len(layers) + SLOTS[name][1], dtype=dtype)
        leaves = [x, by_type, *(one for own in weights.values() for one in own.values()), *layers.parameters()]
        results.append(derivatives([layers.train(training)(x, by_type, weights)], leaves, third=False))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, dtype)


Call = tuple[Callable[..., Sequence[Tensor]], list[tuple[int, ...]]]
KERNEL_CALLS: dict[str, Call] = {
    "depthwise": (lambda x, weight: [depthwise_convolution(x, weight, 2, 4, 2)], [(2, 19, 7, 6), (19, 1, 5, 5)]),
    "separable": (
        lambda x, *weights: [separable(x, Layer(GROUPS[0], 1, statistics_of(x)), weights[:2], weights[2:])[0]],
        [(2, 2, 7, 6, 5), (5, 1, 3, 3), (5, 1, 5, 5), (5, 5, 1, 1), (5, 5, 1, 1)],
    ),
    "poolings": (lambda x: [plane for plane, _ in poolings(x, 2)], [(2, 1, 7, 6, 19)]),
    "mixture": (
        lambda factors, *planes: mixture(factors, terms(list(planes), True)),
        [(2, 2, 3), (2, 2, 4, 3, 19), (2, 1, 4, 3, 19), (2, 2, 4, 3, 19)],
    ),
    "activation": (
        lambda y, factors: [activated(y, nn.BatchNorm2d(19, dtype=y.dtype), factors, [nn.ReLU(), nn.GELU()])],
        [(2, 19, 4, 3), (2, 19)],
    ),
    "mixed pooling": (lambda x, weights: [mixed_poolings(x, weights, WINDOWS[0])], [(2, 19, 7, 6), (2, 2)]),
}


def test_any_strides() -> None:
    """Of the inputs, of what comes back and of directions: the order of the axes in memory is turned round."""
    for function, shapes in KERNEL_CALLS.values():
        leaves, results = [drawn(seed, *shape) for seed, shape in enumerate(shapes)], []
        for turn in (lambda one: one, turned_in_memory):
            outs = function(*map(turn, leaves))
            towards = [turn(drawn(50 + i, *out.shape)) for i, out in enumerate(outs)]
            first = torch.autograd.grad(outs, leaves, towards, create_graph=True)
            directions = [turn(drawn(60 + i, *one.shape).detach()) for i, one in enumerate(first)]
            second = torch.autograd.grad(first, [*towards, *leaves], directions, materialize_grads=True)
            results.append([*outs, *first, *second])
        assert_close(results[1], results[0], torch.float64)


def turned_in_memory(one: Tensor) -> Tensor:
    axes = tuple(reversed(range(one.dim())))
    return one.permute(axes).contiguous().permute(axes)


def test_several_threads_give_the_same() -> None:
    threads = torch.get_num_threads()
    for function, shapes in KERNEL_CALLS.values():
        leaves, results = [drawn(seed, *shape) for seed, shape in enumerate(shapes)], []
        try:
            for number in (1, 2):
                torch.set_num_threads(number)
                results.append(derivatives(function(*leaves), leaves, third=False))
        finally:
            torch.set_num_threads(threads)
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected, torch.float64)


def test_running_averages_are_those_of_batch_norm() -> None:
    own, other = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, affine=False)
    for seed in range(3):
        x = drawn(seed, 2, 1, 3, 3, 4, dtype=torch.float32).detach()
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        averages = RunningAverages()
        averages.statistics([own], x, (mean, variance))
        averages.update()
        other(x.squeeze(1).permute(0, 3, 1, 2))
    for name, entry in own.state_dict().items():
        torch.testing.assert_close(entry, other.state_dict()[name])


@pytest.mark.without_compiler
def test_the_switch_and_a_missing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with library.without_kernels():
        assert not library.usable(torch.zeros(1))
    try:
        for name, value in (("NAS_KERNELS", "off"), ("PATH", str(tmp_path))):
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                library.library.cache_clear()
                assert library.library() is None
                assert not library.usable(torch.zeros(1))
    finally:
        library.library.cache_clear()


@pytest.mark.without_compiler
def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit 0\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.library.cache_clear()
    try:
        assert library.library() is None
    finally:
        library.library.cache_clear()


@pytest.mark.slow
def test_many_processes_may_build_at_once(tmp_path: Path) -> None:
    code = "from nas.operations.fast.library import library; import sys; sys.exit(0 if library() is not None else 1)"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": "."}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    try:  # on a busy machine each waits for a compiler as long as it may
        assert [one.wait(2 * library.LONGEST_BUILD) for one in running] == [0, 0, 0]
    finally:
        for one in running:
            one.kill()
    assert len(list((tmp_path / "nas").glob("kernels-*.so"))) == 1
    assert len(list((tmp_path / "nas").iterdir())) == 1
