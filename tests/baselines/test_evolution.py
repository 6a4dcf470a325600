"""Aging evolution and the (mu + lambda) strategy against their definitions."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
from joint_spaces import SPACES, seeded
from scipy import stats

from nas.baselines.evolution import AgingEvolution
from nas.baselines.mu_plus_lambda import MuPlusLambda
from nas.baselines.population import Member, best_first, diversity
from nas.baselines.strategy import Scored, reflected
from nas.candidate import Candidate
from nas.errors import InvalidValue
from nas.signature import Signature
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace

LEAST_P = 1e-3


def step(strategy: AgingEvolution | MuPlusLambda, score: float | None = None) -> list[Candidate]:
    candidates = strategy.ask()
    scores = [sum(strategy.space.encode(one)) if score is None else score for one in candidates]
    strategy.tell([Scored(*pair) for pair in zip(candidates, scores, strict=True)])
    return candidates


def differing(space: SearchSpace, one: Candidate, other: Candidate) -> list[int]:
    pairs = zip(space.encode(one), space.encode(other), strict=True)
    return [entry for entry, (a, b) in enumerate(pairs) if abs(a - b) > 1e-9]


def test_the_oldest_member_dies_however_good_it_is() -> None:
    strategy = AgingEvolution(population=4, sample=2, space=SPACES["nasbench201"](), generator=seeded())
    assert len(step(strategy, score=100.0)) == 4
    for turn in range(4):
        assert [member.score for member in strategy.members].count(100.0) == 4 - turn
        assert len(step(strategy, score=float(turn))) == 1
    assert [member.score for member in strategy.members] == [0.0, 1.0, 2.0, 3.0]


def test_the_parent_is_the_best_of_a_sample() -> None:
    strategy = AgingEvolution(population=5, sample=3, space=SPACES["nasbench201"](), generator=seeded())
    step(strategy)
    strategy.members = [Member(member.vector, float(rank)) for rank, member in enumerate(strategy.members)]
    draws = 5000
    chosen = Counter(strategy.parent().score for _ in range(draws))
    expected = [draws * ((rank + 1) ** 3 - rank**3) / 5**3 for rank in range(5)]
    assert stats.chisquare([chosen[float(rank)] for rank in range(5)], expected).pvalue > LEAST_P


def test_one_edge_mutates_to_another_operation_all_equally_likely() -> None:
    strategy = AgingEvolution(space=SPACES["nasbench201"](), generator=seeded())
    parent = [0.0, 1.0, 2.0, 3.0, 4.0, 0.0]
    children = Counter(tuple(strategy.mutated(parent)) for _ in range(4800))
    assert len(children) == 6 * 4
    assert all(sum(a != b for a, b in zip(child, parent, strict=True)) == 1 for child in children)
    assert stats.chisquare(list(children.values())).pvalue > LEAST_P


def test_hyperparameters_mutate_as_often_as_any_choice_and_stay_in_their_range() -> None:
    space = SPACES["macro"]()
    strategy = AgingEvolution(step=0.5, space=space, generator=seeded())
    parent = strategy.random_vector()
    draws, moved = 3000, Counter[int]()
    for _ in range(draws):
        child = strategy.mutated(parent)
        (entry,) = [entry for entry, (a, b) in enumerate(zip(child, parent, strict=True)) if a != b]
        moved[entry] += 1
        assert 0 <= child[entry] <= (1 if entry >= len(strategy.sizes) else strategy.sizes[entry] - 1)
    assert set(moved) == set(range(strategy.length))
    assert stats.chisquare(list(moved.values())).pvalue > LEAST_P


def test_places_are_reflected_at_the_ends() -> None:
    assert [reflected(place) for place in (0.25, 1.25, -0.25, 2.25, -1.5)] == pytest.approx(
        [0.25, 0.75, 0.25, 0.25, 0.5]
    )


def test_plus_selection_keeps_the_best_of_both_generations() -> None:
    strategy = MuPlusLambda(parents=3, children=6, space=SPACES["macro"](), generator=seeded())
    seen: list[float] = []
    for turn in range(6):
        candidates = step(strategy)
        assert len(candidates) == (6 if turn else 3)
        seen += [sum(strategy.space.encode(one)) for one in candidates]
        assert [member.score for member in strategy.members] == sorted(seen, reverse=True)[:3]


def test_a_child_differs_from_its_parent() -> None:
    for name in ("macro", "nasbench201"):
        strategy = MuPlusLambda(parents=1, children=20, space=SPACES[name](), generator=seeded())
        (parent,) = step(strategy)
        assert all(differing(strategy.space, child, parent) for child in strategy.ask())


def test_steps_adapt_log_normally() -> None:
    """A child's step is its parent's times exp(tau0 * N0 + tau * N): log-normal, centred on the parent's."""
    strategy = MuPlusLambda(parents=1, children=400, step=0.05, space=SPACES["macro"](), generator=seeded())
    step(strategy)
    strategy.ask()
    children = strategy._pending
    places = len(strategy.continuous)
    assert places == 2
    variance = 1 / (2 * places) + 1 / (2 * math.sqrt(places))  # Beyer and Schwefel's tau0 ** 2 + tau ** 2 with c = 1
    for position in range(places):
        logs = [math.log(child[strategy.length + position] / 0.05) / math.sqrt(variance) for child in children]
        inner = [one for one in logs if 0.0011 < 0.05 * math.exp(one * math.sqrt(variance)) < 0.499]  # not at a bound
        assert len(inner) > 390
        assert stats.kstest(inner, "norm").pvalue > LEAST_P


