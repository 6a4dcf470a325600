"""Drawing the parts of a data set: their sizes, their classes and their seed."""

import pytest
import torch
from torch import Generator, Tensor

from nas.data.dataset import ImageDataset
from nas.data.stratified_split import SplitSettings, split_dataset, stratified_indices
from nas.errors import InvalidValue


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def labelled(class_sizes: list[int], seed: int = 0) -> Tensor:
    """Labels of classes of these sizes, in random order."""
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(class_sizes)])
    return labels[torch.randperm(len(labels), generator=seeded(seed))]


def numbered(labels: Tensor) -> ImageDataset:
    """Images whose two pixels tell their number, so that they can be recognised."""
    numbers = torch.arange(len(labels))
    images = torch.stack([numbers // 256, numbers % 256], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
    return ImageDataset(images, labels, classes=int(labels.max()) + 1)


def numbers(dataset: ImageDataset) -> list[int]:
    pixels = dataset.images.flatten(1).long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


RANDOM_CASES = [
    (torch.randint(1, 60, (classes,), generator=seeded(classes)).tolist(), fractions)
    for classes in (1, 2, 3, 7, 10, 40)
    for fractions in ([0.6, 0.2, 0.2], [0.31, 0.47], [0.05, 0.9], [1.0], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
]


@pytest.mark.parametrize(("class_sizes", "fractions"), RANDOM_CASES)
def test_parts_are_disjoint_exact_and_stratified(class_sizes: list[int], fractions: list[float]) -> None:
    labels = labelled(class_sizes)
    sizes = [int(fraction * len(labels)) for fraction in fractions]
    parts = stratified_indices(labels, sizes, seeded(1))
    assert [len(part) for part in parts] == sizes
    together = torch.cat(parts)
    assert len(together.unique()) == len(together)
    for part, size in zip(parts, sizes, strict=True):
        counts = labels[part].bincount(minlength=len(class_sizes))
        for class_size, count in zip(class_sizes, counts.tolist(), strict=True):
            assert abs(count - class_size * size / len(labels)) < 1


def test_balanced_classes_are_split_evenly() -> None:
    labels = labelled([500] * 10)
    for part in stratified_indices(labels, [3000, 1000, 1000], seeded(0)):
        assert labels[part].bincount().tolist() == [len(part) // 10] * 10


def test_a_part_is_not_in_the_order_of_the_classes() -> None:
    labels = labelled([100, 100])
    (part,) = stratified_indices(labels, [100], seeded(0))
    assert 0 < labels[part][:50].sum() < 50


def test_the_generator_decides_the_draw() -> None:
    labels = labelled([50, 50])
    first, same, other = (stratified_indices(labels, [30], seeded(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert set(first.tolist()) != set(other.tolist())


def test_more_than_there_is_cannot_be_drawn() -> None:
    with pytest.raises(InvalidValue, match=r"together they may be at most 10"):
        stratified_indices(labelled([5, 5]), [6, 5], seeded(0))
    with pytest.raises(InvalidValue, match=r"none may be below 0"):
        stratified_indices(labelled([5, 5]), [6, -1], seeded(0))


def test_the_parts_of_a_data_set_are_disjoint_and_have_their_sizes() -> None:
    dataset = numbered(labelled([300, 300, 400]))
    parts = split_dataset(dataset, SplitSettings(500, 200, 250))
    assert [len(part) for part in parts] == [500, 200, 250]
    seen = [number for part in parts for number in numbers(part)]
    assert len(set(seen)) == 950
    for part in parts:
        assert torch.equal(part.labels, dataset.labels[torch.tensor(numbers(part))])


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (SplitSettings(None, 200, 250), [550, 200, 250]),
        (SplitSettings(500, None, 250), [500, 250, 250]),
        (SplitSettings(500, 200, None), [500, 200, 300]),
    ],
)
def test_null_takes_what_is_left(settings: SplitSettings, sizes: list[int]) -> None:
    dataset = numbered(labelled([300, 300, 400]))
    assert [len(part) for part in split_dataset(dataset, settings)] == sizes


def test_the_official_test_set_is_kept_as_it_is() -> None:
    training, official = numbered(labelled([60, 60])), numbered(labelled([20, 20], seed=9))
    train, validation, test = split_dataset(training, SplitSettings(80, 40, None), official)
    assert sorted(numbers(train) + numbers(validation)) == list(range(120))
    assert torch.equal(test.images, official.images)
    assert torch.equal(test.labels, official.labels)


def test_a_part_of_the_official_test_set_can_be_taken() -> None:
    training, official = numbered(labelled([60, 60])), numbered(labelled([20, 20], seed=9))
    whole = split_dataset(training, SplitSettings(80, 40, None), official)
    train, validation, test = split_dataset(training, SplitSettings(80, 40, 10), official)
    assert len(test) == 10
    assert test.labels.bincount().tolist() == [5, 5]
    assert torch.equal(test.labels, official.labels[torch.tensor(numbers(test))])
    assert numbers(train) == numbers(whole[0])
    assert numbers(validation) == numbers(whole[1])


def test_the_split_depends_on_its_own_seed_only() -> None:
    dataset = numbered(labelled([300, 300, 400]))
    torch.manual_seed(1)
    first = split_dataset(dataset, SplitSettings(500, 200, 250, seed=5))
    torch.manual_seed(2)
    same = split_dataset(dataset, SplitSettings(500, 200, 250, seed=5))
    other = split_dataset(dataset, SplitSettings(500, 200, 250, seed=6))
    for part, equal, different in zip(first, same, other, strict=True):
        assert numbers(part) == numbers(equal)
        assert set(numbers(part)) != set(numbers(different))


def test_the_test_set_stays_when_the_other_sizes_change() -> None:
    dataset = numbered(labelled([300, 300, 400]))
    _, _, test = split_dataset(dataset, SplitSettings(500, 200, 250))
    _, _, beside_fewer = split_dataset(dataset, SplitSettings(101, 59, 250))
    assert numbers(test) == numbers(beside_fewer)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("size", [0, -3])
def test_an_empty_part_is_refused(part: str, size: int) -> None:
    sizes: dict[str, int | None] = {"train": 10, "validation": 10, "test": 10, part: size}
    with pytest.raises(InvalidValue) as caught:
        SplitSettings(**sizes)  # type: ignore[arg-type]
    assert str(caught.value) == f"{part}={size} is not allowed: it must be at least 1, or null for all that is left."


def test_a_seed_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidValue, match="seed=-1 is not allowed"):
        SplitSettings(10, 10, 10, seed=-1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (SplitSettings(200, 20, 20), "split.train=200 is not allowed: at most 100 of the 100 images are left for it."),
        (
            SplitSettings(70, 20, 11),
            "split.test=11 is not allowed: "
            "at most 10 of the 100 images are left for it beside train=70 and validation=20.",
        ),
        (SplitSettings(70, 1, 20), "split.validation=1 is not allowed: it must be at least 2, one image per class."),
        (
            SplitSettings(80, 20, None),
            "split.test=null is not allowed: the other parts leave 0 of the 100 images, and it needs 2, one per class.",
        ),
        (
            SplitSettings(None, 20, None),
            "split.test=null is not allowed: split.train takes all that is left already.",
        ),
    ],
)
def test_sizes_that_do_not_fit_the_data_are_refused(settings: SplitSettings, sentence: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        split_dataset(numbered(labelled([50, 50])), settings)
    assert str(caught.value) == sentence


def test_sizes_are_checked_against_the_set_they_are_drawn_from() -> None:
    training, official = numbered(labelled([50, 50])), numbered(labelled([10, 10]))
    with pytest.raises(InvalidValue, match=r"split\.test=21 is not allowed: at most 20 of the 20 images"):
        split_dataset(training, SplitSettings(60, 40, 21), official)
    with pytest.raises(InvalidValue, match=r"split\.validation=41 is not allowed: at most 40 of the 100 images"):
        split_dataset(training, SplitSettings(60, 41, 20), official)
