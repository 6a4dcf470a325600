"""What an edge has besides its operations: partial channels, an edge weight, an auxiliary skip."""

import math

import pytest
import torch
from torch import Tensor, nn

from nas.errors import InvalidValue
from nas.operations.cell_operations import MixedEdge
from nas.operations.edge_structure import EdgeStructure, PartialEdge, shuffled
from nas.operations.stochastic import GaussianNoise, set_noise_generator, without_noise

NAMES = ("max_pool_3x3", "skip_connect", "none")


def images(channels: int, side: int = 6) -> Tensor:
    return torch.randn(2, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("parts", [2, 3])
def test_shuffled_channels_come_from_the_parts_in_turn(parts: int) -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    width = 6 // parts
    expected = [part * width + place for place in range(width) for part in range(parts)]
    assert shuffled(x, parts).flatten().tolist() == expected


@pytest.mark.parametrize("stride", [1, 2])
def test_an_edge_with_partial_channels_mixes_the_first_part_and_passes_the_others(stride: int) -> None:
    edge = PartialEdge(NAMES, 8, stride, True, 4).double()
    x, weights = images(8), torch.tensor([0.2, 0.5, 0.3, 0.7], dtype=torch.float64)
    out = edge(x, weights)
    mixed = MixedEdge.forward(edge, x[:, :2], weights[:3])
    passed = x[:, 2:] if stride == 1 else nn.functional.max_pool2d(x[:, 2:], 2)
    assert torch.equal(out[:, ::4], mixed)  # the first part is every fourth channel, from the first on
    torch.testing.assert_close(out[:, 1::4], 0.7 * passed[:, :2])
    torch.testing.assert_close(out[:, 3::4], 0.7 * passed[:, 4:])


def test_odd_sides_are_halved_as_the_operations_halve_them() -> None:
    edge = PartialEdge(NAMES, 4, 2, True, 2).double()
    assert edge(images(4, 5), torch.ones(4, dtype=torch.float64)).shape == (2, 4, 3, 3)


def test_the_weights_have_a_column_for_everything_on_an_edge() -> None:
    structure = EdgeStructure(partial_channels=2, edge_normalisation=True, auxiliary_skip=True)
    operations = torch.tensor([[0.1, 0.9], [0.4, 0.6]])
    found = structure.weights(operations, torch.tensor([0.25, 0.75]), torch.tensor(0.5))
    expected = torch.tensor([[0.1, 0.9, 0.5, 1.0], [0.4, 0.6, 0.5, 1.0]]) * torch.tensor([[0.25], [0.75]])
    torch.testing.assert_close(found, expected)
    assert EdgeStructure().weights(operations, None, None) is operations


def test_with_partial_channels_the_auxiliary_skip_is_there_once() -> None:
    """It is one of the operations, on the channels that they see; the others pass as without it."""
    structure = EdgeStructure(partial_channels=2, auxiliary_skip=True)
    edge, x = structure.edge(("none",), 4, 1, True).double(), images(4)
    weights = structure.weights(torch.ones(1, 1, dtype=torch.float64), None, torch.tensor(0.6))[0]
    torch.testing.assert_close(edge(x, weights)[:, ::2], 0.6 * x[:, :2])
    torch.testing.assert_close(edge(x, weights)[:, 1::2], x[:, 2:])


def test_the_auxiliary_skip_decays_from_one_to_nothing() -> None:
    for decay, middle in {"linear": 0.5, "cosine": 0.5, "slow_cosine": math.sqrt(0.5)}.items():
        structure = EdgeStructure(auxiliary_skip=True, auxiliary_decay=decay)  # type: ignore[arg-type]
        weights = [structure.auxiliary_weight(progress / 4) for progress in range(5)]
        assert weights[0] == 1
        assert weights[2] == pytest.approx(middle)
        assert weights[4] == pytest.approx(0, abs=1e-15)
        assert weights == sorted(weights, reverse=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("partial_channels", 0), ("partial_channels", 2.0), ("edge_normalisation", 1), ("auxiliary_decay", "fast")],
)
def test_other_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=key):
        EdgeStructure(**{key: value})  # type: ignore[arg-type]


def test_only_what_is_not_usual_is_written_down() -> None:
    assert EdgeStructure().settings() == {}
    assert EdgeStructure(auxiliary_skip=True).settings() == {"auxiliary_skip": True}


@pytest.mark.parametrize("stride", [1, 2])
def test_noise_is_drawn_anew_from_its_generator_in_every_mode(stride: int) -> None:
    noise = GaussianNoise(stride)
    set_noise_generator(noise, torch.Generator().manual_seed(3))
    x = images(8, 40).requires_grad_()
    expected = torch.randn(2, 8, 40 // stride, 40 // stride, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    first = noise(x)
    assert torch.equal(first, expected)
    with without_noise(noise):  # it is no regularisation
        assert not torch.equal(noise.eval()(x), first)
    assert abs(float(first.detach().std()) - 1) < 0.05
    assert not torch.autograd.grad(first.sum(), x)[0].any()
