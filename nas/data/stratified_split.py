"""Stratified, seeded splits of a data set into training, validation and test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Generator, Tensor

from nas.data.dataset import LabelledDataset
from nas.errors import InvalidValue, require

AnyDataset = TypeVar("AnyDataset", bound=LabelledDataset)


@dataclass(frozen=True)
class SplitSettings:
    """The number of images of each part, and the seed that draws them.

    The seed is the split's own, not the run's, so that runs with different seeds share one test set.

    Attributes:
        train: Images the weights are trained on; null takes everything that is left.
        validation: Images the architecture is learned from; null takes everything that is left.
        test: Images for the final test; null takes the official test set, or everything that is left if there is none.
        seed: Seed of the draw.

    Raises:
        InvalidValue: A part is below 1, or the seed is negative or too large.
    """

    train: int | None
    validation: int | None
    test: int | None
    seed: int = 0

    def __post_init__(self) -> None:
        for part, size in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            require(size is None or size >= 1, part, size, "it must be at least 1, or null for all that is left")
        require(0 <= self.seed < 2**63, "seed", self.seed, "it must be from 0 to 2**63 - 1")


def split_dataset(
    dataset: AnyDataset, settings: SplitSettings, official_test: AnyDataset | None = None
) -> tuple[AnyDataset, AnyDataset, AnyDataset]:
    """Draw the training, validation and test images.

    Without ``official_test`` all three come from ``dataset``; with it, the test images come from there. Either way the
    test set depends only on ``settings.seed`` and its own size, so that changing the other sizes keeps it.

    Raises:
        InvalidValue: The sizes do not fit the data; its key is ``split.train``, ``split.validation`` or ``split.test``.
    """
    generator = Generator().manual_seed(settings.seed)
    requested = {"train": settings.train, "validation": settings.validation}
    if official_test is None:
        sizes = _part_sizes(requested | {"test": settings.test}, len(dataset), dataset.classes)
        test, dataset = _drawn(dataset, [sizes["test"], len(dataset) - sizes["test"]], generator)
    else:
        sizes = _part_sizes(requested, len(dataset), dataset.classes)
        test = official_test
        if settings.test is not None:
            test_sizes = _part_sizes({"test": settings.test}, len(official_test), dataset.classes)
            (test,) = _drawn(official_test, [test_sizes["test"]], Generator().manual_seed(settings.seed))
    validation, train = _drawn(dataset, [sizes["validation"], sizes["train"]], generator)
    return train, validation, test


def stratified_indices(labels: Tensor, sizes: Sequence[int], generator: Generator) -> list[Tensor]:
    """Draw disjoint parts of the given sizes in which every class has its proportional share.

    Args:
        labels: (N,) int64.
        sizes: Images in each part, together at most N.
        generator: A CPU generator.

    Returns:
        Per part its (size,) int64 indices into ``labels``, in random order. The images of a class in a part are its
        exact share, ``size * (images of the class) / N``, rounded up or down.

    Raises:
        InvalidValue: A size is negative, or the sizes add up to more than N.
    """
    labels = labels.cpu()
    left_over = len(labels) - sum(sizes)
    require(min(sizes, default=0) >= 0, "sizes", list(sizes), "none may be below 0")
    require(left_over >= 0, "sizes", list(sizes), f"together they may be at most {len(labels)}")
    members = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    members = [of_class[torch.randperm(len(of_class), generator=generator)] for of_class in members]
    counts = _rounded_shares([len(of_class) for of_class in members], [*sizes, left_over])
    pieces = [of_class.split(row) for of_class, row in zip(members, counts, strict=True)]
    # A part is shuffled because its pieces are in the order of the classes.
    return [
        torch.cat([piece[part] for piece in pieces])[torch.randperm(size, generator=generator)]
        for part, size in enumerate(sizes)
    ]


def _drawn(dataset: AnyDataset, sizes: Sequence[int], generator: Generator) -> list[AnyDataset]:
    return [dataset.select(indices) for indices in stratified_indices(dataset.labels, sizes, generator)]


def _part_sizes(requested: dict[str, int | None], available: int, classes: int) -> dict[str, int]:
    """The sizes with null replaced by what the other parts leave of the ``available`` images."""
    open_parts = [part for part, size in requested.items() if size is None]
    for part in open_parts[1:]:
        raise InvalidValue(f"split.{part}", None, f"split.{open_parts[0]} takes all that is left already")
    sizes: dict[str, int] = {}
    for part, size in requested.items():
        if size is None:
            continue
        left = available - sum(sizes.values())
        beside = " and ".join(f"{other}={count}" for other, count in sizes.items())
        allowed = f"at most {left} of the {available} images are left for it" + (f" beside {beside}" if beside else "")
        require(size <= left, f"split.{part}", size, allowed)
        require(size >= classes, f"split.{part}", size, f"it must be at least {classes}, one image per class")
        sizes[part] = size
    for part in open_parts:
        left = available - sum(sizes.values())
        allowed = f"the other parts leave {left} of the {available} images, and it needs {classes}, one per class"
        require(left >= classes, f"split.{part}", None, allowed)
        sizes[part] = left
    return sizes


def _rounded_shares(class_sizes: list[int], part_sizes: list[int]) -> list[list[int]]:
    """Round ``class_size * part_size / total`` up or down so that all rows and columns keep their sums.

    Both lists add up to the same total. Rounding each entry by itself would miss the sums. Here entries that are still
    fractional are changed along cycles, alternately up and down, which keeps every row's and column's sum, until one
    of them is whole (controlled rounding; Cox, 1987).

    Returns:
        Per class a list of how many of its images each part gets.
    """
    total = sum(class_sizes)
    # In units of 1/total every share is a whole number, so nothing is lost to floating point.
    shares = [[class_size * part_size for part_size in part_sizes] for class_size in class_sizes]
    while cycle := _fractional_cycle(shares, total):
        ups, downs = cycle[::2], cycle[1::2]
        step = min(
            min(total - shares[row][column] % total for row, column in ups),
            min(shares[row][column] % total for row, column in downs),
        )
        for row, column in ups:
            shares[row][column] += step
        for row, column in downs:
            shares[row][column] -= step
    return [[share // total for share in row] for row in shares]


def _fractional_cycle(shares: list[list[int]], total: int) -> list[tuple[int, int]]:
    """Entries that are no multiple of ``total`` and alternate between sharing a row and a column; [] if all are whole.

    A row or column whose sum is whole never has a single fractional entry, so a walk that leaves each row and column
    through another entry than it came by can always go on, and must come back to a row or column it has seen.
    """
    fractional = [(r, c) for r, row in enumerate(shares) for c, share in enumerate(row) if share % total]
    if not fractional:
        return []
    walk = [fractional[0]]
    visited = [("row", walk[0][0])]
    while True:
        row, column = walk[-1]
        by_column = visited[-1][0] == "row"
        here = ("column", column) if by_column else ("row", row)
        if here in visited:
            return walk[visited.index(here) :]
        visited.append(here)
        walk.append(next(e for e in fractional if e != walk[-1] and (e[1] == column if by_column else e[0] == row)))
