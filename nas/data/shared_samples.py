"""Samples that are in two parts: what is measured on them says little of new ones."""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nas.data.dataset import ArrayDataset, Dataset, ImageDataset

CHANCES = 10  # times as many samples must be possible as there are, or equal ones are no copies
FEW_NUMBERS = 64  # per sample, up to which what is possible is counted


def shared_samples(parts: Mapping[str, Dataset]) -> str | None:
    """``5 of 10 samples of test are in train or validation, too``; None where no sample is in two parts.

    Samples are equal if all their inputs are, and in tables their targets, too. Rows of few categories are often equal
    and not copied: nothing is said of those, nor of samples that stay in their files.

    Args:
        parts: ``train`` first.
    """
    inputs = {part: _inputs(dataset) for part, dataset in parts.items()}
    train = inputs["train"]
    if train is None or not _are_copies(train):
        return None
    known = {part: _marks(values, parts[part].targets) for part, values in inputs.items() if values is not None}
    earlier: set[bytes] = set()
    names: list[str] = []
    told: list[str] = []
    for part, marks in known.items():
        count = sum(mark in earlier for mark in marks)
        if count:
            told.append(f"{count:,} of {len(marks):,} samples of {part} are in {' or '.join(names)}, too")
        earlier.update(marks)
        names.append(part)
    return f"{'; '.join(told)}: what is measured on copies says little of new samples" if told else None


def _inputs(dataset: Dataset) -> Tensor | None:
    if isinstance(dataset, ImageDataset):
        return dataset.images
    return dataset.inputs if isinstance(dataset, ArrayDataset) else None


def _are_copies(inputs: Tensor) -> bool:
    """Whether so many other samples are possible that equal ones hardly come by chance."""
    flat = inputs.flatten(1)
    if flat.shape[1] > FEW_NUMBERS:
        return True
    possible = sum(math.log(len(column.unique())) for column in flat.T)
    return possible > math.log(CHANCES * len(flat))


def _marks(inputs: Tensor, targets: Tensor) -> list[bytes]:
    rows = inputs.flatten(1).cpu().contiguous()
    if inputs.dim() == 2 and targets.dim() == 1:  # rows of a table, which may be equal and mean two things
        rows = torch.cat([rows.double(), targets[:, None].cpu().double()], dim=1)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows.numpy()]
