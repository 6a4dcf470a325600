"""The Gumbel-softmax: frequencies, straight-through gradients and where its noise comes from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy import stats

from nas.configuration import build
from nas.errors import InvalidValue
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature

ALPHA = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
SAMPLES = 20_000


def relaxation(hard: bool, seed: int = 0, temperature: float = 0.5) -> GumbelSoftmax:
    made = GumbelSoftmax(Temperature(temperature, temperature), hard)
    made.generator = torch.Generator().manual_seed(seed)
    return made


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 5.0])
def test_the_largest_weight_is_an_option_as_often_as_softmax_says(hard: bool, temperature: float) -> None:
    chosen = relaxation(hard, temperature=temperature)(ALPHA.expand(SAMPLES, 4)).argmax(-1)
    counts = torch.bincount(chosen, minlength=4)
    expected = ALPHA.softmax(-1) * SAMPLES
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 0.01


def test_soft_weights_are_a_distribution_that_the_temperature_sharpens() -> None:
    weights = {t: relaxation(False, temperature=t)(ALPHA.expand(SAMPLES, 4)) for t in (0.1, 1.0, 10.0)}
    for one in weights.values():
        torch.testing.assert_close(one.sum(-1), torch.ones(SAMPLES, dtype=torch.float64))
        assert float(one.min()) >= 0
    largest = [float(one.max(-1).values.mean()) for one in weights.values()]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 0.9
    assert largest[2] < 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hard_weights_are_exactly_one_hot(dtype: torch.dtype) -> None:
    weights = relaxation(True)(ALPHA.to(dtype).expand(SAMPLES, 4))
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(weights.sum(-1), torch.ones(SAMPLES, dtype=dtype))


def test_hard_takes_the_option_and_the_gradient_of_soft() -> None:
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    results = []
    for hard in (False, True):
        alpha = ALPHA.clone().requires_grad_()
        weights = relaxation(hard, seed=3)(alpha)
        (weights @ factors).backward()
        results.append((weights.detach(), alpha.grad))
    (soft, soft_gradient), (hard, hard_gradient) = results
    assert int(soft.argmax()) == int(hard.argmax())
    assert soft_gradient is not None
    assert float(soft_gradient.norm()) > 1e-3
    assert torch.equal(soft_gradient, hard_gradient)


def test_the_gradient_given_the_noise() -> None:
    def with_fixed_noise(alpha: torch.Tensor) -> torch.Tensor:
        return relaxation(False, seed=5)(alpha)

    assert torch.autograd.gradcheck(with_fixed_noise, (ALPHA.clone().requires_grad_(),))


def test_noise_comes_from_its_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (relaxation(False, seed)(ALPHA) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    one = relaxation(False, 1)
    assert not torch.equal(one(ALPHA), one(ALPHA)), "each pass has its own noise"


def test_rows_have_their_own_noise() -> None:
    weights = relaxation(False)(ALPHA.expand(8, 4))
    assert len({tuple(row) for row in weights.tolist()}) == 8


def test_probabilities_have_no_noise() -> None:
    one = relaxation(True)
    state = one.generator.get_state()  # type: ignore[union-attr]
    assert torch.equal(one.probabilities(ALPHA), ALPHA.softmax(-1))
    assert torch.equal(one.generator.get_state(), state)  # type: ignore[union-attr]


def test_alpha_far_apart_gives_finite_weights_and_gradients() -> None:
    alpha = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    one = GumbelSoftmax(Temperature(0.1, 0.1), hard=True)
    one.generator = torch.Generator().manual_seed(0)
    weights = one(alpha)
    weights[0].backward()
    assert weights.tolist() == [1.0, 0.0, 0.0]
    assert alpha.grad is not None
    assert bool(alpha.grad.isfinite().all())


def test_advancing_follows_the_schedule() -> None:
    one = GumbelSoftmax(Temperature(4.0, 1.0, "linear"))
    assert one.temperature == 4.0
    one.advance(0.5)
    assert one.temperature == 2.5


def test_the_chosen_option_alone_may_contribute_to_the_gradient() -> None:
    factors = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    gradients = []
    for gradient in ("dense", "chosen_only"):
        one = GumbelSoftmax(Temperature(0.5, 0.5), True, gradient)  # type: ignore[arg-type]
        one.generator = torch.Generator().manual_seed(3)
        alpha = ALPHA.clone().requires_grad_()
        weights = one(alpha)
        chosen = int(weights.argmax())
        # What reaches alpha through the other options is kept away from the dense gradient by hand.
        seen = [index for index in range(4) if gradient == "chosen_only" or index == chosen]
        gradients.append(torch.autograd.grad((weights * factors)[seen].sum(), alpha)[0])
        assert set(weights.tolist()) == {0.0, 1.0}
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"gradient": "chosen_only"}, "gradient", "set hard=true"),
        ({"sampled": True}, "sampled", "set hard=true"),
        ({"hard": True, "sampled": True}, "sampled", "take chosen_only or official"),
        ({"hard": True, "gradient": "official"}, "gradient", "set sampled=true"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as caught:
        GumbelSoftmax(Temperature(), **settings)
    assert caught.value.key == key


def test_gdas_is_configured_as_published() -> None:
    path = Path(__file__).parents[2] / "conf"
    with initialize_config_dir(str(path), version_base="1.3"):
        found = build(compose("train_search", ["relaxation=gdas"]).relaxation, "relaxation")
    assert (found.hard, found.gradient, found.sampled) == (True, "official", True)
    assert [found.schedule.at(progress) for progress in (0.0, 1.0)] == pytest.approx([10.0, 0.1])
