"""REINFORCE: its estimate against the exact policy gradient, its policies, its baseline."""

import math
from itertools import product

import pytest
import torch
from joint_spaces import SPACES, seeded, small_space
from scipy import stats
from torch import Tensor

from nas.baselines.policy import Factorised, LSTMController, Policy, PolicySettings, place_entropy, place_of, z_of
from nas.baselines.reinforce import Reinforce
from nas.baselines.strategy import Scored
from nas.candidate import Range
from nas.errors import InvalidValue

SIZES = (2, 3, 2)
ACTIONS = torch.tensor(list(product(*map(range, SIZES))), dtype=torch.float64)
POLICIES: list[PolicySettings] = [Factorised(), LSTMController(hidden=5, initial=0.8)]


def disturbed(settings: PolicySettings, places: int = 0) -> Policy:
    """A policy that is not uniform any more."""
    policy = settings.policy(SIZES, places, seeded())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=seeded(1), dtype=torch.float64)
    return policy


def rewards(actions: Tensor) -> Tensor:
    return torch.sin(3 * actions[:, 0] + 2 * actions[:, 1] * actions[:, 2]) + actions[:, 1]


def gradient(value: Tensor, policy: Policy) -> Tensor:
    found = torch.autograd.grad(value, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


def reinforce(settings: PolicySettings, policy: Policy, **given: object) -> Reinforce:
    strategy = Reinforce(settings, space=small_space(list(SIZES)), generator=seeded(), **given)  # type: ignore[arg-type]
    strategy.policy = policy
    return strategy


@pytest.mark.parametrize("settings", POLICIES, ids=["factorised", "lstm"])
def test_probabilities_of_all_actions_add_up_to_one(settings: PolicySettings) -> None:
    policy = disturbed(settings)
    log_probabilities, entropies = policy.evaluate(ACTIONS)
    probabilities = log_probabilities.exp()
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-12)
    # the mean of the decisions' conditional entropies is the entropy of the whole (chain rule)
    whole = -(probabilities * log_probabilities).sum().item()
    assert (probabilities * entropies).sum().item() == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("settings", POLICIES, ids=["factorised", "lstm"])
def test_actions_are_drawn_with_the_policy_s_probabilities(settings: PolicySettings) -> None:
    policy = disturbed(settings)
    draws = 5000
    drawn = policy.sample(draws, seeded(2))
    counts = [int((drawn == action).all(1).sum()) for action in ACTIONS]
    assert sum(counts) == draws
    expected = draws * policy.evaluate(ACTIONS)[0].exp()
    assert stats.chisquare(counts, expected.tolist()).pvalue > 1e-3


