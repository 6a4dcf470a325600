"""Cell operations: shapes, affine parameters, and what each computes."""

import pytest
import torch
from torch import nn

from nas.operations.cell_operations import CELL_OPERATIONS, FactorisedReduction, MixedEdge, Zero


@pytest.mark.parametrize("name", CELL_OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_output_has_the_inputs_channels_and_its_sides_divided_rounding_up(name: str, stride: int) -> None:
    operation = CELL_OPERATIONS[name](6, stride, True)
    for height, width in [(8, 8), (7, 9), (1, 2)]:
        shape = operation(torch.randn(2, 6, height, width)).shape
        assert shape == (2, 6, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("name", CELL_OPERATIONS)
def test_only_affine_batch_norms_have_parameters(name: str) -> None:
    for affine in (True, False):
        operation = CELL_OPERATIONS[name](4, 2, affine)
        norms = [module for module in operation.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(norm.affine is affine for norm in norms)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # depthwise and pointwise, twice, and two batch norms of 2 C
        ("sep_conv_5x5", 2 * (25 * 8 + 64) + 4 * 8),
        ("dil_conv_3x3", 9 * 8 + 64 + 2 * 8),
        ("conv_7x1_1x7", 2 * 7 * 64 + 2 * 8),
        ("nor_conv_3x3", 9 * 64 + 2 * 8),
        ("max_pool_3x3", 0),
        ("skip_connect", 0),
        ("none", 0),
    ],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    operation = CELL_OPERATIONS[name](8, 1, True)
    assert sum(parameter.numel() for parameter in operation.parameters()) == parameters


def test_average_pooling_does_not_count_padding() -> None:
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(CELL_OPERATIONS["avg_pool_3x3"](2, 1, True)(ones), ones)


def test_dilated_convolution_sees_every_other_pixel() -> None:
    operation = CELL_OPERATIONS["dil_conv_3x3"](1, 1, False).eval()
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 4] = 1
    with torch.no_grad():
        operation[1].weight.fill_(1.0)
        reached = operation[1](image)[0, 0].nonzero()
    assert {tuple(place) for place in reached.tolist()} == {(y, x) for y in (2, 4, 6) for x in (2, 4, 6)}


@pytest.mark.parametrize("side", [6, 7])
def test_factorised_reduction_loses_no_pixel(side: int) -> None:
    reduction = FactorisedReduction(1, 2, affine=False).eval()
    with torch.no_grad():
        reduction.even.weight.fill_(1.0)
        reduction.odd.weight.fill_(1.0)
    image = torch.rand(1, 1, side, side).requires_grad_()
    reduction(image).sum().backward()
    assert image.grad is not None
    # Even positions reach the first half of the channels, odd ones the second; mixed parities reach neither.
    reached = image.grad[0, 0] != 0
    assert bool(reached[::2, ::2].all())
    assert bool(reached[1::2, 1::2].all())


def test_factorised_reduction_takes_odd_widths() -> None:
    assert FactorisedReduction(3, 5, affine=True)(torch.randn(2, 3, 4, 4)).shape == (2, 5, 2, 2)


def test_zero_keeps_its_input_in_the_graph() -> None:
    image = torch.randn(1, 2, 4, 4).requires_grad_()
    output = Zero(2)(image)
    (gradient,) = torch.autograd.grad(output.sum(), image)
    assert not output.any()
    assert not gradient.any()


def test_mixed_edge_is_the_weighted_sum() -> None:
    names = ["none", "max_pool_3x3", "skip_connect", "dil_conv_5x5"]
    edge = MixedEdge(names, 4, 2, normalise_pooling=True)
    x, weights = torch.randn(3, 4, 6, 6), torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = sum(weight * operation(x) for weight, operation in zip(weights, edge.operations, strict=True))
    assert torch.allclose(edge(x, weights), expected, atol=1e-6)


def test_pooling_is_normalised_only_on_request() -> None:
    x, weights = 5 + torch.randn(8, 2, 6, 6), torch.tensor([1.0])
    normalised = MixedEdge(["avg_pool_3x3"], 2, 1, normalise_pooling=True)(x, weights)
    plain = MixedEdge(["avg_pool_3x3"], 2, 1, normalise_pooling=False)(x, weights)
    assert abs(float(normalised.mean())) < 1e-5
    assert float(plain.mean()) > 4


def test_drop_path_spares_the_identity() -> None:
    edge = MixedEdge(["skip_connect", "max_pool_3x3"], 2, 1, normalise_pooling=False)
    edge.drop_path.rate = 0.5
    edge.drop_path.generator = torch.Generator().manual_seed(0)
    x = torch.rand(64, 2, 4, 4) + 0.1
    assert torch.equal(edge(x, torch.tensor([1.0, 0.0])), x)
    pooled = edge(x, torch.tensor([0.0, 1.0])).flatten(1)
    dropped = (pooled == 0).all(dim=1)
    assert 0 < int(dropped.sum()) < 64
    assert torch.equal((pooled == 0).any(dim=1), dropped)
