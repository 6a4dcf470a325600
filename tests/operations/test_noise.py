"""Setting rates and switching noise off from outside."""

import pytest
import torch
from torch import nn

from nas.operations.stochastic import Dropout, DropPath, set_drop_path, set_dropout, set_noise_generator, without_noise


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.BatchNorm1d(4), Dropout(), DropPath())
    return nn.Sequential(inner, nn.Dropout(0.0), nn.Linear(4, 2), Dropout(0.1), DropPath(0.1))


def modes(module: nn.Module) -> list[bool]:
    return [one.training for one in module.modules()]


def test_dropout_rates_reach_every_dropout_layer_and_no_drop_path() -> None:
    one = network()
    set_dropout(one, 0.4)
    assert [module.rate for module in one.modules() if isinstance(module, Dropout)] == [0.4, 0.4]
    assert [module.rate for module in one.modules() if isinstance(module, DropPath)] == [0.0, 0.1]
    assert one[1].p == pytest.approx(0.4)


def test_drop_path_rates_reach_every_drop_path_layer_and_no_dropout() -> None:
    one = network()
    set_drop_path(one, 0.3)
    assert [module.rate for module in one.modules() if isinstance(module, DropPath)] == [0.3, 0.3]
    assert [module.rate for module in one.modules() if isinstance(module, Dropout)] == [0.0, 0.1]


def test_the_loss_is_differentiable_in_a_learned_rate_that_was_set() -> None:
    torch.manual_seed(0)
    one, rate = nn.Sequential(nn.Linear(4, 4), Dropout()), torch.tensor(0.4, requires_grad=True)
    set_dropout(one, rate)
    set_noise_generator(one, torch.Generator().manual_seed(0))
    one(torch.randn(16, 4)).square().mean().backward()
    assert rate.grad is not None
    assert float(rate.grad) != 0


def test_every_noisy_layer_draws_from_the_generator() -> None:
    one = network()
    set_dropout(one, 0.5)
    set_drop_path(one, 0.5)
    one[1].p = 0.0  # PyTorch's own draws from the global generator
    x = torch.randn(16, 4)
    results = []
    for seed in (1, 1, 2):
        set_noise_generator(one, torch.Generator().manual_seed(seed))
        before = torch.get_rng_state()
        results.append(one(x))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_without_noise_leaves_batch_norm_in_its_mode() -> None:
    torch.manual_seed(0)
    one = network()
    set_dropout(one, 0.5)
    set_drop_path(one, 0.5)
    plain = nn.Sequential(one[0][0], one[2])  # type: ignore[index]
    x = torch.randn(16, 4) * 3 + 1
    before = modes(one)
    with without_noise(one):
        assert torch.equal(one(x), plain(x)), "batch statistics, no noise"
        assert one[0][0].training  # type: ignore[index]
    assert modes(one) == before
    assert not torch.equal(one(x), plain(x)), "noise is back"


def test_without_noise_restores_what_was_whatever_happens() -> None:
    one = network()
    one[0].eval()
    before = modes(one)
    with pytest.raises(RuntimeError, match="on the way"), without_noise(one):
        raise RuntimeError("on the way")
    assert modes(one) == before
    assert True in before
    assert False in before
