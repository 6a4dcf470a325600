"""A truth: random candidates of a joint space, each trained as a retraining trains, and what came of them.

``scripts/make_truth.py`` makes such a file. Its first line is ``#`` and a JSON object: the whole configuration, the
space and the ranges of its hyperparameters, so that a file needs nothing beside it. The rest is CSV.
"""

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.candidate import Architecture, Candidate, Categorical, Domain, Hyperparameters, Range
from nas.data.packed_file import unpacked
from nas.errors import InvalidValue, UnusableInput, require
from nas.run.checkpoint import write_atomically
from nas.spaces.recorded import space_from_description
from nas.spaces.space import SearchSpace

SCHEMA = 1
LARGEST_FILE = 200_000_000  # bytes, decompressed
CURVE = ("loss", "accuracy")
RESULTS = (
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
    "samples",
    "multiply_adds",
    "parameters",
    "cpu_seconds",
)


@dataclass(frozen=True)
class TruthRow:
    """One training.

    Attributes:
        number: Which candidate this is, from 0.
        repeat: 0 for its first training, then 1, 2, ... for those with other seeds.
        seed: The seed of this training.
        results: By the names in ``RESULTS``: losses (cross-entropy in nats, ``inf`` where the training broke off),
            accuracies (0 to 1), the samples and multiply-adds of the training and its one measurement on the validation
            split, the network's parameters, and processor time.
        losses, accuracies: On the validation split after every epoch.
    """

    number: int
    repeat: int
    candidate: Candidate
    seed: int
    results: Mapping[str, float]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Truth:
    """The rows of a file and what they were made with.

    Attributes:
        configuration: That of ``train_search.py``, resolved, as plain values.
        space: The space with the ranges of its hyperparameters.
    """

    configuration: Mapping[str, Any]
    space: SearchSpace
    rows: Sequence[TruthRow]

    @property
    def epochs(self) -> int:
        return int(self.configuration["final"]["epochs"])

    @property
    def first(self) -> list[TruthRow]:
        """Every candidate's first training: the random sample."""
        return [row for row in self.rows if row.repeat == 0]

    def repeated(self) -> dict[int, list[TruthRow]]:
        """All trainings of the candidates that were trained more than once, by the candidate's number."""
        found: dict[int, list[TruthRow]] = {}
        for row in self.rows:
            found.setdefault(row.number, []).append(row)
        return {number: rows for number, rows in found.items() if len(rows) > 1}

    def column(self, name: str) -> np.ndarray:
        """``name`` of every row of :attr:`first`, (candidates,)."""
        return np.array([row.results[name] for row in self.first])

    def mean_training(self, name: str) -> float:
        """The mean of ``samples``, ``multiply_adds`` or ``cpu_seconds`` over the sample: the unit of budgets."""
        return float(self.column(name).mean())

    def text(self) -> str:
        """The file's content."""
        names = [choice.name for choice in self.space.choices]
        ranges = {name: _described(domain) for name, domain in self.space.ranges.items()}
        header = {
            "schema": SCHEMA,
            "space": self.space.describe(),
            "ranges": ranges,
            "configuration": self.configuration,
        }
        out = io.StringIO()
        out.write(f"# {json.dumps(header)}\n")  # the order of ranges is that of the space, which draws in it
        writer = csv.writer(out, lineterminator="\n")
        curve = [f"{name}_{epoch}" for name in CURVE for epoch in range(1, self.epochs + 1)]
        writer.writerow(["number", "repeat", *names, *ranges, "seed", *RESULTS, *curve])
        for row in self.rows:
            options = [row.candidate.architecture[name] for name in names]
            values = [repr(row.candidate.hyperparameters[name]) for name in ranges]
            results = [f"{row.results[name]:.10g}" for name in RESULTS]
            points = [f"{value:.6g}" for value in (*row.losses, *row.accuracies)]
            writer.writerow([row.number, row.repeat, *options, *values, row.seed, *results, *points])
        return out.getvalue()

    def write(self, path: Path) -> None:
        """Write the file, compressed where its name ends in ``.gz``; equal rows give equal bytes."""
        content = self.text().encode()
        write_atomically(path, gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def read_truth(path: Path) -> Truth:
    """The inverse of :meth:`Truth.write`.

    Raises:
        UnusableInput: The file cannot be read or is no truth.
    """
    try:
        first, _, table = unpacked(path, LARGEST_FILE).decode().partition("\n")
        header = json.loads(first.removeprefix("# "))
        require(header.get("schema") == SCHEMA, "schema", header.get("schema"), f"it must be {SCHEMA}")
        space = space_from_description(header["space"])
        space.ranges = {name: _domain(one) for name, one in header["ranges"].items()}
        rows = [_row(space, entry) for entry in csv.DictReader(io.StringIO(table, newline=""))]
    except OSError as error:
        raise UnusableInput(f"The truth {path} cannot be read: {error.strerror or error}.") from error
    except (EOFError, ValueError, KeyError, TypeError, AttributeError, InvalidValue) as error:
        raise UnusableInput(f"{path} is not a truth that make_truth.py wrote ({error}).") from error
    if not rows:
        raise UnusableInput(f"The truth {path} has no rows.")
    return Truth(header["configuration"], space, rows)


def _row(space: SearchSpace, entry: Mapping[str, str]) -> TruthRow:
    architecture = Architecture(space.name, {choice.name: entry[choice.name] for choice in space.choices})
    architecture.check(space.choices)
    epochs = sum(name.startswith("loss_") for name in entry)
    curve = {name: tuple(float(entry[f"{name}_{epoch + 1}"]) for epoch in range(epochs)) for name in CURVE}
    return TruthRow(
        number=int(entry["number"]),
        repeat=int(entry["repeat"]),
        candidate=Candidate(architecture, Hyperparameters({name: float(entry[name]) for name in space.ranges})),
        seed=int(entry["seed"]),
        results={name: float(entry[name]) for name in RESULTS},
        losses=curve["loss"],
        accuracies=curve["accuracy"],
    )


def _described(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Categorical):
        return {"initial": domain.initial, "options": list(domain.options)}
    return {"low": domain.low, "high": domain.high, "scale": domain.scale}


def _domain(described: Mapping[str, Any]) -> Domain:
    return Categorical(**described) if "options" in described else Range(**described)
