"""What holds for every strategy in every space."""

import io
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from joint_spaces import SPACES, STRATEGIES, seeded, small_space

from nas.baselines.strategy import EncodedStrategy, Scored, Strategy
from nas.candidate import Candidate, Range
from nas.errors import InvalidValue
from nas.signature import Signature
from nas.spaces.darts.choices import CELLS
from nas.spaces.darts.space import Darts
from nas.spaces.space import SearchSpace

Make = Callable[..., EncodedStrategy]


def score(candidate: Candidate, space: SearchSpace) -> float:
    """Best where every option is the last one and every hyperparameter in the middle of its range."""
    vector = space.encode(candidate)
    choices = len(space.choices)
    options = sum(index / max(1, len(choice.options) - 1) for index, choice in zip(vector, space.choices, strict=False))
    return options / max(1, choices) - sum((place - 0.5) ** 2 for place in vector[choices:])


def advance(strategy: Strategy, space: SearchSpace, rounds: int) -> list[Candidate]:
    asked = []
    for _ in range(rounds):
        candidates = strategy.ask()
        assert candidates
        asked += candidates
        strategy.tell([Scored(candidate, score(candidate, space)) for candidate in candidates])
    return asked


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint makes of ``state``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_candidates_are_valid(make_strategy: Make, space: SearchSpace) -> None:
    for candidate in advance(make_strategy(space=space, generator=seeded()), space, 12):
        candidate.architecture.check(space.choices)
        assert list(candidate.hyperparameters) == list(space.ranges)
        assert all(domain.contains(candidate.hyperparameters[name]) for name, domain in space.ranges.items())
        if isinstance(space, Darts):
            for cell in CELLS:
                edges = getattr(space.genotype(candidate.architecture), cell)
                sources = [source for _, source in edges]
                assert all(one != other for one, other in zip(sources[::2], sources[1::2], strict=True))


def test_the_same_seed_gives_the_same_candidates(make_strategy: Make, space: SearchSpace) -> None:
    runs = []
    for _ in range(2):
        runs.append(advance(make_strategy(space=space, generator=seeded(3)), space, 8))
        torch.rand(1), random.random()  # neither global generator may have a part in it
    assert runs[0] == runs[1]
    assert runs[0] != advance(make_strategy(space=space, generator=seeded(4)), space, 8)


def test_global_generators_are_left_alone(make_strategy: Make) -> None:
    space = SPACES["macro"]()
    random.seed(5)
    torch.manual_seed(5)
    python, pytorch = random.getstate(), torch.get_rng_state()
    advance(make_strategy(space=space, generator=seeded()), space, 4)
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), pytorch)


@pytest.mark.parametrize("pending", [False, True])
def test_a_restored_strategy_continues_identically(make_strategy: Make, space: SearchSpace, pending: bool) -> None:
    generator = seeded()
    strategy = make_strategy(space=space, generator=generator)
    advance(strategy, space, 6)
    asked = strategy.ask() if pending else []
    state = saved_and_loaded({"strategy": strategy.state_dict(), "generator": generator.get_state()})
    expected, statistics = advance(strategy, space, 6), strategy.statistics()

    restored_generator = seeded(99)
    restored = make_strategy(space=space, generator=restored_generator)
    restored.load_state_dict(state["strategy"])
    restored_generator.set_state(state["generator"])
    continued = advance(restored, space, 6)
    assert continued == expected
    assert continued[: len(asked)] == asked
    assert restored.statistics() == statistics


def test_what_is_pending_is_asked_for_again(make_strategy: Make) -> None:
    space = SPACES["macro"]()
    strategy = make_strategy(space=space, generator=seeded())
    assert strategy.ask() == strategy.ask()
    with pytest.raises(ValueError, match="pending"):
        strategy.tell([])


def test_failed_candidates_do_no_harm(make_strategy: Make) -> None:
    space = SPACES["macro"]()
    strategy = make_strategy(space=space, generator=seeded())
    for turn in range(6):
        candidates = strategy.ask()
        worst = float("-inf")
        scores = [worst if turn < 2 or index % 2 else score(one, space) for index, one in enumerate(candidates)]
        strategy.tell([Scored(one, value) for one, value in zip(candidates, scores, strict=True)])
    assert all(value == value and abs(value) < float("inf") for value in strategy.statistics().values())
    advance(strategy, space, 2)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ("random", "hyperband")])
