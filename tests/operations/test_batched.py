"""The C++ kernels against PyTorch's operations: values, gradients and gradients of gradients."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from nas.operations.batched import library
from nas.operations.batched.activation import activated
from nas.operations.batched.depthwise import depthwise_convolution
from nas.operations.batched.mixed_pooling import Windows, mixed_poolings
from nas.operations.batched.mixture import Term, mixture, mixture_in_torch
from nas.operations.batched.normalisation import RunningAverages, Statistics
from nas.operations.batched.pooling import poolings, poolings_in_torch
from nas.operations.batched.separable import Kernel, Layer, _in_two_convolutions, separable, separable_in_torch
from nas.operations.mixed import ACTIVATIONS, pooling

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5}
WINDOWS = [
    Windows((2, 3), ("max", "average"), 2),
    Windows((5, 3, 1), ("average", "max"), 1),
    Windows((4, 15), ("max",), 2),
    Windows((3,), ("average",), 1),
]
KERNELS = [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2), (7, 1)]


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
    gradient = drawn(2, *expected.shape, dtype=dtype).detach()
    assert_close([found], [expected], dtype)
    assert_close(
        list(torch.autograd.grad(found, [x, weight], gradient)),
        list(torch.autograd.grad(expected, [x, weight], gradient)),
        dtype,
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_derivatives(kernel: tuple[int, int], stride: int) -> None:
    size, dilation = kernel

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_convolution(x, weight, stride, dilation * (size // 2), dilation)

    inputs = (drawn(0, 1, 2, 4, 5), drawn(1, 2, 1, size, size))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


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
    inputs: int, stride: int, dtype: torch.dtype, channels: int = 5
) -> tuple[Layer, Tensor, list[Tensor], list[Tensor]]:
    kernels = (Kernel(3, 1), Kernel(5, 2))
    x = drawn(0, 2, inputs, 7, 6, channels, dtype=dtype)
    depthwise = [drawn(1 + i, channels, 1, one.size, one.size, dtype=dtype) for i, one in enumerate(kernels)]
    pointwise = [drawn(5 + i, channels, channels, 1, 1, dtype=dtype) for i in range(2)]
    variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
    statistics = Statistics(mean, variance, 1e-5, of_batch=True) if inputs > 1 else None
    return Layer(kernels, stride, statistics), x, depthwise, pointwise


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("channels", [5, 32])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("inputs", [1, 2])
def test_separable_layer(inputs: int, stride: int, channels: int, dtype: torch.dtype) -> None:
    layer, x, depthwise, pointwise = separable_case(inputs, stride, dtype, channels)
    found, known = separable(x, layer, depthwise, pointwise)
    expected = separable_in_torch(x, layer, depthwise, pointwise)
    variance, mean = torch.var_mean(expected.detach(), (0, 2, 3), correction=0)
    assert known is not None
    assert_close([found, *known], [expected, mean, variance], dtype)
    gradient, leaves = drawn(9, *found.shape, dtype=dtype).detach(), [x, *depthwise, *pointwise]
    assert_close(
        list(torch.autograd.grad(found, leaves, gradient)), list(torch.autograd.grad(expected, leaves, gradient)), dtype
    )


@pytest.mark.parametrize("inputs", [1, 3])
def test_all_groups_in_two_convolutions(inputs: int) -> None:
    layer = Layer((Kernel(3, 2),) * 3, 2, None)
    x = drawn(0, 2, inputs, 7, 6, 4)
    depthwise = [drawn(1 + i, 4, 1, 3, 3) for i in range(3)]
    pointwise = [drawn(5 + i, 4, 4, 1, 1) for i in range(3)]
    found = _in_two_convolutions(F.relu(x).permute(0, 1, 4, 2, 3), layer, depthwise, pointwise)
    assert_close([found], [separable_in_torch(x, layer, depthwise, pointwise)], torch.float64)


@pytest.mark.parametrize("inputs", [1, 2])
def test_separable_derivatives(inputs: int) -> None:
    layer, x, depthwise, pointwise = separable_case(inputs, 2, torch.float64, channels=2)
    with torch.no_grad():
        x.add_(0.2 * x.sign())  # away from the ReLU's kink

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
        statistics = None if inputs == 1 else Statistics(mean, variance, 1e-5, of_batch=True)
        return separable(x, Layer(layer.kernels, 2, statistics), weights[:2], weights[2:])[0]

    leaves = (x, *depthwise, *pointwise)
    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 1, 7, 6, 5), (2, 1, 5, 5, 16), (1, 1, 1, 1, 3)])
def test_poolings(shape: tuple[int, ...], stride: int, dtype: torch.dtype) -> None:
    x = drawn(0, *shape, dtype=dtype)
    with torch.no_grad():
        x.clamp_(-1, 1)  # equal values: the gradient belongs to the first of them
    pairs = poolings(x, stride)
    expected = poolings_in_torch(x, stride)
    assert_close([pairs[0][0], pairs[1][0]], list(expected), dtype)
    for plane, known in pairs:
        variance, mean = torch.var_mean(plane.detach(), (0, 2, 3), correction=0)
        assert known is not None
        assert_close(list(known), [mean, variance], dtype)
    gradients = [drawn(3, *plane.shape, dtype=dtype).detach() for plane in expected]
    found = torch.autograd.grad([plane for plane, _ in pairs], [x], gradients)
    assert_close(list(found), list(torch.autograd.grad(expected, [x], gradients)), dtype)


def test_a_nan_passes_the_maximum() -> None:
    x = drawn(0, 1, 1, 4, 4, 3).detach()
    x[0, 0, 1, 1, 1] = torch.nan
    torch.testing.assert_close(poolings(x, 1)[0][0], poolings_in_torch(x, 1)[0], equal_nan=True)


def terms(planes: list[Tensor], of_batch: bool) -> list[Term]:
    found = []
    for index, plane in enumerate(planes):
        variance, mean = torch.var_mean(plane.detach(), (0, 2, 3), correction=0)
        if not of_batch:  # running averages: one row per edge, even where the plane is shared
            mean, variance = mean.expand(2, -1) + torch.arange(2.0)[:, None], variance.expand(2, -1) + 1
        found.append(Term(plane, Statistics(mean, variance, 1e-5, of_batch) if index != 1 else None))
    return found


@pytest.mark.parametrize("of_batch", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
def test_mixture(samples: int, of_batch: bool) -> None:
    planes = [drawn(index, 3, count, 3, 4, 5) for index, count in enumerate((2, 1, 1, 2))]
    planes[3] = drawn(8, 3, 3, 4, 2, 5).permute(0, 3, 1, 2, 4)  # any strides
    factors = drawn(7, samples, 2, 4)

    def outputs(kernels: bool) -> list[Tensor]:
        return (mixture if kernels else mixture_in_torch)(factors, terms(planes, of_batch))

    found, expected = outputs(True), outputs(False)
    assert_close(found, expected, torch.float64)
    gradients, leaves = [drawn(20 + i, *one.shape).detach() for i, one in enumerate(found)], [factors, *planes]
    assert_close(
        list(torch.autograd.grad(found, leaves, gradients)),
        list(torch.autograd.grad(expected, leaves, gradients)),
        torch.float64,
    )

    def function(factors: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
        return tuple(mixture(factors, terms(list(planes), True)))

    if of_batch:
        assert gradcheck(function, (factors, *planes), fast_mode=True)
        assert gradgradcheck(function, (factors, *planes), fast_mode=True)


def test_more_terms_than_registers() -> None:
    planes = [drawn(index, 2, 2, 3, 3, 4) for index in range(19)]
    factors = drawn(30, 1, 2, 19)
    found, expected = (function(factors, [Term(one) for one in planes]) for function in (mixture, mixture_in_torch))
    assert_close(found, expected, torch.float64)


def test_partial_derivatives_where_one_input_comes_from_another() -> None:
    x, factors = drawn(0, 2, 1, 3, 3, 4), drawn(1, 1, 1, 2)

    def function(x: Tensor, factors: Tensor) -> Tensor:
        return mixture(factors, [Term(x), Term(x.square())])[0]

    assert gradcheck(function, (x, factors), fast_mode=True)
    assert gradgradcheck(function, (x, factors), fast_mode=True)


def test_several_threads_give_the_same() -> None:
    layer, x, depthwise, pointwise = separable_case(2, 1, torch.float64)
    leaves, results, threads = [x, *depthwise, *pointwise], [], torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            y = separable(x, layer, depthwise, pointwise)[0]
            results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    assert_close(results[1], results[0], torch.float64)


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


def derivatives(out: Tensor, leaves: Sequence[Tensor], third: bool) -> list[list[Tensor]]:
    """``out``, its gradients, the gradients of those along some direction, and perhaps those of these."""
    found, seed = [[out]], 10
    leaves = [drawn(seed, *out.shape, dtype=out.dtype), *leaves]
    gradients = torch.autograd.grad(out, leaves[1:], leaves[0], create_graph=True)
    found.append(list(gradients))
    for more in (third, False)[: 1 + third]:
        seed += 10
        directions = [drawn(seed + i, *one.shape, dtype=one.dtype).detach() for i, one in enumerate(gradients)]
        gradients = torch.autograd.grad(gradients, leaves, directions, create_graph=more, materialize_grads=True)
        found.append(list(gradients))
    return found


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("names", [*((name,) for name in ACTIVATIONS), tuple(ACTIVATIONS)])
@pytest.mark.parametrize("shape", [(2, 23, 3, 5), (6, 16, 1, 1)])
def test_activations(shape: tuple[int, ...], names: tuple[str, ...], training: bool, dtype: torch.dtype) -> None:
    results, statistics = [], []
    for function in (Normalised.found, Normalised.expected):
        case = Normalised.drawn(names, shape, dtype, training)
        results.append(derivatives(function(case), case[:4], third=not training))
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
        results.append(derivatives(function(case), [case[place] for place in places], third=False))
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
@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (2, 16, 5, 5), (1, 3, 1, 1)])
def test_mixed_poolings(shape: tuple[int, ...], windows: Windows, dtype: torch.dtype) -> None:
    x = drawn(0, *shape, dtype=dtype)
    with torch.no_grad():
        x.clamp_(-1, 1)  # equal values: the gradient belongs to the first of them
    weights = drawn(1, len(windows.kinds), len(windows.sizes), dtype=dtype)
    found, expected = mixed_poolings(x, weights, windows), mixed_poolings_in_torch(x, weights, windows)
    assert_close([found], [expected], dtype)
    gradient = drawn(2, *expected.shape, dtype=dtype)
    first, others = (torch.autograd.grad(one, [x, weights], gradient, create_graph=True) for one in (found, expected))
    assert_close(list(first), list(others), dtype)
    directions = [drawn(3, *x.shape, dtype=dtype).detach(), drawn(4, *weights.shape, dtype=dtype).detach()]
    second, others = (torch.autograd.grad(one, [gradient, x, weights], directions) for one in (first, others))
    assert_close(list(second), list(others), dtype)


def mixed_poolings_in_torch(x: Tensor, weights: Tensor, windows: Windows) -> Tensor:
    pools = [
        weight * pooling(kind, size, windows.stride)(x)
        for kind, row in zip(windows.kinds, weights, strict=True)
        for size, weight in zip(windows.sizes, row, strict=True)
    ]
    return torch.stack(pools).sum(0)


def test_mixed_pooling_derivatives() -> None:
    windows, x, weights = Windows((3, 2), ("average", "max"), 2), drawn(0, 1, 2, 4, 5), drawn(1, 2, 2)
    assert gradcheck(lambda *inputs: mixed_poolings(*inputs, windows), (x, weights))
    assert gradgradcheck(lambda *inputs: mixed_poolings(*inputs, windows), (x, weights))


def test_a_nan_passes_mixed_poolings() -> None:
    x = drawn(0, 1, 17, 5, 5).detach()
    x[:, :, 1, 1] = torch.nan
    windows, weights = WINDOWS[0], drawn(1, 2, 2).detach()
    found, expected = mixed_poolings(x, weights, windows), mixed_poolings_in_torch(x, weights, windows)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert not found.isnan().all()


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
    code = "from nas.operations.batched.library import library; import sys; sys.exit(0 if library() is not None else 1)"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": "."}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [one.wait(300) for one in running] == [0, 0, 0]
    assert len(list((tmp_path / "nas").glob("kernels-*.so"))) == 1
    assert len(list((tmp_path / "nas").iterdir())) == 1
