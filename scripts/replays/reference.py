"""What every replay takes and gives: a file of reference numbers, checked as it is read, and comparisons with it."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.errors import UnusableInput

FORWARD = 1e-10  # logits and losses
EQUAL = 0.0
LARGEST_WIDTH, LARGEST_DEPTH, LARGEST_CLASSES, LARGEST_STEPS = 1024, 200, 100_000, 10_000


@dataclass(frozen=True)
class Comparison:
    """One quantity: its error and what that may be."""

    quantity: str
    error: float
    tolerance: float

    @property
    def reached(self) -> bool:
        return self.error <= self.tolerance


def compared(quantity: str, ours: Tensor, reference: Tensor, tolerance: float) -> Comparison:
    """The largest absolute difference over the largest absolute reference; infinite where a value is not finite."""
    if ours.shape != reference.shape:
        raise UnusableInput(f"{quantity} has shape {tuple(reference.shape)}, the replay gives {tuple(ours.shape)}.")
    ours, reference = ours.detach().double(), reference.double()
    difference, size = float((ours - reference).abs().max()), float(reference.abs().max())
    error = 0.0 if difference == 0 else difference / size if size > 0 else math.inf
    return Comparison(quantity, error if math.isfinite(error) else math.inf, tolerance)


def compared_absolutely(quantity: str, ours: Tensor, reference: Tensor, tolerance: float) -> Comparison:
    """The largest absolute difference, as a share of the largest reference where that is above 1.

    For a reference that may be zero, or is small by cancellation; rounding grows with a large one.
    """
    if ours.shape != reference.shape:
        raise UnusableInput(f"{quantity} has shape {tuple(reference.shape)}, the replay gives {tuple(ours.shape)}.")
    if reference.numel() == 0:
        return Comparison(quantity, 0.0, tolerance)
    ours, reference = ours.detach().double(), reference.double()
    error = float((ours - reference).abs().max()) / max(1.0, float(reference.abs().max()))
    return Comparison(quantity, error if math.isfinite(error) else math.inf, tolerance)


def compared_equal(quantity: str, ours: object, reference: object) -> Comparison:
    return Comparison(quantity, 0.0 if ours == reference else math.inf, EQUAL)


def counted(quantity: str, ours: int, reference: object) -> Comparison:
    if type(reference) is not int or reference <= 0:
        raise UnusableInput(f"{quantity} is {reference!r} instead of a whole number above 0.")
    return Comparison(quantity, abs(ours - reference) / reference, EQUAL)


class ArrayFile:
    """The entries of a .npz file, checked as they are asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays

    def has(self, *names: str) -> bool:
        return all(name in self.arrays for name in names)

    def tensor(self, name: str, dimensions: int | None = None) -> Tensor:
        """Numbers, in float64 or int64, of the given rank."""
        array = self._entry(name)
        if array.dtype.kind not in "fiu" or array.size == 0:
            raise UnusableInput(f"its entry {name} holds no numbers.")
        if dimensions is not None and array.ndim != dimensions:
            raise UnusableInput(f"its entry {name} has {array.ndim} dimensions, not {dimensions}.")
        return torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))

    def text(self, name: str) -> str:
        array = self._entry(name)
        if array.dtype.kind != "U" or array.ndim != 0:
            raise UnusableInput(f"its entry {name} is no text.")
        return str(array)

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise UnusableInput(f"its entry {name} is no JSON.") from error

    def state(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self.tensor(name) for name in self.arrays if name.startswith(prefix)}

    def packed_state(self) -> dict[str, Tensor]:
        """A network's weights, in float64, of ``state_index`` ([[name, shape], ...]) and ``state_values``."""
        index, values = self.json("state_index"), self.tensor("state_values", dimensions=1).double()
        good = isinstance(index, list) and all(_names_a_shape(entry) for entry in index)
        sizes = [math.prod(shape) for _, shape in index] if good else []
        if not good or sum(sizes) != len(values):
            raise UnusableInput("its state_index does not name shapes that hold as many numbers as its state_values.")
        parts = values.split(sizes)
        return {name: part.reshape(shape) for (name, shape), part in zip(index, parts, strict=True)}

    def _entry(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UnusableInput(f"it has no entry {name}.")
        return self.arrays[name]


def _names_a_shape(entry: object) -> bool:
    match entry:
        case [str(), [*sizes]]:
            return all(type(size) is int and size >= 0 for size in sizes)
    return False


class Configuration:
    """The constants a file was computed with, checked as they are asked for."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, Mapping):
            raise UnusableInput("its configuration is no object.")
        self.values = values

    def whole(self, name: str, largest: int) -> int:
        value = self.values.get(name)
        if type(value) is not int or not 0 < value <= largest:
            raise UnusableInput(
                f"its configuration has {name}={value!r} instead of a whole number from 1 to {largest}."
            )
        return value

    def number(self, name: str) -> float:
        return self._number(name, self.values.get(name))

    def shares(self, name: str, length: int) -> tuple[float, ...]:
        """Numbers from 0 to below 1."""
        values = self.numbers(name, length)
        if max(values) >= 1:
            raise UnusableInput(f"its configuration has {name}={list(values)} instead of numbers below 1.")
        return values

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        values = self.values.get(name)
        if not isinstance(values, list) or len(values) != length:
            raise UnusableInput(f"its configuration has {name}={values!r} instead of {length} numbers.")
        return tuple(self._number(name, value) for value in values)

    def told(self, name: str, word: str, usual: float) -> float:
        """The number that follows ``word`` in a text, or the ``usual`` one: some constants are told in words alone."""
        found = re.search(rf"\b{word} (\d+(?:\.\d+)?)", str(self.values.get(name)))
        return float(found[1]) if found else usual

    @staticmethod
    def _number(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UnusableInput(f"its configuration has {name}={value!r} instead of a number of at least 0.")
        return float(value)


def parameters_of(make: Callable[[], nn.Module]) -> int:
    """How many parameters the network has that ``make`` builds; no memory is spent on them."""
    with torch.device("meta"):
        network = make()
    return sum(parameter.numel() for parameter in network.parameters())
