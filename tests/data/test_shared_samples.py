"""Samples that are in two parts are told, and those that are equal by chance are not."""

import pytest
import torch
from torch import Tensor

from nas.data.dataset import ArrayDataset, Dataset
from nas.data.shared_samples import shared_samples


def parts(inputs: Tensor, targets: Tensor) -> dict[str, Dataset]:
    ends = {"train": slice(0, 600), "validation": slice(600, 800), "test": slice(800, 1000)}
    return {part: ArrayDataset(inputs[own], targets[own]) for part, own in ends.items()}


@pytest.mark.parametrize(("columns", "share"), [(100, 0.01), (14, 0.5), (3, 0.5)])
def test_rows_of_few_values_are_often_equal_by_chance(columns: int, share: float) -> None:
    inputs = (torch.rand(1000, columns, generator=torch.Generator().manual_seed(0)) < share).float()
    assert inputs.unique(dim=0).shape[0] < 1000
    assert shared_samples(parts(inputs, torch.zeros(1000))) is None


@pytest.mark.parametrize("shape", [(3,), (100,), (3, 5, 5)], ids=["table", "wide", "images"])
def test_copies_are_told_of_every_part(shape: tuple[int, ...]) -> None:
    inputs = torch.rand(1000, *shape, generator=torch.Generator().manual_seed(0))
    inputs[798:802] = inputs[:4]
    told = "2 of 200 samples of validation are in train, too; 2 of 200 samples of test are in train or validation, too"
    targets = torch.zeros(1000, dtype=torch.int64)
    assert str(shared_samples(parts(inputs, targets))).startswith(told)
    targets[798:802] = 1  # equal rows of a table of which other things are to be learned; a picture shows one thing
    assert (shared_samples(parts(inputs, targets)) is None) == (len(shape) == 1)


@pytest.mark.parametrize("copied", [False, True])
def test_answers_that_go_together_are_no_copies_unless_their_targets_go_with_them(copied: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    kind = torch.rand(1000, 1, generator=draw) < 0.5
    answers = torch.where(torch.rand(1000, 20, generator=draw) < 0.97, kind, ~kind).float()
    targets = torch.where(torch.rand(1000, generator=draw) < 0.8, kind[:, 0], ~kind[:, 0]).long()
    if copied:
        answers[:] = torch.rand(1000, 20, generator=draw)
        answers[800:], targets[800:] = answers[:200].clone(), targets[:200].clone()
    assert (shared_samples(parts(answers, targets)) is None) is not copied
