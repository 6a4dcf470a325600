"""Hyperband: the sizes of its brackets, and survivors that are known by hand."""

import pytest
from joint_spaces import SPACES, seeded, small_space

from nas.baselines.hyperband import Hyperband
from nas.baselines.strategy import Scored
from nas.errors import InvalidValue


def hyperband(rungs: list[int], epochs: int, reduction: int = 3) -> Hyperband:
    return Hyperband(rungs, epochs, reduction, space=SPACES["macro"](), generator=seeded())


@pytest.mark.parametrize(
    ("rungs", "epochs", "reduction", "sizes"),
    [
        ([1, 3, 9, 27], 81, 3, [81, 34, 15, 8, 5]),  # Algorithm 1 of the paper with R = 81 and eta = 3
        ([1, 4, 16], 64, 4, [64, 22, 8, 4]),
        ([1, 3], 9, 3, [9, 5, 3]),
        ([1], 2, 3, [3, 2]),  # 4 / (1 + 2 / 3), 4 / 2
        ([2, 4], 8, 3, [6, 4, 3]),  # 24 / (2 + 4 / 3 + 8 / 9), 24 / (4 + 8 / 3), 24 / 8
    ],
)
def test_every_bracket_asks_for_its_number_of_candidates(
    rungs: list[int], epochs: int, reduction: int, sizes: list[int]
) -> None:
    strategy = hyperband(rungs, epochs, reduction)
    for size in [*sizes, sizes[0]]:  # after the last bracket the first one comes again
        asked = strategy.ask()
        assert len(asked) == size
        strategy.tell([Scored(one, 0.0) for one in asked])


def test_candidates_are_compared_from_their_bracket_s_first_rung_on() -> None:
    strategy = hyperband([1, 3], 9)
    scores = {0: 0.5, 1: 0.9, 2: 0.1, 3: 0.6, 4: 0.9, 5: 0.2, 6: 0.3, 7: 0.4, 8: 0.7}
    expected = [
        ([1, 4, 8], [1]),  # the earlier one of two equals
        ([0, 1, 2, 3, 4], [1]),  # five candidates: all reach the second rung, one in three goes on
        ([0, 1, 2], [0, 1, 2]),  # three full trainings
    ]
    for first, second in expected:
        asked = strategy.ask()
        assert strategy.survivors(0, {key: scores[key] for key in range(len(asked))}) == first
        assert strategy.survivors(1, {key: scores[key] for key in first}) == second
        strategy.tell([Scored(one, scores[key]) for key, one in enumerate(asked)])


def test_a_bracket_that_the_budget_has_cut_is_learned_from() -> None:
    strategy = hyperband([1, 3], 9)
    asked = strategy.ask()
    strategy.tell([Scored(one, 0.0) for one in asked[:4]])
    assert len(strategy.ask()) == 5
    with pytest.raises(ValueError, match="pending"):
        strategy.tell([Scored(one, 0.0) for one in asked])


@pytest.mark.parametrize(
    ("settings", "key", "sentence"),
    [
        ({"rungs": []}, "rungs", r"evaluation\.epochs=9 'evaluation\.rungs=\[1,3\]'"),
        ({"reduction": 1}, "reduction", "2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], key: str, sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence) as caught:
        Hyperband(**{"rungs": [1], "epochs": 3, **settings}, space=small_space([2]), generator=seeded())  # type: ignore[arg-type]
    assert caught.value.key == key