def test_steps_shrink_towards_an_optimum() -> None:
    space = SPACES["macro"]()
    strategy = MuPlusLambda(space=space, generator=seeded())
    for _ in range(60):
        candidates = strategy.ask()
        scores = [-sum((place - 0.3) ** 2 for place in space.encode(one)[len(space.choices) :]) for one in candidates]
        strategy.tell([Scored(*pair) for pair in zip(candidates, scores, strict=True)])
    steps = [value for name, value in strategy.statistics().items() if name.startswith("population/step/")]
    assert len(steps) == 2
    assert max(steps) < 0.05 < strategy.step


def test_a_later_equal_goes_first() -> None:
    members = [Member([0.0], 1.0), Member([1.0], 2.0), Member([2.0], 2.0), Member([3.0], -math.inf)]
    assert [member.vector[0] for member in best_first(members)] == [2.0, 1.0, 0.0, 3.0]


def test_diversity_is_the_mean_share_of_differing_choices() -> None:
    assert diversity([[0.0, 0.0, 0.3], [0.0, 1.0, 0.3], [0.0, 2.0, 0.7]], 2) == 0.5
    assert diversity([[0.0, 0.0]], 2) == 0.0


@pytest.mark.parametrize(
    ("make", "settings", "key"),
    [
        (AgingEvolution, {"population": 1}, "population"),
        (AgingEvolution, {"sample": 0}, "sample"),
        (AgingEvolution, {"mutations": 0}, "mutations"),
        (AgingEvolution, {"batch": 0}, "batch"),
        (MuPlusLambda, {"parents": 0}, "parents"),
        (MuPlusLambda, {"step": 0.9}, "step"),
    ],
)
def test_impossible_settings_are_refused(make: type, settings: dict[str, float], key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        make(**settings, space=NasBench201(signature=Signature((3, 8, 8), 10)), generator=seeded())
    assert caught.value.key == key


@pytest.mark.parametrize("make", [AgingEvolution, MuPlusLambda])
def test_a_population_begins_with_what_was_enqueued(make: Callable[..., AgingEvolution | MuPlusLambda]) -> None:
    space = SPACES["macro"]()
    strategy = make(space=space, generator=seeded())
    strategy.enqueue({"learning_rate": 0.1, "batch_size": 16, "dropout": 0.4})
    first = step(strategy)[0]
    (member,) = [one for one in strategy.members if one.score == sum(space.encode(first))]
    options = [float(index) for index in space.encode(first)[: len(space.choices)]]
    assert member.vector[: strategy.length] == [*options, 0.0, 1.0, 0.5]
    assert member.vector[strategy.length :] == ([0.2, 0.2] if make is MuPlusLambda else [])  # the first step sizes
