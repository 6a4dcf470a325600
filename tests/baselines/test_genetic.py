"""The genetic algorithm's coding and operators against closed forms, and the algorithm on one-max."""

import random
from collections import Counter
from itertools import pairwise, product

import pytest
from joint_spaces import SPACES, seeded, small_space
from scipy import stats

from nas.baselines.genetic import BinaryCode, Chromosome, Genetic, GeneticOperators, sigma_scaled
from nas.baselines.population import python_random
from nas.baselines.strategy import Scored
from nas.errors import InvalidValue

OPERATORS = GeneticOperators()
DRAWS = 20_000
LEAST_P = 1e-3


def members(count: int) -> list[Chromosome]:
    """``count`` chromosomes that are told apart by their only gene."""
    return [Chromosome([float(index)]) for index in range(count)]


def counts(chosen: list[Chromosome], count: int) -> list[int]:
    found = Counter(int(one[0]) for one in chosen)
    return [found[index] for index in range(count)]


def test_roulette_frequencies_match_fitness_shares() -> None:
    scores = [0.2, 0.9, 0.4, 0.5, 0.95]
    fitness = sigma_scaled(scores)
    assert fitness[4] > fitness[1] > fitness[3] > fitness[2] > fitness[0]
    with python_random(seeded()):
        chosen = OPERATORS.roulette(members(5), DRAWS, scores)
    expected = [DRAWS * one / sum(fitness) for one in fitness]
    assert stats.chisquare(counts(chosen, 5), expected).pvalue > LEAST_P


def test_sigma_scaling_is_that_of_the_book_whatever_the_unit() -> None:
    scores = [1.0, 2.0, 3.0, 6.0]  # mean 3, variance 3.5
    expected = [max(0.1, 1 + (score - 3) / (2 * 3.5**0.5)) for score in scores]
    assert sigma_scaled(scores) == pytest.approx(expected)
    assert sigma_scaled([100 * score - 1000 for score in scores]) == pytest.approx(expected)
    assert sigma_scaled([2.0, 2.0]) == [1.0, 1.0]
    assert sigma_scaled([1.0, 3.0, float("-inf")]) == [0.5, 1.5, 0.1]
    assert min(sigma_scaled([0.0] + [1.0] * 50)) == 0.1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_tournament_selection_pressure(size: int) -> None:
    """Of n members that of rank i (0 is the best) wins with probability ((n - i) ** k - (n - i - 1) ** k) / n ** k."""
    count = 6
    scores = [float(-index) for index in range(count)]
    with python_random(seeded()):
        chosen = OPERATORS.tournament(members(count), DRAWS, scores, size)
    expected = [DRAWS * ((count - rank) ** size - (count - rank - 1) ** size) / count**size for rank in range(count)]
    assert stats.chisquare(counts(chosen, count), expected).pvalue > LEAST_P


def crossed(crossover: str, length: int, draws: int, **given: int) -> Counter[tuple[float, ...]]:
    """The first children of the parents 000... and 111..."""
    found: Counter[tuple[float, ...]] = Counter()
    with python_random(seeded()):
        for _ in range(draws):
            one, other = Chromosome([0.0] * length), Chromosome([1.0] * length)
            getattr(OPERATORS, crossover)(one, other, **given)
            assert [a + b for a, b in zip(one, other, strict=True)] == [1.0] * length  # nothing is lost
            found[tuple(one)] += 1
    return found


def assert_uniform(found: Counter[tuple[float, ...]], possible: set[tuple[float, ...]]) -> None:
    assert set(found) == possible
    assert stats.chisquare(list(found.values())).pvalue > LEAST_P


def test_single_point_crossover_cuts_everywhere_equally_often() -> None:
    possible = {(0.0,) * cut + (1.0,) * (5 - cut) for cut in range(1, 5)}
    assert_uniform(crossed("single_point", 5, 4000), possible)


def test_multi_point_crossover_exchanges_every_other_segment() -> None:
    possible = {
        child
        for child in product((0.0, 1.0), repeat=6)
        if child[0] == 0.0 and sum(a != b for a, b in pairwise(child)) == 3
    }
    assert len(possible) == 10  # 5 over 3
    assert_uniform(crossed("multi_point", 6, 4000, points=3), possible)


def test_two_point_crossover_exchanges_any_segment_behind_the_first_gene() -> None:
    possible = {(0.0,) * a + (1.0,) * (b - a) + (0.0,) * (5 - b) for a in range(1, 5) for b in range(a + 1, 6)}
    assert_uniform(crossed("multi_point", 5, 4000, points=2), possible)


def test_uniform_crossover_exchanges_each_gene_half_of_the_time() -> None:
    assert_uniform(crossed("uniform", 4, 6000), set(product((0.0, 1.0), repeat=4)))


@pytest.mark.parametrize("length", [1, 2])
def test_short_chromosomes_can_be_crossed(length: int) -> None:
    for crossover in ("single_point", "uniform"):
        crossed(crossover, length, 5)
    for points in (1, 2, 3):
        crossed("multi_point", length, 5, points=points)