@pytest.mark.parametrize("baseline", [0.0, 1.7])
@pytest.mark.parametrize("settings", POLICIES, ids=["factorised", "lstm"])
def test_the_gradient_estimate_is_unbiased(settings: PolicySettings, baseline: float) -> None:
    """Its expectation over all actions is the gradient of the expected reward, whatever the baseline."""
    policy = disturbed(settings)
    strategy = reinforce(settings, policy)
    probabilities = policy.evaluate(ACTIONS)[0].exp()
    exact = gradient((probabilities * rewards(ACTIONS)).sum(), policy)
    expectation = torch.zeros_like(exact)
    for action, probability in zip(ACTIONS, probabilities.detach(), strict=True):
        one = action.unsqueeze(0)
        estimate = gradient(strategy.surrogate(one, rewards(one) - baseline)[0], policy)
        expectation += probability * estimate
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(expectation, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", POLICIES, ids=["factorised", "lstm"])
def test_sampled_estimates_average_to_the_exact_gradient(settings: PolicySettings) -> None:
    """The same through ask and tell: drawn actions, the moving baseline, SGD steps from one and the same policy."""
    policy = disturbed(settings)
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    probabilities = policy.evaluate(ACTIONS)[0].exp()
    exact = gradient((probabilities * rewards(ACTIONS)).sum(), policy)
    strategy = reinforce(settings, policy, optimiser="sgd", rate=1.0, normalise=False, baseline_momentum=0.9)
    strategy.optimiser = torch.optim.SGD(policy.parameters(), lr=1.0)
    strategy.baseline = 0.5
    estimates = []
    for _ in range(500):
        (candidate,) = strategy.ask()
        vector = torch.tensor([strategy.space.encode(candidate)], dtype=torch.float64)
        strategy.tell([Scored(candidate, rewards(vector).item())])
        moved = [parameter.detach() - start[name] for name, parameter in policy.named_parameters()]
        estimates.append(torch.cat([one.flatten() for one in moved]))
        policy.load_state_dict(start)
    stacked = torch.stack(estimates)
    errors = (stacked.mean(0) - exact) / (stacked.std(0) / len(estimates) ** 0.5 + 1e-9)
    assert errors.abs().max() < 4.5


@pytest.mark.parametrize("settings", [Factorised(), LSTMController(initial=1e-6)], ids=["factorised", "lstm"])
def test_a_new_policy_is_uniform_over_the_joint_space(settings: PolicySettings) -> None:
    strategy = Reinforce(settings, batch=3000, space=SPACES["macro"](), generator=seeded())
    vectors = [strategy.space.encode(candidate) for candidate in strategy.ask()]
    filters = [vector[0] for vector in vectors]
    assert stats.chisquare([filters.count(index) for index in (0.0, 1.0, 2.0)]).pvalue > 1e-3
    for place in (-3, -1):  # learning rate and dropout, with the batch size between them
        assert stats.kstest([vector[place] for vector in vectors], "uniform").pvalue > 1e-3


def test_places_are_the_normal_distribution_function_of_what_is_drawn() -> None:
    for z in (-3.0, -0.5, 0.0, 1.2):
        assert place_of(z) == pytest.approx(stats.norm.cdf(z), abs=1e-15)


def test_a_place_s_entropy_is_that_of_its_density() -> None:
    """Against numerical integration of the density of ``place_of(z)`` for a Gaussian ``z``."""
    mean, deviation = 0.4, 0.6
    z = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    density_z = torch.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    log_ratio = (-0.5 * ((z - mean) / deviation) ** 2 - math.log(deviation)) + 0.5 * z**2  # density of the place
    expected = -torch.trapezoid(density_z * log_ratio, z)
    found = place_entropy(torch.tensor(mean), torch.tensor(math.log(deviation)))
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert place_entropy(torch.tensor(0.0), torch.tensor(0.0)).item() == 0.0


def test_the_baseline_is_the_moving_average_of_the_rewards_before() -> None:
    strategy = Reinforce(
        Factorised(), baseline_momentum=0.8, normalise=False, batch=2, space=small_space([2, 2]), generator=seeded()
    )
    expected = None
    for first, second in [(1.0, 3.0), (0.0, 1.0), (5.0, 4.0)]:
        advantages = strategy._advantages(torch.tensor([first, second], dtype=torch.float64))
        mean = (first + second) / 2
        before = mean if expected is None else expected
        assert advantages.tolist() == pytest.approx([first - before, second - before])
        expected = 0.8 * before + 0.2 * mean
        assert strategy.baseline == pytest.approx(expected)


def test_normalised_advantages_do_not_depend_on_the_unit_of_the_score() -> None:
    moved = []
    for unit in (1.0, 1000.0):
        strategy = Reinforce(Factorised(), optimiser="sgd", space=small_space([3, 3]), generator=seeded())
        for _ in range(10):
            (candidate,) = strategy.ask()
            strategy.tell([Scored(candidate, unit * sum(strategy.space.encode(candidate)))])
        moved.append(next(strategy.policy.parameters()).detach())
    torch.testing.assert_close(moved[0], moved[1])
    assert moved[0].abs().max() > 0


def test_the_entropy_bonus_keeps_the_policy_open() -> None:
    entropies = []
    for weight in (0.0, 1.0):
        strategy = Reinforce(Factorised(), entropy_weight=weight, space=small_space([4] * 4), generator=seeded())
        for _ in range(120):
            (candidate,) = strategy.ask()
            strategy.tell([Scored(candidate, sum(strategy.space.encode(candidate)))])
        entropies.append(strategy.statistics()["policy/entropy"])
    assert entropies[0] + 1 < entropies[1] < 4 * math.log(4)


@pytest.mark.parametrize("settings", [Factorised(), LSTMController()], ids=["factorised", "lstm"])
def test_it_finds_hyperparameters(settings: PolicySettings) -> None:
    space = small_space([2], {"dropout": Range(0.0, 1.0)})
    strategy = Reinforce(settings, rate=0.03, batch=4, space=space, generator=seeded())
    for _ in range(150):
        candidates = strategy.ask()
        strategy.tell([Scored(one, -((one.hyperparameters["dropout"] - 0.8) ** 2)) for one in candidates])
    values = [one.hyperparameters["dropout"] for one in strategy.ask()]
    assert sum(values) / len(values) == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rate": 0.0}, "rate"),
        ({"baseline_momentum": 1.0}, "baseline_momentum"),
        ({"entropy_weight": -1.0}, "entropy_weight"),
        ({"batch": 0}, "batch"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Reinforce(Factorised(), **settings, space=small_space([2]), generator=seeded())  # type: ignore[arg-type]
    assert caught.value.key == key


def test_a_policy_of_independent_choices_tells_the_probability_of_every_option() -> None:
    policy = disturbed(Factorised())
    marginals = policy.marginals()
    assert [len(row) for row in marginals] == list(SIZES)
    log_probabilities, _ = policy.evaluate(ACTIONS)
    joint = log_probabilities.exp().detach()
    for choice, row in enumerate(marginals):
        summed = [float(joint[ACTIONS[:, choice] == option].sum()) for option in range(SIZES[choice])]
        assert row == pytest.approx(summed)
    assert disturbed(LSTMController(hidden=5, initial=0.8)).marginals() == []


def test_a_learning_policy_records_its_probabilities_by_choice_and_option() -> None:
    space = small_space([2, 3])
    strategy = Reinforce(Factorised(), space=space, generator=seeded())
    strategy.tell([Scored(candidate, 0.5) for candidate in strategy.ask()])
    found = strategy.statistics()
    for choice in space.choices:
        values = [found[f"probability/{choice.name}/{option}"] for option in choice.options]
        assert sum(values) == pytest.approx(1)


@pytest.mark.parametrize("settings", POLICIES, ids=["factorised", "lstm"])
def test_it_learns_from_the_enqueued_values_as_if_it_had_drawn_them(settings: PolicySettings) -> None:
    """The gradient of the first update is that of the changed actions."""
    space = SPACES["macro"]()
    strategy = Reinforce(
        settings, "sgd", 1.0, normalise=False, entropy_weight=0.0, batch=3, space=space, generator=seeded()
    )
    strategy.enqueue({"learning_rate": 0.01, "batch_size": 64, "dropout": 0.9})
    drawn = strategy.propose()
    strategy.generator.manual_seed(0)
    settings.policy(strategy.sizes, 2, strategy.generator)  # what the constructor draws
    scored = [Scored(one, score) for one, score in zip(strategy.ask(), [3.0, 1.0, 2.0], strict=True)]
    choices = len(space.choices)
    actions = torch.tensor([vector[strategy.length :] for vector in drawn], dtype=torch.float64)
    actions[0, choices:] = torch.tensor([2.0, stats.norm.ppf(2 / 3), 3.0])  # the option, z, and z at the bound
    expected = gradient(strategy.surrogate(actions, torch.tensor([1.0, -1.0, 0.0]))[0], strategy.policy)
    before = torch.cat([one.detach().flatten() for one in strategy.policy.parameters()])
    strategy.tell(scored)
    after = torch.cat([one.detach().flatten() for one in strategy.policy.parameters()])
    assert torch.allclose(after - before, expected, atol=1e-12)
    assert expected.abs().max() > 0.1


def test_z_is_the_inverse_of_the_place_within_its_bound() -> None:
    for place in (0.002, 0.3, 0.5, 0.99):
        assert place_of(z_of(place)) == pytest.approx(place, abs=1e-12)
    assert (z_of(0.0), z_of(1.0)) == (pytest.approx(-3.0), pytest.approx(3.0))
