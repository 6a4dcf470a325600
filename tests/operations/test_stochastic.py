"""Dropout and drop path: frequencies, means, gradients of the rate, and where the noise comes from."""

import pytest
import torch

from nas.operations.stochastic import Dropout, DropPath, StochasticLayer, keep_mask

SAMPLES = 200_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learned(rate: float) -> torch.Tensor:
    return torch.tensor(rate, dtype=torch.float64, requires_grad=True)


def ones(count: int = SAMPLES) -> torch.Tensor:
    return torch.ones(count, dtype=torch.float64)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_a_number_draws_a_hard_mask_with_its_frequency(rate: float) -> None:
    mask = keep_mask((SAMPLES,), rate, ones(), generator())
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - rate)}
    assert float((mask == 0).double().mean()) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / SAMPLES) ** 0.5)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95])
def test_a_concrete_mask_keeps_the_mean_and_nearly_the_frequency(rate: float) -> None:
    mask = keep_mask((SAMPLES,), learned(rate), ones(), generator()).detach()
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.03)
    assert float((mask * (1 - rate) < 0.5).double().mean()) == pytest.approx(rate, abs=0.005)
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1 / (1 - rate) + 1e-12


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_a_larger_learned_rate_drops_more(rate: float) -> None:
    """The kept share falls by one per unit of the rate, the mask's mean square, 1 / (1 - rate), rises."""
    value = learned(rate)
    mask = keep_mask((SAMPLES,), value, ones(), generator())
    kept = (mask * (1 - value)).mean()
    (slope,) = torch.autograd.grad(kept, value, retain_graph=True)
    assert float(slope) == pytest.approx(-1.0, abs=0.15)
    (slope,) = torch.autograd.grad(mask.square().mean(), value)
    assert float(slope) == pytest.approx(1 / (1 - rate) ** 2, rel=0.15)


def test_the_gradient_of_the_rate_given_the_noise() -> None:
    def masked(rate: torch.Tensor) -> torch.Tensor:
        return keep_mask((20,), rate, ones(20), generator(3))

    for rate in (0.2, 0.7):
        assert torch.autograd.gradcheck(masked, (learned(rate),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.99])
def test_learned_rates_at_the_ends_have_finite_masks_and_gradients(rate: float, dtype: torch.dtype) -> None:
    value = learned(rate)
    mask = keep_mask((10_000,), value, torch.ones(10_000, dtype=dtype), generator())
    mask.square().mean().backward()
    assert mask.dtype == dtype
    assert bool(mask.isfinite().all())
    assert value.grad is not None
    assert bool(value.grad.isfinite())
    if rate < 0.5:
        torch.testing.assert_close(mask.detach(), torch.ones_like(mask), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", [Dropout, DropPath])
def test_identity_in_evaluation_and_at_rate_0(layer: type[StochasticLayer]) -> None:
    x = torch.randn(4, 3)
    source = generator()
    state = source.get_state()
    for rate, training in [(0.5, False), (learned(0.5), False), (0.0, True)]:
        module = layer(0.0).train(training)
        module.rate, module.generator = rate, source
        assert module(x) is x
    assert torch.equal(source.get_state(), state), "nothing is drawn where nothing is dropped"


@pytest.mark.parametrize("layer", [Dropout, DropPath])
@pytest.mark.parametrize("rate", [0.5, learned(0.5)])
def test_noise_comes_from_the_layers_generator_alone(layer: type[StochasticLayer], rate: torch.Tensor | float) -> None:
    def once(seed: int) -> torch.Tensor:
        module = layer()
        module.rate, module.generator = rate, generator(seed)
        return module(torch.ones(50, 4))

    before = torch.get_rng_state()
    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_drops_elements_and_drop_path_samples() -> None:
    x = torch.ones(200, 3, 2, 2)
    by_element, by_sample = Dropout(0.5), DropPath(0.5)
    by_element.generator, by_sample.generator = generator(), generator()
    mixed = by_element(x).flatten(1)
    assert bool(((mixed.amin(1) == 0) & (mixed.amax(1) == 2)).any())
    rows = by_sample(x).flatten(1)
    assert torch.equal(rows.amin(1), rows.amax(1))
    assert set(rows.unique().tolist()) == {0.0, 2.0}
