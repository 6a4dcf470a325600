"""What the cells of a table mean: codes, truth values, what is missing, and new rows of the same kind."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from nas.data import CsvFormat, RowSplit, Table
from nas.data.data_splits import loaded as from_source
from nas.data.shared_samples import shared_samples
from nas.data.tables.table_codes import PADDED
from nas.data.tables.table_file import Column
from nas.data.tables.table_remarks import parted_thousands
from nas.data.tables.table_rows import prepared_rows
from nas.errors import InvalidValue, UnusableInput
from nas.tasks import Classification
from tests.data.tables import loaded, write_table

ROWS = 40
COLUMNS: dict[str, list[Any]] = {
    "age": [20 + 7 * row % 50 for row in range(ROWS)],
    "sex": [["f", "m", None, "m"][row % 4] for row in range(ROWS)],
    "smoker": [row % 3 == 0 for row in range(ROWS)],
    "kind": [["a", "b"][row // 2 % 2] for row in range(ROWS)],
}


def written(folder: Path, name: str = "patients.csv", **columns: list[Any]) -> Path:
    return write_table(folder, COLUMNS | columns, name)


def test_codes_keep_their_zeros_and_are_no_amounts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    zips = [["00501", "02116", "10001", ""][row % 4] for row in range(ROWS)]
    file = written(tmp_path, zip=zips, kind=[["007", "010"][row // 2 % 2] for row in range(ROWS)])
    splits = loaded(file, split={"order": "time"})
    assert splits.class_names == ("007", "010")
    assert "more digits than an amount has): zip, kind; data.numeric takes them" in caplog.text
    assert splits.preparation["categorical"][2] == {"name": "zip", "values": ["00501", "02116", "10001"]}
    rows = pd.read_csv(file).drop(columns="kind")  # pandas loses the zeros
    assert torch.equal(prepared_rows(rows, splits.preparation)[:24], splits.train.inputs)  # type: ignore[attr-defined]
    assert loaded(file, numeric=["zip"]).preparation["numeric"][1]["median"] == 2116
    other = tmp_path / "test.csv"
    pd.read_csv(file, dtype=str).assign(zip=10001).to_csv(other, index=False)
    assert set(loaded(file, test_file=str(other)).test.inputs[:, 3].tolist()) == {3.0}  # type: ignore[attr-defined]
    times = [f"{row:03d}" for row in reversed(range(ROWS))]
    assert loaded(written(tmp_path, day=times), split={"order": "day"}).test_samples == list(range(8, 0, -1))


def test_new_rows_are_read_as_the_file_was(tmp_path: Path) -> None:
    file = written(tmp_path, lab=[-999 if row % 5 == 1 else row % 7 for row in range(ROWS)])
    file.write_text(file.read_text().replace("True", "TRUE").replace("False", "FALSE"))  # as spreadsheets write them
    preparation = loaded(file, missing=[-999]).preparation
    rows = [
        dict(zip(file.read_text().split("\n")[0].split(","), line.split(","), strict=True))
        for line in file.read_text().split("\n")[1:-1]
    ]
    expected = prepared_rows(pd.read_csv(file, na_values=["-999"]), preparation)
    assert torch.equal(prepared_rows(rows, preparation), expected)
    assert sorted(set(expected[:, -1].tolist())) == [1.0, 2.0], "truth values in capitals are no unknown texts"
    spelt = [row | {"smoker": {"TRUE": 1, "FALSE": 0}[row["smoker"]], "lab": float(row["lab"])} for row in rows]
    assert torch.equal(prepared_rows(spelt, preparation), expected)
    unknown = prepared_rows([rows[0] | {"lab": pd.NA, "sex": pd.NA, "age": "n/a"}], preparation)
    assert torch.equal(unknown[0, -2], torch.tensor(0.0))


def test_copies_in_two_parts_are_told_and_rows_that_are_equal_by_chance_are_not(tmp_path: Path) -> None:
    copied = {"age": [row % 20 for row in range(ROWS)], "dose": [row % 20 * 0.37 for row in range(ROWS)]}
    twos = {"sex": ["f", "m"] * 20, "smoker": [True, False] * 20, "kind": ["a", "b"] * 20}
    told = shared_samples(loaded(written(tmp_path, **copied, **twos)).parts)
    assert told is not None
    assert "samples of test are in train or validation, too" in told
    ages = [row % 3 for row in range(ROWS)]
    assert shared_samples(loaded(written(tmp_path, age=ages)).parts) is None


@pytest.mark.parametrize(
    ("columns", "remark"),
    [
        ({"won": [int(row // 2 % 2) for row in range(ROWS)]}, "won alone tells the target in all training rows: "),
        ({"lab": [-99 if row % 7 == 1 else row % 5 for row in range(ROWS)]}, "lab -99; if they stand for"),
        ({"lab": [999 if row % 7 == 1 else row % 5 for row in range(ROWS)]}, "lab 999; if they stand for"),
        ({"sex": ["f", "F", "m", "m"] * 10}, "texts of sex that differ only in case or blanks: F, f"),
        ({"city": ["x", "y"] * 16 + ["z"] * 8}, "which count as unknown: city (8)"),
        ({"sold": [990 + row if row < 9 else 1 + row * 0.037 for row in range(ROWS)]}, "(such as 1.333); if points"),
        ({"kind": ["sun", "sun", "sun;wind", "wind"] * 10}, None),
    ],
)  # fmt: skip
def test_values_that_may_mislead_are_told(
    columns: dict[str, list[Any]], remark: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    splits = loaded(written(tmp_path, **columns), split={"order": "time"})
    if remark is None:
        Classification().fitted(splits)
        remark = "classes such as 'sun;wind' may be several labels: "
    assert remark in caplog.text
    names = ("alone tells", "stand for missing", "in case or blanks", "which count as unknown", "several labels")
    assert sum(name in caplog.text for name in (*names, "part thousands")) == 1


@pytest.mark.parametrize(
    "numbers",
    [
        [row / 8 + 1 for row in range(90)],
        [1.001 + row / 1000 for row in range(90)],
        [0.5, 1.557, 2.114, 803] * 20,
        [round(1 + row % 10 / 3, 3) for row in range(90)],
        [0 if row % 9 == 0 else 1.299 + row % 70 / 100 for row in range(90)],
    ],
    ids=["eighths", "lengths", "below one", "means of three ratings", "prices, and zero where closed"],
)
def test_numbers_that_are_what_they_seem_part_no_thousands(numbers: list[float]) -> None:
    column = Column("x", "number", numbers=torch.tensor(numbers, dtype=torch.float64))
    assert parted_thousands({"x": column}, ".") is None


def test_thousands_are_told_with_the_mark_of_the_file_which_parquet_has_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = written(tmp_path, sold=[990 + row if row < 9 else round(1 + row * 0.037, 3) for row in range(ROWS)])
    pd.read_csv(file).to_parquet(tmp_path / "own.parquet")
    pd.read_csv(file).to_csv(file, index=False, decimal=",", sep=";")
    Table(RowSplit(), CsvFormat(";", ","), str(file), "kind").load()
    assert "sold (such as 1,333); if commas part thousands, remove them from the file" in caplog.text
    caplog.clear()
    loaded(tmp_path / "own.parquet")
    assert "part thousands" not in caplog.text


@pytest.mark.parametrize("far", [1e20, 9.96921e36, -3.4028235e38, -9999.9])
def test_a_number_that_drowns_all_others_is_told_with_the_setting_that_takes_it_as_missing(
    far: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rain = [far if row % 20 == 1 else row % 7 / 4 for row in range(ROWS)]
    file = written(tmp_path, rain=rain)
    loaded(file, split={"order": "time"})
    assert f"numbers far from all others: rain {far!r}; if they stand for missing ones, say '" in caplog.text
    proposed = re.search(r"'data\.missing=\[(.*?)\]'", caplog.text)
    assert proposed is not None
    caplog.clear()
    settled = loaded(file, missing=[float(proposed[1])], split={"order": "time"}).preparation["numeric"][1]
    assert (settled["name"], settled["indicator"]) == ("rain", True)
    assert 0 < settled["std"] < 1
    assert "far from all others" not in caplog.text


def test_targets_that_stand_for_missing_ones_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for rain, said in ((-999, "rain -999"), (1e20, "rain 1e+20")):
        caplog.clear()
        file = written(tmp_path, rain=[rain if row % 20 == 1 else row * 7 % 40 / 4 for row in range(ROWS)])
        from_source(Table(RowSplit(order="time"), CsvFormat(), str(file), "rain"))
        assert f"targets far from all others: {said}; if they stand for missing ones, leave" in caplog.text
    file = written(tmp_path, rain=[-999 if row == 5 else row * 7 % 40 / 8 for row in range(ROWS)])
    caplog.clear()
    from_source(Table(RowSplit(order="time"), CsvFormat(), str(file), "rain"))
    assert "targets far from all others: rain -999" in caplog.text, "once is enough where it is 100 times as far"
    caplog.clear()
    from_source(Table(RowSplit(order="time"), CsvFormat(), str(written(tmp_path)), "age"))
    assert "far from all others" not in caplog.text


def test_a_target_in_another_unit_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    celsius = [row * 7 % 40 * 0.3 for row in range(ROWS)]
    loaded(written(tmp_path, celsius=celsius, heat=[1.8 * one + 32 for one in celsius]), "heat")
    assert "celsius alone tells the target" in caplog.text


@pytest.mark.parametrize("group", [lambda age: f"{age}-", lambda age: f"-{age}-" if age % 2 else f"${age}"])
def test_a_hyphen_behind_each_number_is_no_sign(group: Callable[[int], str], tmp_path: Path) -> None:
    groups = [group(20 + row % 110) for row in range(440)]
    columns: dict[str, list[Any]] = {
        "age": groups,
        "dose": [row * 7 % 50 for row in range(440)],
        "kind": ["a", "b", "b", "a"] * 110,
    }
    found = loaded(write_table(tmp_path, columns), split={"order": "time"}).preparation["categorical"]
    assert len(found[0]["values"]) == 110


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("day", [f"Jan {1 + row % 5}, 2020" for row in range(ROWS)], "dates such as 'Jan 1, 2020'"),
        ("day", [f"{1 + row % 5}-Mar-20" for row in range(ROWS)], "dates such as '1-Mar-20'"),
        (
            "patient_id",
            [1000 + row**2 for row in range(ROWS)],
            "its name is that of an identifier, and each row has another number",
        ),
        ("weight", [f"{40 + row % 30} kg" for row in range(ROWS)], "not written plainly ('40 kg' in row 1)"),
        ("change", [f"\u2212{row % 30}.5" for row in range(ROWS)], "not written plainly"),
        ("cash", [f"({row % 30}.5)" for row in range(ROWS)], "not written plainly ('(0.5)' in row 1)"),
        (
            "lab",
            [1e308 if row == 38 else float(row % 7) for row in range(ROWS)],
            "lab of row 39 is too large beside",
        ),
        ("note", [f"'{row % 30}" for row in range(ROWS)], "not written plainly"),
        ("size", ["size" if row == 30 else str(row % 7) for row in range(ROWS)], "names of the columns once more"),
        ("size", ["\0" if row == 30 else str(row % 7) for row in range(ROWS)], "bytes of 0 are what is left"),
        ("kind", [f"{row:03d}" for row in range(ROWS)], "'data.numeric=[kind]' takes the codes of kind as amounts"),
        ("kind", ["NA", "a"] * 20, "NA, None, null and n/a are missing, too: a class needs another name"),
    ],
)
def test_columns_that_would_mislead_are_refused(column: str, values: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableInput) as caught:
        loaded(written(tmp_path, **{column: values}), split={"order": "time"})
    assert sentence in str(caught.value)


def test_whole_numbers_beyond_the_exact_ones_are_codes(tmp_path: Path) -> None:
    codes = [2**53 + row % 4 for row in range(ROWS)]
    splits = loaded(written(tmp_path, account=codes, kind=[2**53 + row // 2 % 2 for row in range(ROWS)]))
    assert splits.class_names == (str(2**53), str(2**53 + 1))
    assert len(splits.preparation["categorical"][2]["values"]) == 4
    far_apart = loaded(written(tmp_path, kind=[10**16 + 1, 5] * 20))
    assert far_apart.class_names == ("5", str(10**16 + 1)), "a name keeps all its digits"


def test_names_that_hydra_or_nobody_can_read_are_shown(tmp_path: Path) -> None:
    file = written(tmp_path, größe=[f"{row}a{row}" for row in range(ROWS)])
    with pytest.raises(UnusableInput, match=r"""'data.ignore=\["größe"\]'"""):
        loaded(file)
    with pytest.raises(InvalidValue, match=r"\(did you mean '\\u200bwidth'\?\)"):
        loaded(written(tmp_path, **{"\u200bwidth": [0.5 * row for row in range(ROWS)]}), "width")


def test_plain_columns_are_no_dates_units_or_identifiers(tmp_path: Path) -> None:
    squares = [row**2 for row in range(ROWS)]
    texts = [f"{row % 8} {['may', 'west'][row % 2]}" for row in range(ROWS)]
    assert loaded(written(tmp_path, acid=squares, paid=squares, floor=texts)).input_shape == (6,)
    with pytest.raises(UnusableInput, match="at least two classes in its training part: all 24 samples are of a"):
        Classification().fitted(loaded(written(tmp_path, kind=["a"] * ROWS)))


CODES = [f"{row * 7 % ROWS:03d}" for row in range(ROWS)]


@pytest.mark.parametrize(
    ("columns", "settings", "sentence"),
    [
        ({"cost": CODES}, {}, "cost (40 different codes in 40 rows): .*; 'data.numeric=[age,cost]' keeps cost as num"),
        ({"y": CODES}, {"target": ["age", "y"]}, "y of patients.csv has codes: .*; 'data.numeric=[age,y]' takes the"),
        (
            {"y": ["01"] * 30 + ["02"] * 9 + ["03"]},
            {"target": "y", "split": {"order": "time"}},
            "lacks, 02 (2): .*; 'data.numeric=[age,y]' takes the codes of y as amounts",
        ),
    ],
    ids=["input", "several", "unseen"],
)
def test_where_codes_are_refused_the_way_to_numbers_is_named(
    columns: dict[str, list[Any]], settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    file = written(tmp_path, **columns)
    with pytest.raises(UnusableInput, match=re.escape(sentence).replace(r"\.\*", ".*")):
        loaded(file, numeric=["age"], **settings)
    loaded(file, numeric=["age", *columns], **settings)


def test_large_numbers_are_numbers_where_float64_tells_them_apart(tmp_path: Path) -> None:
    moments = [1_700_000_000_000_000_001 + 1_000_000_000 * (row * 7 % ROWS) for row in range(ROWS)]
    counts = [10**16 if row == 7 else row % 9 for row in range(ROWS)]
    preparation = loaded(written(tmp_path, moment=moments, count=counts)).preparation
    assert [column["name"] for column in preparation["numeric"]] == ["age", "moment", "count"]


def test_a_test_file_may_have_lost_the_zeros_of_codes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    codes = {"kind": ["01", "02"] * 20, "zip": ["00501", "02116", "10001", "00501"] * 10}
    file, other = written(tmp_path, **codes), tmp_path / "test.csv"
    pd.read_csv(file).to_csv(other, index=False)
    splits = loaded(file, test_file=str(other))
    assert splits.class_names == ("01", "02")
    assert splits.test.targets.tolist() == [0, 1] * 20  # type: ignore[attr-defined]
    assert set(splits.test.inputs[:, 3].tolist()) == {1.0, 2.0, 3.0}  # type: ignore[attr-defined]
    pd.read_csv(file, dtype=str).assign(zip=["501", "x"] * 20).to_csv(other, index=False)
    loaded(file, test_file=str(other))
    assert "which count as unknown: zip (20)" in caplog.text
    assert caplog.text.count("count as unknown") == 1


@pytest.mark.parametrize("missing", [-999, -999.0, "-999", "-999.0"])
def test_what_is_missing_in_the_file_is_missing_in_new_rows_however_it_is_written(
    missing: str | float, tmp_path: Path
) -> None:
    labs, tags = [-999 if row % 5 == 1 else row % 7 for row in range(ROWS)], ["x", "-999", "y", "x"] * 10
    splits = loaded(written(tmp_path, lab=labs, tag=tags), missing=[missing], split={"order": "time"})
    expected = splits.train.inputs  # type: ignore[attr-defined]
    assert splits.preparation["categorical"][2]["values"] == ["x", "y"]
    columns = {**COLUMNS, "tag": tags}
    for lab in (labs, [str(one) for one in labs], torch.tensor(labs), torch.tensor(labs).float()):
        assert torch.equal(prepared_rows(columns | {"lab": lab}, splits.preparation)[: len(expected)], expected)


def test_missing_is_proposed_where_it_takes_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labs = [99 if row % 7 == 1 else row % 5 for row in range(ROWS)]
    loaded(written(tmp_path, lab=labs), missing=["?", -1], split={"order": "time"})
    assert """lab 99; if they stand for missing ones, say 'data.missing=["?",-1,99]'""" in caplog.text
    loaded(written(tmp_path, lab=labs, weight=[63 + row % 9 * 6 for row in range(ROWS)]), split={"order": "time"})
    assert "missing ones, leave their cells empty in the file (99 is a value of other columns, too)" in caplog.text


@pytest.mark.parametrize(
    "texts",
    [
        ["Ward Mayfair 12 34", "Sepal 1 20", "Marble 2 2020"],
        ["2 Decks 10", "3 Marbles 12"],
        [f"{row}B" for row in range(25)],
    ],
    ids=["wards", "decks", "flats"],
)
def test_names_with_numbers_are_neither_dates_nor_numbers(texts: list[str], tmp_path: Path) -> None:
    rows = (texts * 200)[:200]
    table = {"x": [0.5 * (row % 9) for row in range(200)], "place": rows, "kind": ["a", "b"] * 100}
    assert len(loaded(write_table(tmp_path, table)).preparation["categorical"]) == 1


def test_an_index_is_whole_and_a_price_index_is_an_amount(tmp_path: Path) -> None:
    squares = [row**2 for row in range(ROWS)]
    assert loaded(written(tmp_path, price_index=squares)).input_shape == (4,)
    with pytest.raises(UnusableInput, match=r"Index \(its name is that of an identifier"):
        loaded(written(tmp_path, Index=squares))


@pytest.mark.parametrize(
    ("line", "may"),
    [
        (b"1, 09:30,2", False),
        (b"1, 01/02/2020 10:05", False),
        (b"0.05,-0.5,1e-05", False),
        (b"x,00501,y", True),
        (b'"02",1', True),
    ],
)
def test_times_and_dates_do_not_look_like_codes(line: bytes, may: bool) -> None:
    assert bool(PADDED.search(line + b"\n")) == may


def test_a_gap_in_true_and_false_has_nothing_to_do_with_names(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"fill in or remove these rows\.$"):
        loaded(written(tmp_path, kind=[True, False, None, True] * 10))


@pytest.mark.parametrize("kind", ["durations", "times of day"])
def test_durations_and_times_of_day_are_seconds_in_new_rows_too(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    seconds = pd.Series([3600.5 * (row * 7 % 23) for row in range(ROWS)])
    stay = pd.to_timedelta(seconds, unit="s")
    frame = pd.DataFrame(COLUMNS | {"stay": stay if kind == "durations" else (pd.Timestamp(0) + stay).dt.time})
    frame.loc[5, "stay"] = seconds[5] = None
    file = tmp_path / "patients.parquet"
    frame.to_parquet(file)
    splits = loaded(file, split={"order": "time"})
    column = next(column for column in splits.preparation["numeric"] if column["name"] == "stay")
    assert column["median"] == seconds[:24].median()
    train = splits.train.inputs  # type: ignore[attr-defined]
    for rows in (frame, frame.astype(object).to_dict("records"), frame.assign(stay=seconds)):
        assert torch.equal(prepared_rows(rows, splits.preparation)[:24], train)
    named = loaded(file, split={"order": "time"}, categorical=["stay"])
    codes = named.train.inputs[:, -1]  # type: ignore[attr-defined]
    assert codes.unique().numel() > 2
    for rows in (frame, frame.assign(stay=seconds)):
        assert torch.equal(prepared_rows(rows, named.preparation)[:24], named.train.inputs)  # type: ignore[attr-defined]
