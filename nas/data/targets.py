"""Targets as a file has them: text becomes class numbers with names, numbers stay what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.data.row_split import Parts
from nas.errors import UnusableInput, listed

MOST_CLASSES = 20  # up to which whole numbers are drawn like classes, in proportion


@dataclass(frozen=True)
class Targets:
    """The targets of N samples.

    Attributes:
        values: (N, ...) int64, float64 or bool as they were read; int64 class numbers where there are names.
        class_names: What the classes are called; None where targets are numbers.
    """

    values: Tensor
    class_names: tuple[str, ...] | None = None

    @property
    def strata(self) -> Tensor | None:
        """(N,) int64 class numbers where the targets may be classes, so that every part can get its share of each."""
        if self.values.dim() != 1:
            return None
        found, numbers = self.values.unique(return_inverse=True)
        whole = not found.is_floating_point() or bool((found == found.round()).all())  # NaN is none
        return numbers if self.class_names is not None or (whole and len(found) <= MOST_CLASSES) else None


def named_classes(texts: Sequence[str]) -> Targets:
    """Class numbers of ``texts``, in the order of their names; of their numbers, where all are whole numbers."""
    names = sorted(set(texts), key=lambda name: (0, int(name), name) if _is_whole(name) else (1, 0, name))
    numbers = {name: number for number, name in enumerate(names)}
    return Targets(torch.tensor([numbers[text] for text in texts], dtype=torch.int64), tuple(names))


def number_names(values: Sequence[float]) -> list[str]:
    """What classes are called whose names are different numbers: six digits of a fraction, or all where two are alike.

    Whole numbers have all their digits, as they stand for codes.
    """
    exact = [int(value) if value == int(value) else value for value in values]
    short = [str(value) if isinstance(value, int) else f"{value:g}" for value in exact]
    return short if len(set(short)) == len(short) else [str(value) for value in exact]


def with_classes_of_training(targets: Targets, parts: Parts, owner: str, amounts: str = "") -> Targets:
    """``targets`` with the classes of the training part only; numbers stay as they are.

    Args:
        targets: Of all samples.
        parts: Their samples.
        owner: What the data are called.
        amounts: The end of a sentence: how classes become numbers.

    Raises:
        UnusableInput: Another part has a class that the training part lacks.
    """
    if targets.class_names is None:
        return targets
    known = targets.values[parts.train].unique()
    for part in ("validation", "test"):
        refuse_unseen_classes(part, targets.values[getattr(parts, part)], known, targets.class_names, owner, amounts)
    place = torch.zeros(len(targets.class_names), dtype=torch.int64)
    place[known] = torch.arange(len(known))
    return Targets(place[targets.values], tuple(targets.class_names[number] for number in known.tolist()))


def refuse_unseen_classes(
    part: str, values: Tensor, known: Tensor, names: Sequence[str] | None, owner: str, amounts: str = ""
) -> None:
    """Refuse classes that training has not seen.

    Args:
        part: What the part is called.
        values: (M,) the classes of its samples.
        known: Those of the training part.
        names: What the classes are called by their numbers; None calls them as the values are.
        owner: What the data are called.
        amounts: The end of the sentence: how classes with names become numbers.

    Raises:
        UnusableInput: ``values`` has such classes.
    """
    strange = values[~torch.isin(values, known)]
    if not len(strange):
        return
    found, counts = strange.unique(return_counts=True)
    called = number_names(found.tolist()) if names is None else [names[value] for value in found.tolist()]
    named = [f"{name} ({count:,})" for name, count in zip(called, counts.tolist(), strict=True)]
    many = f"{len(strange):,} sample{'s' if len(strange) > 1 else ''} of {'classes' if len(found) > 1 else 'a class'}"
    if names is None:
        amounts = "; if they are amounts, say task=regression"
    raise UnusableInput(
        f"The {part} part of {owner} has {many} that its training part lacks, {listed(named)}: leave "
        f"{'them' if len(strange) > 1 else 'it'} out, add samples until each part can have some, or divide the data in "
        f"another way (data.split){amounts}."
    )


def absent_classes(parts: Mapping[str, Tensor], names: Sequence[str], sample: str) -> str | None:
    """``test has no image of bee``; None where every part has all classes.

    Args:
        parts: By part the class numbers of its samples.
        names: What the classes are called.
        sample: What a sample is called.
    """
    told = []
    for part, labels in parts.items():
        counts = labels.bincount(minlength=len(names))
        absent = [names[label] for label in (counts == 0).nonzero().flatten().tolist()]
        if absent:
            told.append(f"{part} has no {sample} of {listed(absent)}")
    return "; ".join(told) or None


def alike_classes(names: Sequence[str]) -> str | None:
    """``Yes, yes`` where the names of classes differ only in case or blanks; None where they do not."""
    spelt: dict[str, list[str]] = {}
    for name in names:
        spelt.setdefault(" ".join(name.split()).casefold(), []).append(name)
    return "; ".join(listed(several) for several in spelt.values() if len(several) > 1) or None


def joined_labels(names: Sequence[str]) -> str | None:
    """The first name that seems to be of several labels, as ``sun;wind`` beside ``sun`` and ``wind``; else None."""
    for separator in "|;,":
        labels = [[part.strip(" []'\"") for part in name.split(separator)] for name in names]
        several = [name for name, parts in zip(names, labels, strict=True) if len(parts) > 1]
        if several and len({part for parts in labels for part in parts}) < len(names):
            return several[0]
    return None


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
