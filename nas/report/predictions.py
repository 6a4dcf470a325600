"""``predictions.csv``: what a network says of test samples beside what is true, in the data's own words and units."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.run.checkpoint import write_atomically
from nas.tasks import Prediction, Task

PREDICTIONS = "predictions.csv"
PROBABILITY = "probability"  # the last column, where there are probabilities
MOST_ROWS = 200_000
LARGEST_FILE = 50_000_000  # bytes


class Predictions(NamedTuple):
    """Numbers of one target: what is true and what was said of the same samples."""

    true: list[float]
    predicted: list[float]


class PredictionsFile:
    """Takes in what a network says of the test part, in its order, and writes it down.

    There is a row per sample and target that is known. Of more than :data:`MOST_ROWS`, samples are left out evenly.
    Nothing is written of a task that tells nothing of single samples, such as one of every token.

    Args:
        task: What the outputs mean.
        splits: The data, with targets as the task has them.
    """

    def __init__(self, task: Task, splits: DataSplits) -> None:
        self._task, self._splits = task, splits
        self._samples = splits.test_samples or range(len(splits.test))
        targets = splits.test.targets
        count = min(len(targets), max(1, MOST_ROWS // (targets.shape[1] if targets.dim() == 2 else 1)))
        self._kept = set(evenly_spread(len(targets), count))
        self._seen = 0
        self._rows: list[tuple[str | int, Prediction]] = []

    def see(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in the next batch of the test part."""
        for place, found in enumerate(self._task.predictions(outputs, targets, self._splits), start=self._seen):
            if place in self._kept:
                self._rows += [(self._samples[place], one) for one in found if one.true]
        self._seen += len(targets)

    def write(self, folder: Path) -> tuple[()]:
        """Write what was taken in to a file in ``folder``, if there is anything. There is nothing to draw."""
        if self._rows:
            write_predictions(folder / PREDICTIONS, self._rows)
        return ()


def write_predictions(file: Path, rows: Sequence[tuple[str | int, Prediction]]) -> None:
    """Write ``rows``, each with its sample; what no row tells, a truth or a probability, has no column."""
    lacking = {name for name in ("true", PROBABILITY) if not any(getattr(one, name) for _, one in rows)}
    names = [name for name in Prediction._fields if name not in lacking]
    write_csv(file, ("sample", *names), ((sample, *(getattr(one, name) for name in names)) for sample, one in rows))


def write_csv(file: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write ``rows`` below the ``names`` of their columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    write_atomically(file, text.getvalue().encode())


def evenly_spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` places, at equal distances from the first to the last, each once."""
    chosen = torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()
    return sorted(set(chosen.tolist()))


def read_predictions(path: Path) -> dict[str, Predictions]:
    """The numbers that :class:`PredictionsFile` wrote, by target; classes and labels are left out.

    Raises:
        ValueError: The file cannot be read, is too large, or has rows of something else.
    """
    found: dict[str, Predictions] = {}
    if not path.is_file():
        return found
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path.name} is larger than {LARGEST_FILE} bytes")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if PROBABILITY in (rows.fieldnames or ()):
                return found
            for row in rows:
                true, predicted = float(row["true"]), float(row["predicted"])
                if math.isfinite(true) and math.isfinite(predicted):
                    of_target = found.setdefault(row["target"], Predictions([], []))
                    of_target.true.append(true)
                    of_target.predicted.append(predicted)
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} has rows that are no predictions") from error
    return found
