"""The largest eigenvalue of the validation loss in alpha, against the whole Hessian by automatic differentiation."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from nas.bilevel.curvature import alpha_hessian, largest_eigenvalue
from nas.operations.fast.library import without_kernels
from nas.signature import Signature
from tests.problems import CELL_SPACES, INPUT_SHAPE, batch_for, entries, problem_over, seeded_supernet


def test_products_are_those_of_the_whole_hessian(make_problem) -> None:
    problem, batch = make_problem(), batch_for(3)
    supernet = problem.supernet
    names = list(supernet.alpha)

    def loss(*alphas: Tensor) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        given = {f"alpha.{name}": alpha for name, alpha in zip(names, alphas, strict=True)}
        supernet.dropout.rate = 0.0
        with without_kernels():
            return F.cross_entropy(functional_call(supernet, {**given, **buffers}, (batch.inputs,)), batch.targets)

    alphas = tuple(alpha.detach().clone() for alpha in supernet.alpha.values())
    blocks = torch.autograd.functional.hessian(loss, alphas)
    expected = torch.cat([torch.cat(list(row), dim=1) for row in blocks])
    product, size = alpha_hessian(problem, batch)
    found = torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, _ = largest_eigenvalue(product, start, size)
    assert value == pytest.approx(float(torch.linalg.eigvalsh(expected)[-1]), rel=1e-9)


@pytest.mark.parametrize("name", CELL_SPACES)
def test_fast_cells_bend_as_plain_ones_do(name: str) -> None:
    vectors = []
    for implementation in ("plain", "fast"):
        space = CELL_SPACES[name](signature=Signature(INPUT_SHAPE, 3), implementation=implementation)
        supernet, _ = seeded_supernet(space)
        product, size = alpha_hessian(problem_over(supernet, entries([])), batch_for(3))
        vectors.append(product(torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)))
    assert torch.allclose(*vectors, rtol=1e-9, atol=1e-12)


def symmetric(values: list[float]) -> Tensor:
    torch.manual_seed(7)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T


@pytest.mark.parametrize(
    "values",
    [[3.0, 1.0, -5.0, 0.5], [2.0, 2.0, 2.0, 2.0], [-1.0, -2.0, -3.0, -4.0], [0.0, 0.0, 0.0, 0.0], [1.0]],
    ids=["mixed", "equal", "negative", "zero", "one"],
)
def test_lanczos_finds_the_largest_not_the_longest(values: list[float]) -> None:
    matrix = symmetric(values)
    start = torch.linspace(1, 2, len(values), dtype=torch.float64)
    value, products = largest_eigenvalue(matrix.matmul, start, 10)
    assert value == pytest.approx(max(values), abs=1e-10)
    assert products <= len(values)


def test_few_products_give_many_digits() -> None:
    values = [5.0, *[1.0 / (1 + place) for place in range(60)]]
    matrix = symmetric(values)
    start = torch.randn(61, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    value, products = largest_eigenvalue(matrix.matmul, start, 12)
    assert products == 12
    assert value == pytest.approx(5.0, rel=1e-8)


def test_what_is_not_finite_gives_no_number() -> None:
    value, _ = largest_eigenvalue(lambda vector: vector * torch.nan, torch.ones(3, dtype=torch.float64), 3)
    assert value != value
