"""Which rows go into which part: shares, groups that stay together, and cuts in order."""

import pytest
import torch
from torch import Tensor

from nas.data.row_split import Parts, Rows, RowSplit, drawn_parts, exchangeable
from nas.errors import InvalidValue, UnusableInput


def sizes(parts: Parts) -> tuple[int, int, int]:
    together = torch.cat(list(parts))
    assert len(together.unique()) == len(together)  # they are disjoint
    return len(parts.train), len(parts.validation), len(parts.test)


@pytest.mark.parametrize(
    ("split", "own", "expected"),
    [
        (RowSplit(), {}, (60, 20, 20)),
        (RowSplit(validation=0.1, test=30), {}, (60, 10, 30)),
        (RowSplit(train=40, test=0.25), {}, (40, 20, 25)),
        (RowSplit(), {"test": 50}, (80, 20, 50)),
        (RowSplit(test=0.5), {"validation": 30, "test": 50}, (100, 30, 25)),
    ],
)
def test_sizes_are_numbers_of_rows_or_shares(
    split: RowSplit, own: dict[str, int], expected: tuple[int, int, int]
) -> None:
    parts = drawn_parts(Rows(100, own), split)
    assert sizes(parts) == expected
    if "test" in own:
        assert int(parts.test.min()) >= 100 + own.get("validation", 0)
        assert int(parts.train.max()) < 100
    before = 100 + own.get("validation", 0) if "test" in own else 0
    assert parts.tested(Rows(100, own), first=1) == (parts.test - before + 1).tolist()
    assert 1 <= min(parts.tested(Rows(100, own), first=1)) <= 100


@pytest.mark.parametrize("rows", [5, 7, 13, 344])
def test_shares_that_add_up_to_one_take_every_row(rows: int) -> None:
    assert sum(sizes(drawn_parts(Rows(rows), RowSplit(train=0.6, validation=0.2, test=0.2)))) == rows


def test_every_part_gets_its_share_of_each_class_and_the_test_is_of_its_size_and_seed_alone() -> None:
    labels = torch.arange(200) % 10 % 3  # 80, 60, 60
    parts = drawn_parts(Rows(200, labels=labels), RowSplit())
    assert [labels[part].bincount().tolist() for part in parts] == [[48, 36, 36], [16, 12, 12], [16, 12, 12]]
    assert torch.equal(drawn_parts(Rows(200, labels=labels), RowSplit(validation=7, train=9)).test, parts.test)
    assert not torch.equal(drawn_parts(Rows(200, labels=labels), RowSplit(seed=1)).test, parts.test)


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_in_one_part(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    groups = torch.randint(12, (150,), generator=draw)
    parts = drawn_parts(Rows(150, groups=groups.tolist()), RowSplit(by="patient", seed=seed))
    of_parts = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, of_parts)) == len(set().union(*of_parts)) == 12
    train, validation, test = sizes(parts)
    assert train + validation + test == 150
    assert 15 <= validation <= 45
    assert 15 <= test <= 45


@pytest.mark.parametrize("times", [None, torch.arange(50).flip(0).double()])
def test_a_cut_in_order_trains_on_the_first_rows_and_tests_on_the_last(times: Tensor | None) -> None:
    train, validation, test = drawn_parts(Rows(50, times=times), RowSplit(order="time"))
    ordered = torch.cat([train, validation, test])
    assert torch.equal(ordered, torch.arange(50) if times is None else torch.arange(50).flip(0))


def test_a_column_may_say_which_row_is_in_which_part() -> None:
    named = ["Train", "val", " test"] * 3 + ["training"]
    parts = drawn_parts(Rows(10, named=named), RowSplit(parts="split"))
    assert [sorted(part.tolist()) for part in parts] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert parts.tested(Rows(10, named=named), first=1) == [3, 6, 9]
    drawn = drawn_parts(Rows(10, named=["train"] * 8 + ["test"] * 2), RowSplit(parts="split"))
    assert drawn.test.tolist() == [8, 9]
    assert sizes(drawn) == (6, 2, 2)
    beside = drawn_parts(Rows(10, {"test": 5}, named=["train"] * 8 + ["dev"] * 2), RowSplit(parts="split"))
    assert [part.tolist() for part in beside[1:]] == [[8, 9], [10, 11, 12, 13, 14]]


@pytest.mark.parametrize(
    ("named", "expected"), [(["train", "train", "test"], True), (["train", "dev", "test"], False), (None, True)]
)
def test_rows_are_exchangeable_where_validation_is_drawn(named: list[str] | None, expected: bool) -> None:
    split = RowSplit(parts="split" if named else None)
    assert exchangeable(Rows(3, named=named), split) == expected
    assert not exchangeable(Rows(3, {"validation": 2}, named=named), split)
    assert not exchangeable(Rows(3), RowSplit(by="patient"))
    assert not exchangeable(Rows(3), RowSplit(order="time"))


@pytest.mark.parametrize(
    ("named", "own", "sentence"),
    [
        (["train", "?"], {}, "each row must have one of train, training, val, .*; '\\?' is in row 2"),
        (["val", "test"], {}, "none is in training"),
        (["train", "test"], {"test": 3}, "the data have a test part of their own"),
    ],
)
def test_a_column_that_says_no_parts_is_refused(named: list[str], own: dict[str, int], sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence) as caught:
        drawn_parts(Rows(2, own, named=named), RowSplit(parts="split"))
    assert caught.value.key == "split.parts"


def test_fewer_rows_than_parts_are_told_as_such() -> None:
    with pytest.raises(
        UnusableInput, match=r"^The data have 2 rows to be divided into train, validation, test: each part"
    ):
        drawn_parts(Rows(2), RowSplit())
    with pytest.raises(UnusableInput, match=r"^The data have 1 row to be divided into train, validation: each part"):
        drawn_parts(Rows(1, {"test": 5}), RowSplit())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"train": 1.0}, "train=1.0 is not allowed: it must be a number of rows, from 1, or a share between 0 and 1"),
        ({"test": 0}, "test=0 is not allowed"),
        ({"by": "a", "order": "time"}, "order=time is not allowed: the rows are split by a already"),
        ({"by": "a", "train": 3}, "train=3 is not allowed: null, for the groups of a that are left"),
        ({"test": 9, "validation": 2}, "split.test=9 is not allowed: at most 8 of the 10 rows can be its own."),
        ({"test": 11}, "split.test=11 is not allowed: at most 8 of the 10 rows can be its own."),
        ({"train": 9}, "split.train=9 is not allowed: at most 6 of the 10 rows can be its own beside test=2 and"),
        ({"by": "a"}, "split.by=a is not allowed: it has 2 different values, and 3 parts need one each"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        drawn_parts(Rows(10, groups=[0, 1] * 5), RowSplit(**arguments))  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)
