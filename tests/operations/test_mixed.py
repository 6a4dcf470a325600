"""Mixed operations against explicit weighted sums, shapes, and channels that must stay zero."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.mixed import (
    ACTIVATIONS,
    MixedActivation,
    MixedConvolution,
    MixedDense,
    MixedPooling,
    WidthMask,
    padded_width,
    pooling,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(autouse=True)
def double_precision() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights(*numbers: float) -> Tensor:
    return torch.tensor(numbers)


def stir(normalisation: nn.Module) -> None:
    """Give a fresh batch norm factors, shifts and statistics that are not 1 and 0."""
    with torch.no_grad():
        for entry in normalisation.state_dict().values():
            if entry.is_floating_point():
                entry.copy_(torch.rand_like(entry) + 0.5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_a_mixed_convolution_is_the_weighted_sum_over_kernel_sizes_and_widths(stride: int, training: bool) -> None:
    filters, sizes, names = (2, 5, 3), (3, 1, 5), ("sigmoid", "relu")
    mixed = MixedConvolution(4, filters, sizes, stride, names)
    stir(mixed.normalisation)
    mixed.train(training)
    x = torch.randn(6, 4, 7, 9)
    by_width, by_size, by_name = weights(0.2, 0.7, 0.1), weights(0.5, 0.2, 0.3), weights(0.4, 0.6)
    reference = nn.BatchNorm2d(5).train(training)
    reference.load_state_dict(mixed.normalisation.state_dict())

    given = {"filters": by_width, "kernel_size": by_size, "activation": by_name}
    result = mixed(x, given)

    convolved = torch.zeros(6, 5, math.ceil(7 / stride), math.ceil(9 / stride))
    for weight, size in zip(by_size, sizes, strict=True):
        kernel = mixed.kernels[str(size)].weight
        assert isinstance(kernel, Tensor)
        convolved = convolved + weight * F.conv2d(x, kernel, stride=stride, padding=size // 2)
    normalised = reference(convolved)
    expected = torch.zeros_like(result)
    for (by, width), (weight, name) in itertools.product(
        zip(by_width, filters, strict=True), zip(by_name, names, strict=True)
    ):
        expected[:, :width] += by * weight * ACTIVATIONS[name]()(normalised)[:, :width]
    torch.testing.assert_close(result, expected, **EXACT)
    for name, entry in reference.state_dict().items():
        torch.testing.assert_close(mixed.normalisation.state_dict()[name], entry, **EXACT)


def test_attributes_without_a_choice_need_no_weights() -> None:
    mixed = MixedConvolution(3, (4,), (3,), 1, ("relu",)).eval()
    x = torch.randn(2, 3, 5, 5)
    kernel = mixed.kernels["3"].weight
    assert isinstance(kernel, Tensor)
    expected = F.relu(mixed.normalisation(F.conv2d(x, kernel, padding=1)))
    torch.testing.assert_close(mixed(x, {}), expected, **EXACT)


@pytest.mark.parametrize(
    ("sizes", "kinds", "stride"), [((2, 3), ("max", "average"), 2), ((1, 3, 5), ("average", "max"), 1)]
)
def test_mixed_pooling_is_the_weighted_sum_over_sizes_and_kinds(
    sizes: tuple[int, ...], kinds: tuple[str, ...], stride: int
) -> None:
    x = torch.randn(2, 3, 7, 9)
    by_size, by_kind = torch.rand(len(sizes)), torch.rand(len(kinds))
    result = MixedPooling(sizes, kinds, stride)(x, {"pool_size": by_size, "kind": by_kind})
    expected = sum(
        by_size[i] * by_kind[j] * pooling(kind, size, stride)(x)
        for (i, size), (j, kind) in itertools.product(enumerate(sizes), enumerate(kinds))
    )
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(result, expected, **EXACT)


def test_mixed_pooling_over_one_of_the_two() -> None:
    x, part = torch.randn(2, 3, 7, 9), weights(0.3, 0.7)
    sizes = MixedPooling((2, 3), ("max",), 2)(x, {"pool_size": part})
    torch.testing.assert_close(sizes, 0.3 * pooling("max", 2, 2)(x) + 0.7 * pooling("max", 3, 2)(x), **EXACT)
    kinds = MixedPooling((3,), ("max", "average"), 2)(x, {"kind": part})
    torch.testing.assert_close(kinds, 0.3 * pooling("max", 3, 2)(x) + 0.7 * pooling("average", 3, 2)(x), **EXACT)
    torch.testing.assert_close(MixedPooling((3,), ("max",), 2)(x, {}), pooling("max", 3, 2)(x), **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_mixed_dense_is_the_weighted_sum_over_units_and_activations(training: bool) -> None:
    mixed = MixedDense(6, (4, 2), ("tanh", "softplus")).train(training)
    stir(mixed.normalisation)
    reference = nn.BatchNorm1d(4).train(training)
    reference.load_state_dict(mixed.normalisation.state_dict())
    x, by_units, by_name = torch.randn(5, 6), weights(0.6, 0.4), weights(0.1, 0.9)
    result = mixed(x, {"units": by_units, "activation": by_name})
    normalised = reference(x @ mixed.linear.weight.T)
    activated = 0.1 * torch.tanh(normalised) + 0.9 * F.softplus(normalised)
    torch.testing.assert_close(result[:, :2], activated[:, :2], **EXACT)
    torch.testing.assert_close(result[:, 2:], 0.6 * activated[:, 2:], **EXACT)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_unused_channels_are_exactly_zero_behind_every_activation(name: str) -> None:
    one_hot = weights(1.0, 0.0)
    convolution = MixedConvolution(3, (2, 5), (3,), 1, (name,))
    dense = MixedDense(3, (2, 5), (name,))
    for training in (True, False):
        for module in (convolution, dense):
            stir(module.normalisation)
            module.train(training)
        images = convolution(torch.randn(4, 3, 6, 5), {"filters": one_hot})
        rows = dense(torch.randn(4, 3), {"units": one_hot})
        for result in (images, rows):
            assert torch.count_nonzero(result[:, 2:]) == 0
            assert torch.count_nonzero(result[:, :2]) > 0


def test_a_width_mask_by_hand() -> None:
    mask = WidthMask((1, 3, 2))
    result = mask(torch.ones(2, 3), weights(0.5, 0.2, 0.3))
    torch.testing.assert_close(result, weights(1.0, 0.5, 0.2).expand(2, 3), **EXACT)
    assert mask(torch.ones(2, 3, 4, 4), weights(0.5, 0.2, 0.3)).shape == (2, 3, 4, 4)
    assert not mask.state_dict(), "masks follow from the widths and are no state"


def test_weights_get_gradients_through_every_mixture() -> None:
    convolution = MixedConvolution(2, (1, 3), (1, 3), 2, ("sigmoid", "tanh"))
    pool = MixedPooling((2, 3), ("max", "average"), 2)
    dense = MixedDense(3 * 2 * 2, (2, 4), ("sigmoid", "tanh"))
    x = torch.randn(3, 2, 6, 7)

    def network(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
        hidden = convolution(x, {"filters": a, "kernel_size": b, "activation": c})
        hidden = pool(hidden, {"pool_size": d, "kind": e}).flatten(1)
        return dense(hidden, {"units": a, "activation": c}).sum(0)

    points = [torch.rand(2, requires_grad=True) for _ in range(5)]
    assert torch.autograd.gradcheck(network, points)


def test_padding_appends_zero_channels() -> None:
    x = torch.randn(2, 3, 4, 5)
    padded = padded_width(x, 5)
    assert torch.equal(padded[:, :3], x)
    assert padded.shape == (2, 5, 4, 5)
    assert torch.count_nonzero(padded[:, 3:]) == 0
    assert padded_width(x, 3) is x
    assert padded_width(x.flatten(2)[:, :, 0], 4).shape == (2, 4)


def brute_force_pooling(x: Tensor, kind: str, size: int, stride: int) -> Tensor:
    """Windows start ``(size - 1) // 2`` before each ``stride``-th pixel; what lies outside of the image is left out."""
    height, width = x.shape[2:]
    before = (size - 1) // 2
    result = x.new_zeros(*x.shape[:2], math.ceil(height / stride), math.ceil(width / stride))
    for i, j in itertools.product(range(result.shape[2]), range(result.shape[3])):
        top, left = i * stride - before, j * stride - before
        window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size].flatten(2)
        result[:, :, i, j] = window.amax(-1) if kind == "max" else window.mean(-1)
    return result


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 99])
def test_pooling_gives_half_of_any_side_rounded_up(kind: str, size: int) -> None:
    for height, width in [(1, 1), (1, 2), (2, 3), (3, 1), (4, 5), (7, 9), (8, 6), (28, 28)]:
        x = torch.randn(1, 2, height, width)
        result = pooling(kind, size, 2)(x)
        torch.testing.assert_close(result, brute_force_pooling(x, kind, size, 2), **EXACT)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_pooling_at_stride_1_keeps_the_resolution(kind: str, size: int) -> None:
    for height, width in [(1, 1), (2, 5), (7, 9)]:
        x = torch.randn(1, 2, height, width)
        torch.testing.assert_close(pooling(kind, size, 1)(x), brute_force_pooling(x, kind, size, 1), **EXACT)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_and_pooling_give_the_same_shape(stride: int) -> None:
    for height, width in [(1, 1), (1, 4), (5, 2), (7, 9)]:
        x = torch.randn(2, 3, height, width)
        expected = (2, 3, math.ceil(height / stride), math.ceil(width / stride))
        assert MixedConvolution(3, (3,), (1, 3, 7), stride, ("relu",)).eval()(
            x, {"kernel_size": weights(0.2, 0.3, 0.5)}
        ).shape == torch.Size(expected)
        sizes = (1, 3, 5) if stride == 1 else (1, 2, 3, 4, 5)
        pooled = MixedPooling(sizes, ("max",), stride)(x, {"pool_size": torch.ones(len(sizes))})
        assert pooled.shape == torch.Size(expected)


def test_mixed_activation_by_hand() -> None:
    x = torch.linspace(-3, 3, 11)
    mixed = MixedActivation(("relu", "sigmoid", "elu"))
    expected = 0.2 * F.relu(x) + 0.5 * torch.sigmoid(x) + 0.3 * F.elu(x)
    torch.testing.assert_close(mixed(x, weights(0.2, 0.5, 0.3)), expected, **EXACT)
    assert torch.equal(MixedActivation(("tanh",))(x, None), torch.tanh(x))
