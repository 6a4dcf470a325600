"""The Dirichlet relaxation: its samples, its pathwise gradient, and where its noise comes from."""

import pytest
import torch

from nas.relaxations.dirichlet import Dirichlet, concentration

ALPHA = torch.tensor([[0.5, -1.0, 2.0], [0.0, -3.0, 0.3]], dtype=torch.float64)
SAMPLES = 20_000


def relaxation(seed: int = 0) -> Dirichlet:
    made = Dirichlet()
    made.generator = torch.Generator().manual_seed(seed)
    return made


def test_the_concentration_is_elu_plus_one_and_never_rounded_to_zero() -> None:
    torch.testing.assert_close(concentration(ALPHA), torch.nn.functional.elu(ALPHA) + 1)
    assert float(concentration(torch.tensor(-40.0))) > 0
    alpha = torch.tensor([0.0, 200.0], requires_grad=True)
    assert torch.equal(torch.autograd.grad(concentration(alpha).sum(), alpha)[0], torch.ones(2))


def test_samples_lie_on_the_simplex_and_their_mean_is_the_probabilities() -> None:
    samples = relaxation()(ALPHA.expand(SAMPLES, 2, 3))
    torch.testing.assert_close(samples.sum(-1), torch.ones(SAMPLES, 2, dtype=torch.float64))
    assert float(samples.min()) >= 0
    torch.testing.assert_close(samples.mean(0), relaxation().probabilities(ALPHA), atol=0.01, rtol=0)


def test_the_gradient_is_that_of_pytorchs_own_distribution() -> None:
    """Both gradients belong to the sample, which is put into PyTorch's distribution by its own generator's state."""
    upstream = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.1, -1.0]], dtype=torch.float64)
    ours, theirs = (ALPHA.clone().requires_grad_() for _ in range(2))
    one = relaxation()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        expected = torch.distributions.Dirichlet(concentration(theirs)).rsample()
        torch.manual_seed(4)
        one.generator = None
        sample = one(ours)
    assert torch.equal(sample, expected)
    (sample * upstream).sum().backward()
    (expected * upstream).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_the_mean_gradient_is_that_of_the_mean() -> None:
    """The gradient of a function's mean, in closed form where the function is linear."""
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    alpha = ALPHA[0].clone().requires_grad_()
    found = torch.autograd.grad((relaxation(1)(alpha.expand(SAMPLES, 3)) @ factors).mean(), alpha)[0]
    expected = torch.autograd.grad(relaxation().probabilities(alpha) @ factors, alpha)[0]
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_it_is_never_differentiated_twice_in_silence() -> None:
    alpha = ALPHA.clone().requires_grad_()
    first = torch.autograd.grad(relaxation()(alpha).square().sum(), alpha, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="twice"):
        torch.autograd.grad(first.sum(), alpha)


def test_the_mixed_derivative_that_an_unrolled_step_needs_is_right() -> None:
    """d/dalpha of a gradient in another variable goes through the sample once."""
    alpha, weight = ALPHA[0].clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    sample = relaxation(2)(alpha)
    slope = torch.autograd.grad((sample * weight.square()).square().sum(), weight, create_graph=True)[0]
    found = torch.autograd.grad(slope, alpha, retain_graph=True)[0]
    by_hand = torch.autograd.grad(sample, alpha, 8 * sample.detach() * 0.7**3)[0]
    torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=1e-14)


def test_noise_comes_from_its_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (relaxation(seed)(ALPHA) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    one = relaxation(1)
    assert not torch.equal(one(ALPHA), one(ALPHA)), "each pass has its own noise"
    state = one.generator.get_state()  # type: ignore[union-attr]
    one.probabilities(ALPHA)
    assert torch.equal(one.generator.get_state(), state)  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before)
