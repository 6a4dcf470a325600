"""Evaluation by looking up a table: NAS-Bench-201 as a CSV file or through its own packages.

Dong and Yang (2020), "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search".
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nas.candidate import Candidate
from nas.data.packed_file import unpacked
from nas.errors import InvalidValue, UnusableInput, require
from nas.evaluation.evaluation import Cost, Evaluation
from nas.evaluation.evaluator import Evaluator, Pruner, refuse_hyperparameters
from nas.evaluation.official_table import official_records
from nas.spaces.nasbench201.choices import architecture_text, parse_architecture
from nas.spaces.space import SearchSpace

LARGEST_FILE = 500_000_000  # bytes, decompressed
OFFICIAL = (".pth", ".pbz2")

Records = Callable[[str], Mapping[str, float]]
"""From an architecture's text to its ``accuracy`` (validation) and ``test_accuracy``, 0 to 1."""


class TableLookup(Evaluator):
    """Looks candidates up instead of training them. A table knows no hyperparameters.

    Args:
        path: A CSV file with the columns ``arch``, ``<dataset>_valid`` and ``<dataset>_test`` in per cent (``.csv`` or
            ``.csv.gz``), or the official file or folder, see :mod:`~nas.evaluation.official_table`.
        dataset: ``cifar10``, ``cifar100`` or ``imagenet16``, as in the CSV file's columns.
        epochs: Epochs of the training that is looked up in an official file, 12 or 200; a CSV file holds one training.
        space: The space; it must be NAS-Bench-201.

    Raises:
        InvalidValue: The space, the path, the data set or the epochs do not fit.
        UnusableInput: The file cannot be read, or the package that reads it is not installed.
    """

    batch = 1000

    def __init__(self, path: str, dataset: str, epochs: int = 12, *, space: SearchSpace) -> None:
        require(space.name == "nasbench201", "", space.name, "the table is for space=nasbench201")
        refuse_hyperparameters(space, "a table holds one training of each architecture")
        file = Path(path)
        csv_file = file.name.endswith((".csv", ".csv.gz"))
        good = file.is_dir() or (file.is_file() and (csv_file or file.suffix in OFFICIAL))
        allowed = "it must be a .csv or .csv.gz file, or the official .pth or .pickle.pbz2 file or folder"
        require(good, "path", path, allowed)
        self.records = csv_records(file, dataset) if csv_file else official_records(file, dataset, epochs)

    def evaluate(self, candidates: Sequence[Candidate], pruner: Pruner | None = None) -> list[Evaluation]:
        return [
            Evaluation(candidate, self.records(architecture_text(candidate.architecture)), Cost(evaluations=1))
            for candidate in candidates
        ]

    def price(self, candidate: Candidate) -> Cost:
        return Cost(evaluations=1)


def read_table(path: Path, dataset: str) -> dict[str, tuple[float, float]]:
    """Every architecture of a CSV table with its validation and test accuracy in per cent.

    Raises:
        InvalidValue: The table lacks the data set.
        UnusableInput: The file is not such a table.
    """
    try:
        text = unpacked(path, LARGEST_FILE).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        columns = rows.fieldnames or []
        known = sorted({name.rpartition("_")[0] for name in columns if name.endswith(("_valid", "_test"))})
        require(dataset in known, "dataset", dataset, f"the table has {', '.join(known)}")
        valid, test = f"{dataset}_valid", f"{dataset}_test"
        table = {
            architecture_text(parse_architecture(row["arch"])): (float(row[valid]), float(row[test])) for row in rows
        }
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidValue) and error.key in ("path", "dataset"):
            raise
        raise UnusableInput(f"{path} is not a readable table of architectures ({error}).") from error
    if not table:
        raise UnusableInput(f"{path} holds no architecture.")
    return table


def csv_records(path: Path, dataset: str) -> Records:
    """The records of a CSV table, see :func:`read_table`."""
    table = read_table(path, dataset)

    def found(text: str) -> Mapping[str, float]:
        if text not in table:
            raise UnusableInput(f"{path} does not hold the architecture {text}.")
        valid, test = table[text]
        return {"accuracy": valid / 100, "test_accuracy": test / 100}

    return found
