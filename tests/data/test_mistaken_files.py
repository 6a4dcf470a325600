"""Files that are called a table and are none, and columns of Parquet files that a CSV file cannot have."""

import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas.data import CsvFormat, RowSplit, Table
from nas.data.arrays.array_file import read_arrays
from nas.data.mistaken_files import NOT_FETCHED
from nas.data.own_files import path_of
from nas.data.pictures.pictures import HeaderFindings, look_at_header
from nas.errors import InvalidValue, UnusableInput

ROWS = 20
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
COLUMNS: dict[str, list[Any]] = {"age": [7 * row % 50 for row in range(ROWS)], "kind": ["a", "b"] * 10}


def refused(file: Path, sentence: str, **settings: Any) -> None:
    with pytest.raises(UnusableInput) as caught:
        Table(RowSplit(), CsvFormat(), str(file), **{"target": "kind", **settings}).load()
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (POINTER, "stands for a file of Git LFS that was not fetched: git lfs pull fetches it"),
        ("\n<!DOCTYPE html>\n<html>404</html>\n", "is a web page or XML, maybe a page that says why nothing was down"),
        ('"age,kind"\n"1,a"\n"2,b"\n', "has quotation marks around whole lines, such as 'age,kind'"),
        ("{\\rtf1\\ansi age,kind\n1,a\n", "is no text, but a document (RTF): save it as CSV and give that file in"),
        ("age,kind\n1,3,a\n2,4,b\n", "R writes the names of rows so: write.csv(..., row.names = FALSE)"),
    ],
)
def test_what_is_no_table_is_told_as_what_it_is(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text(text)
    refused(file, sentence)


def test_a_text_of_windows_is_read_by_the_encoding_that_is_proposed(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    names = ("\u201cyes\u201d", "no")
    lines = [f"{row * row},{names[row % 2]}" for row in range(ROWS)]
    file.write_bytes("\n".join(["age,kind", *lines]).encode("cp1252"))
    refused(file, "data.csv.encoding=cp1252 reads the text of many older programs")
    table = Table(RowSplit(), CsvFormat(encoding="cp1252"), str(file), "kind")
    assert table.load().class_names == ("no", names[0])


def test_an_archive_of_a_mac_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "patients.zip", "w") as archive:
        archive.writestr("patients.csv", "age,kind\n1,a\n")
        archive.writestr("__MACOSX/._patients.csv", "")
    refused(tmp_path / "patients.zip", "has 2 files, patients.csv among them: unpack it, and name one in data.file")


def test_placeholders_of_other_files_and_addresses_are_told(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    file.write_text(POINTER)
    with pytest.raises(UnusableInput, match=f"it {NOT_FETCHED}"):
        read_arrays(file)
    seen = HeaderFindings()
    look_at_header(str(file.rename(tmp_path / "x.png")), seen)
    assert seen.unreadable[0][1] == f"it {NOT_FETCHED}"
    with pytest.raises(UnusableInput, match=r"s3://me/x\.csv is an address, and data are read from files"):
        path_of("s3://me/x.csv")
    with pytest.raises(UnusableInput, match="give its path alone"):
        path_of("file:///tmp/x.csv")


def test_columns_that_only_parquet_has_are_taken_or_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "patients.parquet"
    table = pd.DataFrame(COLUMNS | {"tags": [["x", "y"]] * ROWS, "patient": [row // 2 for row in range(ROWS)]})
    table.set_index("patient").to_parquet(file)
    refused(file, "tags (several values in each cell): 'data.ignore=[tags]'")
    refused(file, "The target tags of patients.parquet has several values in each cell", target="tags")
    grouped = Table(RowSplit(by="patient"), CsvFormat(), str(file), "kind", ignore=["tags"]).load()
    assert grouped.input_shape == (1,)


@pytest.mark.parametrize("name", ["patients.csv", "patients.csv.gz", "patients.zip", "x.npz", "x.png"])
def test_a_file_that_may_not_be_read_is_told_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    file.write_bytes(b"age,kind\n")

    def locked(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("builtins.open", locked)
    monkeypatch.setattr("io.open", locked)
    if name == "x.png":
        seen = HeaderFindings()
        look_at_header(str(file), seen)
        assert "Permission denied" in seen.unreadable[0][1]
    elif name == "x.npz":
        with pytest.raises(UnusableInput, match="Permission denied"):
            read_arrays(file)
    else:
        refused(file, "Permission denied")


@pytest.mark.parametrize("name", ["patients.csv.gz", "patients.csv.bz2", "patients.csv.xz", "patients.zip"])
def test_a_compressed_file_that_was_cut_off_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    pd.DataFrame(COLUMNS).to_csv(file, index=False)
    file.write_bytes(file.read_bytes()[:-20])
    refused(file, "a ZIP archive that is damaged or was cut off" if name.endswith("zip") else "cannot be read (")
    with pytest.raises((UnusableInput, InvalidValue)):  # and no traceback where no target is named
        Table(RowSplit(), CsvFormat(), str(file), None).load()


def test_an_archive_without_a_table_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "patients.zip", "w") as archive:
        archive.writestr("__MACOSX/._patients.csv", "")
    refused(tmp_path / "patients.zip", "is a ZIP archive without a table: name one in data.file")


def test_an_index_that_names_the_rows_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pyarrow")
    caplog.set_level("INFO")
    file = tmp_path / "patients.parquet"
    days = pd.date_range("2020-01-01", periods=ROWS, name="day")
    patients = pd.Index([7 * row**2 for row in range(ROWS)], name="patient")
    visits = pd.MultiIndex.from_arrays([[row // 4 for row in range(ROWS)], days], names=["patient", "day"])
    for index, kept in ((days.rename(None), 0), (patients.rename(None), 0), (days, 0), (patients, 0), (visits, 1)):
        caplog.clear()
        pd.DataFrame(COLUMNS, index=index).to_parquet(file)
        splits = Table(RowSplit(), CsvFormat(), str(file), "kind").load()
        assert splits.input_shape == (1 + kept,)
        assert f"left out, an index that names the rows: {index.names[-1] or '__index_level_0__'}" in caplog.text
    assert "taken as an input, the index of a data frame: patient; 'data.ignore=[patient]' leaves it" in caplog.text
    pd.DataFrame(COLUMNS | {"__index_level_0__": patients // 14}).to_parquet(file)
    assert Table(RowSplit(), CsvFormat(), str(file), "kind").load().input_shape == (1,)
    pd.DataFrame(COLUMNS, index=visits).to_parquet(file)
    assert Table(RowSplit(order="day"), CsvFormat(), str(file), "kind", ignore=["patient"]).load().input_shape == (1,)
    kept = Table(RowSplit(), CsvFormat(), str(file), "kind", ignore=["day"], numeric=["patient"]).load()
    assert kept.input_shape == (2,)


@pytest.mark.parametrize("missing", [-9, "-9.0"])
def test_what_is_missing_in_parquet_is_so_as_text_and_as_number(missing: str | float, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "patients.parquet"
    table = COLUMNS | {"lab": [-9, 1, 2, 4] * 5, "tag": ["-9", "x", "y", "x"] * 5, "won": [True, False] * 10}
    pd.DataFrame(table | {"5": [0.5, 1.5] * 10}).to_parquet(file)
    preparation = Table(RowSplit(), CsvFormat(), str(file), "kind", missing=[missing]).load().preparation
    assert preparation["numeric"][1]["indicator"]
    assert [column["values"] for column in preparation["categorical"]] == [["x", "y"], ["False", "True"]]


def test_columns_of_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    lines = [f"2024-01-{row % 28 + 1:02},note {row},{row * 37 % 100 + 0.5} EUR,{'ab'[row % 2]}" for row in range(40)]
    file.write_text("\n".join(["day,note,bill,kind", *lines]))
    bill = (
        "The column bill of patients.csv has in 40 of 40 rows numbers that are not written plainly ('0.5 EUR' in row 1)"
    )
    refused(file, bill)
    refused(
        file, "; and 2 columns of patients.csv cannot be an input as they are, day (dates such as '2024-01-01'), note"
    )
    refused(file, "'data.ignore=[day,note]' leaves them out")
    splits = Table(RowSplit(), CsvFormat(), str(file), "kind", ignore=["day", "note"], categorical=["bill"]).load()
    assert splits.input_shape == (1,)
