"""``predictions.csv``: what a network says of test samples beside what is true, in the targets' own units."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.data.data_splits import DataSplits
from nas.evaluation.network_cost import modes_kept
from nas.run.checkpoint import write_atomically
from nas.tasks import Task

COLUMNS = ("sample", "target", "true", "predicted")
MOST_ROWS = 4000
LARGEST_FILE = 10_000_000  # bytes


class Predictions(NamedTuple):
    """Numbers of one target: what is true and what was said of the same samples."""

    true: list[float]
    predicted: list[float]


@torch.no_grad()
def write_predictions(
    path: Path, network: nn.Module, splits: DataSplits, task: Task, names: Sequence[str], device: torch.device
) -> None:
    """Write a row per test sample and target, of at most :data:`MOST_ROWS` evenly spread over the test part.

    Nothing is written of a task whose outputs are no numbers in the data's own units, or numbers for every place.

    Args:
        path: The file.
        network: Trained; it is left in the mode it was in.
        splits: The data, with targets as the task has them.
        task: What the outputs mean.
        names: What the targets are called.
        device: Where the network is.
    """
    targets = splits.test.targets
    truth = task.predicted(targets)
    if truth is None or truth.dim() != 2:
        return
    count = min(len(targets), max(1, MOST_ROWS // truth.shape[1]))
    samples = torch.linspace(0, len(targets) - 1, count, dtype=torch.float64).round().long()
    part = splits.test.select(samples).to(device)
    said: list[Tensor] = []
    with modes_kept(network):
        network.eval()
        for batch in part.evaluation_batches(256, splits.mean, splits.std):
            found = task.predicted(network(batch.inputs).float())
            assert found is not None
            said.append(found.cpu())
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    pairs = zip(samples.tolist(), truth[samples].tolist(), torch.cat(said).tolist(), strict=True)
    for sample, true, predicted in pairs:
        for name, of_target, said_of_it in zip(names, true, predicted, strict=True):
            if math.isfinite(of_target):
                rows.writerow((sample, name, f"{of_target:.7g}", f"{said_of_it:.7g}"))
    write_atomically(path, text.getvalue().encode())


def read_predictions(path: Path) -> dict[str, Predictions]:
    """What :func:`write_predictions` wrote, by target.

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
            for row in csv.DictReader(file):
                true, predicted = float(row["true"]), float(row["predicted"])
                if math.isfinite(true) and math.isfinite(predicted):
                    of_target = found.setdefault(row["target"], Predictions([], []))
                    of_target.true.append(true)
                    of_target.predicted.append(predicted)
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} has rows that are no predictions") from error
    return found