def test_genes_mutate_at_their_rate() -> None:
    flips, moves, draws = 0, 0, 4000
    with python_random(seeded()):
        for _ in range(draws):
            genes = Chromosome([0.0, 1.0, 0.0, 0.5])
            OPERATORS.mutate_genes(genes, bits=3, rate=0.2, step=0.1)
            assert set(genes[:3]) <= {0.0, 1.0}
            assert 0 <= genes[3] <= 1
            flips += sum(a != b for a, b in zip(genes[:3], (0.0, 1.0, 0.0), strict=True))
            moves += genes[3] != 0.5
    assert stats.binomtest(flips, 3 * draws, 0.2).pvalue > LEAST_P
    assert stats.binomtest(moves, draws, 0.2).pvalue > LEAST_P


def test_python_random_is_left_as_it_was() -> None:
    random.seed(1)
    before = random.getstate()
    with python_random(seeded(5)):
        drawn = random.random()
    assert random.getstate() == before
    with python_random(seeded(5)):
        assert random.random() == drawn
    with python_random(seeded(6)):
        assert random.random() != drawn


def test_options_survive_their_binary_code() -> None:
    code = BinaryCode([5, 1, 2, 8])
    assert code.bits == 3 + 0 + 1 + 3
    assert code.genes([4.0, 0.0, 1.0, 3.0, 0.25]) == [1, 0, 0, 1, 0, 1, 1, 0.25]
    for options in product(range(5), range(1), range(2), range(8)):
        vector = [*map(float, options), 0.5]
        assert code.vector(code.genes(vector)) == vector
    for bits in product((0, 1), repeat=7):  # whatever mutation makes of the bits is an option
        assert all(0 <= option < size for option, size in zip(code.vector(bits), code.sizes, strict=True))


@pytest.mark.parametrize("selection", ["roulette", "tournament"])
@pytest.mark.parametrize("crossover", ["single_point", "multi_point", "uniform"])
def test_one_max_is_solved(selection: str, crossover: str) -> None:
    space = small_space([2] * 24)
    settings = {"selection": selection, "crossover": crossover, "population": 40}
    strategy = Genetic(**settings, space=space, generator=seeded())  # type: ignore[arg-type]
    best, evaluations = 0.0, 0
    while best < 24 and evaluations < 4000:
        candidates = strategy.ask()
        scores = [sum(space.encode(candidate)) for candidate in candidates]
        strategy.tell([Scored(*pair) for pair in zip(candidates, scores, strict=True)])
        best, evaluations = max(best, *scores), evaluations + len(scores)
    assert best == 24  # random search would need millions


def test_the_elite_survives_and_is_not_evaluated_again() -> None:
    space = SPACES["macro"]()
    strategy = Genetic(population=8, elite=2, random_mutation=1.0, space=space, generator=seeded())
    best_two, numbers = [0.0, 0.0], random.Random(0)
    for generation in range(5):
        candidates = strategy.ask()
        assert len(candidates) == (8 if generation == 0 else 6)
        scores = [numbers.random() for _ in candidates]
        strategy.tell([Scored(*pair) for pair in zip(candidates, scores, strict=True)])
        best_two = sorted([*best_two, *scores])[-2:]
        assert sorted(member.score for member in strategy.members)[-2:] == best_two
        assert len(strategy.members) == 8


def test_children_are_new_to_their_population() -> None:
    space = small_space([2, 2, 2, 2])  # 16 candidates
    strategy = Genetic(population=8, elite=0, random_mutation=0.0, space=space, generator=seeded())
    for _ in range(4):
        before = [tuple(member.vector) for member in strategy.members]
        candidates = strategy.ask()
        vectors = [tuple(space.encode(one)) for one in candidates]
        if before:
            assert not set(vectors) & set(before)
            assert len(set(vectors)) == 8
        strategy.tell([Scored(one, sum(space.encode(one))) for one in candidates])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"population": 1}, "population"),
        ({"elite": 20}, "elite"),
        ({"crossover_rate": 1.5}, "crossover_rate"),
        ({"gene_mutation": -0.1}, "gene_mutation"),
        ({"tournament_size": 0}, "tournament_size"),
        ({"crossover_points": 0}, "crossover_points"),
        ({"step": 0.0}, "step"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Genetic(**settings, space=SPACES["macro"](), generator=seeded())  # type: ignore[arg-type]
    assert caught.value.key == key


def test_children_inherit_what_was_enqueued() -> None:
    space = SPACES["macro"]()
    strategy = Genetic(
        population=4, elite=1, gene_mutation=0.0, random_mutation=0.0, distinct=False, space=space, generator=seeded()
    )
    strategy.enqueue({"learning_rate": 0.1, "batch_size": 64, "dropout": 0.4})
    first, *others = strategy.ask()
    strategy.tell([Scored(first, 1.0), *(Scored(other, 0.0) for other in others)])
    assert max(strategy.members, key=lambda member: member.score).vector[-3:] == [2.0, 1.0, 0.5]
    children = strategy.ask()
    assert any(dict(child.hyperparameters) == dict(first.hyperparameters) for child in children)