def test_it_learns(name: str) -> None:
    space = SPACES["macro"]()
    strategy = STRATEGIES[name](space=space, generator=seeded())
    asked: list[Candidate] = []
    while len(asked) < 200:
        asked += advance(strategy, space, 1)
    scores = [score(candidate, space) for candidate in asked]
    assert sum(scores[-40:]) / 40 > sum(scores[:10]) / 10 + 0.05


@pytest.mark.parametrize(
    "degenerate",
    [
        small_space([1, 1], {"dropout": Range(0.0, 0.5)}),
        small_space([2]),
        Darts(steps=2, multiplier=2, operations=["skip_connect"], signature=Signature((3, 8, 8), 10)),
    ],
    ids=["no choice", "one choice", "choices with one option"],
)
def test_hardly_anything_to_search(make_strategy: Make, degenerate: SearchSpace) -> None:
    advance(make_strategy(space=degenerate, generator=seeded()), degenerate, 8)


def test_a_space_with_nothing_to_search_is_refused(make_strategy: Make) -> None:
    with pytest.raises(InvalidValue, match="nothing to search"):
        make_strategy(space=small_space([1, 1]), generator=seeded())


def test_categorical_hyperparameters_take_every_option_equally_often() -> None:
    space = SPACES["macro"]()
    strategy = STRATEGIES["random"](space=space, generator=seeded())
    sizes = [candidate.hyperparameters["batch_size"] for candidate in advance(strategy, space, 150)]
    counts = [sizes.count(size) for size in (16, 32, 64)]
    assert sum((count - 400) ** 2 / 400 for count in counts) < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


DEFAULTS = {"learning_rate": 0.005, "batch_size": 64, "dropout": 0.9, "weight_decay": 3e-4}  # the dropout is too large
FIRST = {"learning_rate": pytest.approx(0.005), "batch_size": 64, "dropout": pytest.approx(0.8)}


def test_the_first_candidate_has_the_enqueued_hyperparameters(make_strategy: Make) -> None:
    space = SPACES["macro"]()
    asked = {}
    for enqueued in (False, True):
        strategy = make_strategy(space=space, generator=seeded())
        if enqueued:
            strategy.enqueue(DEFAULTS)
        asked[enqueued] = strategy.ask()
        assert strategy.ask() == asked[enqueued]
    plain, changed = asked[False][0], asked[True][0]
    assert dict(changed.hyperparameters) == FIRST != dict(plain.hyperparameters)
    assert changed.architecture == plain.architecture
    assert asked[True][1:] == asked[False][1:]


@pytest.mark.parametrize("pending", [False, True])
def test_a_restored_strategy_has_enqueued_once(make_strategy: Make, pending: bool) -> None:
    """Whether the state was saved before the first ask or between it and the first tell."""
    space, generator = SPACES["macro"](), seeded()
    strategy = make_strategy(space=space, generator=generator)
    strategy.enqueue(DEFAULTS)
    if pending:
        strategy.ask()
    state = saved_and_loaded({"strategy": strategy.state_dict(), "generator": generator.get_state()})
    expected = advance(strategy, space, 6)

    restored = make_strategy(space=space, generator=generator)
    restored.enqueue(DEFAULTS)  # as the search does whenever it begins
    restored.load_state_dict(state["strategy"])
    generator.set_state(state["generator"])
    assert advance(restored, space, 6) == expected
    assert restored.statistics() == strategy.statistics()
    assert dict(expected[0].hyperparameters) == FIRST
    assert "enqueued" not in restored.state_dict()


def test_a_state_from_before_there_was_an_enqueued_one_is_loaded(make_strategy: Make) -> None:
    space = SPACES["macro"]()
    strategy = make_strategy(space=space, generator=seeded())
    state = strategy.state_dict()
    assert "enqueued" not in state
    strategy.enqueue(DEFAULTS)
    strategy.load_state_dict(state)
    assert dict(strategy.ask()[0].hyperparameters) != FIRST
