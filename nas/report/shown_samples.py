"""Test samples of a task of places, to be looked at: ``samples.npz`` has what is true and what a network says."""

import io
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.data.augmentation import UNKNOWN_CLASS
from nas.run.checkpoint import write_atomically

SAMPLES = "samples.npz"
LARGEST_FILE = 50_000_000  # bytes, unpacked
LONGEST_SIDE = {1: 2000, 2: 192}  # places, by the number of sides
MOST_CHANNELS, MOST_SAMPLES = 3, 20

Array = np.ndarray


@dataclass(frozen=True)
class ShownSamples:
    """N test samples, each of places along one side or two.

    Attributes:
        sample: (N,) texts: what the data call them.
        score: (N,) texts, such as ``mean IoU 0.5823``.
        worst: (N,) whether a sample is here for its score.
        input: (N, C, ...) float32, the first of ``channels``; of pictures with white at 1.
        target, prediction: (N, ...) int32 classes, ``UNKNOWN_CLASS`` where none is known; or (N, K, ...) float32
            numbers in their own units, NaN where none is known, the first of ``targets``.
        names: (number of classes,) or (K,) texts: what they are called.
        channels, targets: How many there are of each; a class of each place is one target.
        spacing: 1 where all places are here, 3 where it is every third along each side.
    """

    sample: Array
    score: Array
    worst: Array
    input: Array
    target: Array
    prediction: Array
    names: Array
    channels: int
    targets: int
    spacing: int

    def __post_init__(self) -> None:
        """Raises ValueError where something does not fit: a file may hold anything."""
        count, sides = self.input.shape[0], self.input.shape[2:]
        shape = (count, *sides) if self.are_classes else (count, self.target.shape[1], *sides)
        _require(1 <= len(sides) <= 2 and 1 <= count <= MOST_SAMPLES, "sizes")
        _require(min(sides) > 0 and max(sides) <= LONGEST_SIDE[len(sides)], "sides")
        _require(self.input.shape[1] in ((1, MOST_CHANNELS) if len(sides) == 2 else (1, 2, MOST_CHANNELS)), "channels")
        _require(self.input.dtype == np.float32 and bool(np.isfinite(self.input).all()), "input")
        for one in (self.target, self.prediction):
            _require(one.shape == shape and one.dtype == (np.int32 if self.are_classes else np.float32), "targets")
        for one in (self.sample, self.score, self.names):
            _require(one.ndim == 1 and one.dtype.kind == "U", "texts")
        _require(len(self.sample) == len(self.score) == count, "texts")
        _require(self.worst.shape == (count,) and self.worst.dtype == np.bool_, "worst")
        _require(min(self.channels, self.targets, self.spacing) >= 1, "numbers")
        if self.are_classes:
            for one in (self.target, self.prediction):
                _require(bool(((one == UNKNOWN_CLASS) | ((one >= 0) & (one < len(self.names)))).all()), "classes")
        else:
            _require(1 <= len(self.names) == shape[1] <= MOST_CHANNELS, "names")

    @property
    def are_classes(self) -> bool:
        return bool(self.target.dtype.kind == "i")

    @property
    def sides(self) -> int:
        """Of a sample: 1 of a series, 2 of an image."""
        return self.input.ndim - 2

    def write(self, path: Path) -> None:
        content = io.BytesIO()
        np.savez(content, **asdict(self))
        write_atomically(path, content.getvalue())


def _require(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"its {what} do not fit")


def read_shown_samples(path: Path) -> ShownSamples | None:
    """What :meth:`ShownSamples.write` wrote, or None without a file.

    Raises:
        ValueError: It cannot be read, is too large, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as packed:
            _require(sum(one.file_size for one in packed.infolist()) <= LARGEST_FILE, "arrays")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {one.name: stored[one.name] for one in fields(ShownSamples)}
        found: dict[str, Any] = {name: array if array.ndim else int(array) for name, array in arrays.items()}
        return ShownSamples(**found)
    # A damaged file can raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise ValueError(f"{path.name} has no samples to be shown ({reason[:200]})") from None


def thinned(places: Tensor, sides: int) -> tuple[Tensor, int]:
    """(..., *sides) with at most :data:`LONGEST_SIDE` places along each of so many sides, and their spacing."""
    lengths = places.shape[places.dim() - sides :]
    spacing = -(-max(lengths) // LONGEST_SIDE[sides])
    for side, length in enumerate(lengths, start=places.dim() - sides):
        kept = torch.arange(min(spacing // 2, length - 1), length, spacing, device=places.device)
        places = places.index_select(side, kept)
    return places, spacing
