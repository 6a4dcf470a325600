"""Targets as a file has them: text becomes class numbers with names, numbers stay what they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.data.labelled import listed
from nas.data.row_split import Parts
from nas.errors import UnusableInput

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
        if self.values.dim() != 1 or self.values.is_floating_point():
            return None
        found, numbers = self.values.unique(return_inverse=True)
        return numbers if self.class_names is not None or len(found) <= MOST_CLASSES else None


def named_classes(texts: Sequence[str]) -> Targets:
    """Class numbers of ``texts``, in the order of their names; of their numbers, where all are whole numbers."""
    names = sorted(set(texts), key=lambda name: (0, int(name), name) if _is_whole(name) else (1, 0, name))
    numbers = {name: number for number, name in enumerate(names)}
    return Targets(torch.tensor([numbers[text] for text in texts], dtype=torch.int64), tuple(names))


def of_training(targets: Targets, parts: Parts, owner: str) -> Targets:
    """``targets`` with the classes of the training part only; numbers stay as they are.

    Raises:
        UnusableInput: Another part has a class that the training part lacks.
    """
    if targets.class_names is None:
        return targets
    known = targets.values[parts.train].unique()
    for part in ("validation", "test"):
        of_part = targets.values[getattr(parts, part)]
        strange = of_part[~torch.isin(of_part, known)]
        if len(strange):
            found, counts = strange.unique(return_counts=True)
            pairs = zip(found.tolist(), counts.tolist(), strict=True)
            named = [f"{targets.class_names[number]} ({count:,})" for number, count in pairs]
            raise UnusableInput(
                f"The {part} part of {owner} has {len(strange):,} samples of classes that its training part lacks, "
                f"{listed(named)}: remove them, or divide the data in another way (data.split)."
            )
    place = torch.zeros(len(targets.class_names), dtype=torch.int64)
    place[known] = torch.arange(len(known))
    return Targets(place[targets.values], tuple(targets.class_names[number] for number in known.tolist()))


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
