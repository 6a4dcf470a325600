"""Samples that are in two parts: what is measured on them says little of new ones."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from nas.data.dataset import ArrayDataset, Dataset, ImageDataset

CHANCES = 10  # times as many samples must be equal as by chance, or they are no copies
LOOKED_AT = 10_000  # samples that the frequencies of values are taken from


def shared_samples(parts: Mapping[str, Dataset]) -> str | None:
    """``5 of 10 samples of test are in train or validation, too``; None where no sample is in two parts.

    Samples are equal if all their inputs are, and in tables their targets, too. Rows of few categories are often equal
    and not copied: nothing is said where about as many are equal as by chance, nor of samples that stay in their files.

    Args:
        parts: ``train`` first.
    """
    inputs = {part: values for part, dataset in parts.items() if (values := _inputs(dataset)) is not None}
    if "train" not in inputs:
        return None
    chance = _chance_of_a_copy(inputs["train"])
    if CHANCES * chance * len(inputs["train"]) >= 1:
        return None
    earlier = np.empty(0, np.uint64)
    names: list[str] = []
    told: list[str] = []
    for part, values in inputs.items():
        marks = _marks(values, parts[part].targets)
        count = int(np.isin(marks, earlier).sum())
        if count > CHANCES * chance * len(earlier) * len(marks):
            told.append(f"{count:,} of {len(marks):,} samples of {part} are in {' or '.join(names)}, too")
        earlier = np.concatenate([earlier, marks])
        names.append(part)
    return f"{'; '.join(told)}: what is measured on copies says little of new samples" if told else None


def _inputs(dataset: Dataset) -> Tensor | None:
    if isinstance(dataset, ImageDataset):
        return dataset.images
    return dataset.inputs if isinstance(dataset, ArrayDataset) else None


def _chance_of_a_copy(inputs: Tensor) -> float:
    """How likely two samples are equal, if their numbers, as frequent as they are, come independently of each other."""
    some = inputs[:: math.ceil(len(inputs) / LOOKED_AT) or 1].flatten(1)
    chance = 1.0
    for column in some.T:
        shares = column.unique(return_counts=True)[1] / len(some)
        chance *= float((shares**2).sum())
        if CHANCES * chance * len(inputs) ** 2 < 1:  # so small that it makes no difference
            break
    return chance


def _marks(inputs: Tensor, targets: Tensor) -> np.ndarray:
    """A hash of 64 bits for each sample."""
    rows = inputs.flatten(1).cpu().contiguous().numpy()
    of_table = inputs.dim() == 2 and targets.dim() == 1  # rows which may be equal and mean two things
    ends = targets.cpu().contiguous().numpy() if of_table else np.empty((len(rows), 0), np.uint8)
    marks = (hashlib.blake2b(row.tobytes() + end.tobytes(), digest_size=8) for row, end in zip(rows, ends, strict=True))
    return np.fromiter((int.from_bytes(mark.digest()) for mark in marks), np.uint64, len(rows))
