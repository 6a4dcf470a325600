"""The pass of the recurrent search cell: its written-out derivatives against those of PyTorch's operations."""

import pytest
import torch
from torch import Generator, Tensor, nn

from nas.operations.fast.library import library
from nas.operations.fast.recurrent_pass import RecurrentInputs, recurrent_pass, recurrent_pass_in_torch

LENGTH, ROWS, NODES = 3, 4, 3
CONCAT = (1, 3)


def numbers(*shape: int, seed: int) -> Tensor:
    drawn = torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_()


def inputs_of(width: int) -> RecurrentInputs:
    edges = [1, *range(NODES, 0, -1)]
    return RecurrentInputs(
        numbers(LENGTH, ROWS, 2 * width, seed=1),
        numbers(ROWS, width, seed=2),
        numbers(ROWS, width, seed=3),
        [numbers(width, many * 2 * width, seed=10 + many) for many in edges],
        [numbers(many, 4, seed=20 + many) for many in edges],
    )


def norm_of(width: int, training: bool) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=False).double().train(training)
    norm.running_mean, norm.running_var = numbers(width, seed=4).detach(), numbers(width, seed=5).detach().exp()
    return norm


@pytest.mark.skipif(library() is None, reason="no kernels")
@pytest.mark.parametrize("training", [True, False], ids=["own statistics", "running averages"])
def test_values_and_derivatives_are_those_of_torch(training: bool) -> None:
    width = 13  # whole vectors and single numbers
    results: list[list[Tensor]] = []
    for way in (recurrent_pass, recurrent_pass_in_torch):
        inputs, norm = inputs_of(width), norm_of(width, training)
        flat = inputs.flat()
        hidden = way(inputs, CONCAT, norm)
        towards = numbers(*hidden.shape, seed=6)
        first = torch.autograd.grad(hidden, flat, towards, create_graph=True)
        ways = [numbers(*one.shape, seed=30).detach() for one in first]
        along = torch.stack([(one * way).sum() for one, way in zip(first, ways, strict=True)]).sum()
        second = torch.autograd.grad(along, [towards, *flat])
        alone = torch.autograd.grad(way(inputs, CONCAT, norm).square().sum(), inputs.weights[1])
        averages = [buffer.double() for buffer in norm.buffers()]
        with torch.no_grad():
            assert torch.equal(way(inputs, CONCAT, norm_of(width, training)), hidden)
        results.append([hidden, *first, *second, *alone, *averages])
    for ours, theirs in zip(*results, strict=True):
        assert float((ours - theirs).detach().abs().max()) < 1e-10 * max(1.0, float(theirs.detach().abs().max()))
