"""The part of a stand-alone file that makes masks, or fields in their own units, of what a network gives."""

import re
from collections.abc import Sequence
from pprint import pformat
from typing import NamedTuple

import torch

from nas.signature import Signature
from nas.tasks.task import Task

COLOUR = re.compile(r"#[0-9a-f]{6}")  # how masks of colours call their classes


class PlacesSource(NamedTuple):
    """A function of the file.

    Attributes:
        constants: What it needs, as lines of the file; may be empty.
        definition: It.
        words: The end of a sentence about the network's outputs.
    """

    constants: str
    definition: str
    words: str


def places_source(task: Task, class_names: Sequence[str] | None, signature: Signature) -> PlacesSource | None:
    """What makes targets of places of the outputs of a network.

    None where its task is not one of places, or its outputs are neither logits of classes nor standardised targets.

    Args:
        task: What the outputs mean.
        class_names: What the classes are called, where they have names.
        signature: Of the network.
    """
    sides = ", ".join(map(str, signature.input_shape[1:]))
    if signature.head != "dense":
        return None
    if task.target_scale() is not None:
        shape = ", ".join(["1", "-1", *["1"] * signature.rank])
        return PlacesSource(
            "",
            "def field(outputs):\n"
            f'    """Targets in their own units, (batch, {signature.outputs}, {sides}), from standardised ones."""\n'
            f"    mean, std = (torch.tensor(one, dtype=torch.float64) for one in (TARGET_MEAN, TARGET_STD))\n"
            f"    return outputs.cpu() * std.view({shape}) + mean.view({shape})",
            ",\nof which field(outputs) makes targets in their own units",
        )
    if task.output != "class":
        return None
    values = values_of_masks(class_names or ())
    made, constants, known = "logits.argmax(1).cpu()", "", "the numbers of the classes, from 0, as CLASSES has them"
    if values:
        written = values if len(values[0]) > 1 else [value for (value,) in values]
        constants = f"VALUES = torch.tensor({pformat(written, width=100, compact=True)}, dtype=torch.{_kind(values)})\n"
        made, known = f"VALUES[{made}]", "the values that the masks of the training have"
    shape = f"batch, {sides}, 3" if values and len(values[0]) > 1 else f"batch, {sides}"
    definition = f'def mask(logits):\n    """Masks ({shape}) with {known}."""\n    return {made}'
    return PlacesSource(constants, definition, ",\nof which mask(logits) makes masks")


def _kind(values: Sequence[tuple[int, ...]]) -> str:
    """The smallest type that holds ``values`` and that pictures are made of."""
    numbers = [number for value in values for number in value]
    fitting = (kind for kind in ("uint8", "int32") if _holds(getattr(torch, kind), min(numbers), max(numbers)))
    return next(fitting, "int64")


def _holds(kind: torch.dtype, lowest: int, highest: int) -> bool:
    return torch.iinfo(kind).min <= lowest and highest <= torch.iinfo(kind).max


def values_of_masks(names: Sequence[str]) -> list[tuple[int, ...]]:
    """What masks have in the place of each class, a number or a colour; empty where classes are called otherwise."""
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return [(int(name),) for name in names]
    if not all(COLOUR.fullmatch(name) or re.fullmatch(r"[0-9]+", name) for name in names):
        return []
    packed = [int(name[1:], 16) if name[0] == "#" else int(name) * 0x010101 for name in names]  # what is grey is equal
    return [(value >> 16 & 255, value >> 8 & 255, value & 255) for value in packed]
