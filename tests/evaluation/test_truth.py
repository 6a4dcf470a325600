"""The file of a truth: what is written is read, equal rows give equal bytes, and a damaged file is named."""

import gzip
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.errors import UnusableInput
from nas.evaluation.truth import Truth, read_truth


@pytest.mark.parametrize("name", ["truth.csv", "truth.csv.gz"])
def test_what_is_written_is_read(name: str, truth: Truth, tmp_path: Path) -> None:
    failed = replace(truth.rows[0], results={**truth.rows[0].results, "validation_loss": math.inf})
    written = replace(truth, rows=[failed, *truth.rows[1:]])
    written.write(tmp_path / name)
    found = read_truth(tmp_path / name)
    assert found.space.describe() == truth.space.describe()
    assert found.space.ranges == truth.space.ranges
    assert (found.configuration, found.epochs) == (truth.configuration, 4)
    assert found.rows[0].results["validation_loss"] == math.inf
    for one, other in zip(found.rows, written.rows, strict=True):
        assert (one.number, one.repeat, one.seed) == (other.number, other.repeat, other.seed)
        assert one.candidate == other.candidate
        assert one.results == pytest.approx(other.results)
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        assert one.accuracies == pytest.approx(other.accuracies, rel=1e-5)
    found.write(tmp_path / f"again_{name}")
    assert (tmp_path / f"again_{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_the_sample_and_its_repeats_are_told_apart(truth: Truth) -> None:
    assert [row.number for row in truth.first] == list(range(80))
    repeated = truth.repeated()
    assert sorted(repeated) == list(range(0, 80, 4))
    assert all([row.repeat for row in rows] == [0, 1, 2] for rows in repeated.values())
    assert truth.column("test_loss").shape == (80,)
    assert truth.mean_training("samples") == 1.0
    assert np.array_equal(truth.column("validation_loss"), [row.losses[-1] for row in truth.first])


def damaged(text: str, how: str) -> bytes:
    lines = text.split("\n")
    if how == "no option":
        cells = lines[2].split(",")
        lines[2] = ",".join([*cells[:2], "5", *cells[3:]])
    elif how == "no number":
        lines[2] = lines[2].rpartition(",")[0] + ",x"
    elif how == "short row":
        lines[2] = lines[2].rpartition(",")[0]
    elif how == "no header":
        lines = lines[1:]
    elif how == "other schema":
        lines[0] = lines[0].replace('"schema": 1', '"schema": 99')
    elif how == "no rows":
        lines = [*lines[:2], ""]
    elif how == "empty":
        lines = [""]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "how", ["no option", "no number", "short row", "no header", "other schema", "no rows", "empty"]
)
def test_a_damaged_file_is_named(how: str, truth: Truth, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_bytes(damaged(truth.text(), how))
    with pytest.raises(UnusableInput, match=r"truth\.csv"):
        read_truth(path)


def test_other_files_are_named(truth: Truth, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv.gz"
    whole = gzip.compress(truth.text().encode())
    for content in (whole[:-30], b"\x1f\x8b nothing packed", bytes(range(256)), b"[1, 2]\n"):
        path.write_bytes(content)
        with pytest.raises(UnusableInput, match=r"truth\.csv\.gz"):
            read_truth(path)
    with pytest.raises(UnusableInput, match="cannot be read"):
        read_truth(tmp_path / "nowhere.csv")
