"""Samples that are in two parts: what is measured on them says little of new ones."""

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from nas.data.dataset import ArrayDataset, Dataset, ImageDataset

CHANCES = 10  # times as many samples must be equal as by chance, or they are no copies
LOOKED_AT = 10_000  # samples that the frequencies of values are taken from


def shared_samples(parts: Mapping[str, Dataset]) -> str | None:
    """``5 of 10 samples of test are in train or validation, too``; None where no sample is in two parts.

    Samples are equal if all their inputs are, and in tables their targets, too. Rows of few categories are often equal
    and not copied: nothing is said where about as many are equal as by chance, or where rows that are equal often have
    other targets, as those of a questionnaire whose answers go together. Nor of samples that stay in their files.

    Args:
        parts: ``train`` first.
    """
    inputs = {part: values for part, dataset in parts.items() if (values := _inputs(dataset)) is not None}
    if "train" not in inputs:
        return None
    chance = _chance_of_a_copy(inputs["train"])
    if CHANCES * chance * len(inputs["train"]) >= 1:
        return None
    earlier = np.empty((2, 0), np.uint64)
    names: list[str] = []
    told: list[str] = []
    for part, values in inputs.items():
        marks = _marks(values, parts[part].targets)
        samples = marks.shape[1]
        count = int(np.isin(marks[1], earlier[1]).sum())
        by_chance = chance * earlier.shape[1] * samples
        if count > CHANCES * by_chance and count > CHANCES * _of_other_targets(marks, earlier):
            told.append(f"{count:,} of {samples:,} samples of {part} are in {' or '.join(names)}, too")
        earlier = np.concatenate([earlier, marks], axis=1)
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
    """(2, N) hashes of 64 bits: of each sample's inputs, and in tables of its inputs with its target."""
    rows = inputs.flatten(1).cpu().contiguous().numpy()
    marks = _hashed(row.tobytes() for row in rows)
    if inputs.dim() != 2 or targets.dim() != 1:  # no rows, which may be equal and mean two things
        return np.stack([marks, marks])
    ends = targets.cpu().contiguous().numpy()
    return np.stack([marks, _hashed(row.tobytes() + end.tobytes() for row, end in zip(rows, ends, strict=True))])


def _hashed(contents: Iterable[bytes]) -> np.ndarray:
    return np.fromiter((int.from_bytes(hashlib.blake2b(one, digest_size=8).digest()) for one in contents), np.uint64)


def _of_other_targets(marks: np.ndarray, earlier: np.ndarray) -> int:
    """How many of the samples with ``marks`` have the inputs of an ``earlier`` one that has another target."""
    known, targets = np.unique(np.unique(earlier, axis=1)[0], return_counts=True)
    of_several = np.isin(marks[0], known[targets > 1])
    of_another = np.isin(marks[0], known) & ~np.isin(marks[1], earlier[1])
    return int((of_several | of_another).sum())
