"""Tables of a test, written as a user has them and loaded as a run loads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas.data import CsvFormat, DataSplits, RowSplit, Table


def write_table(folder: Path, columns: Mapping[str, Sequence[Any]], name: str = "patients.csv") -> Path:
    file = folder / name
    pd.DataFrame(columns).to_csv(file, index=False)
    return file


def loaded(file: Path, target: Any = "kind", **settings: Any) -> DataSplits:
    split, csv = RowSplit(**settings.pop("split", {})), CsvFormat(**settings.pop("csv", {}))
    return Table(split, csv, str(file), target, **settings).load()
