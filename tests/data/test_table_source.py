"""Tables of a user's own: what is read, what is measured on the training part, and what is refused by name."""

import json
import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from nas.configuration import build
from nas.data import CsvFormat, RowSplit
from nas.data.tables.table_columns import as_said, targets_among
from nas.data.tables.table_file import Column
from nas.data.tables.table_rows import prepared_rows
from nas.errors import InvalidValue, UnusableInput
from nas.typed_settings import override
from tests.data.tables import loaded, write_table

ROWS = 40
COLUMNS: dict[str, list[Any]] = {
    "age": [20 + 7 * row % 50 for row in range(ROWS)],
    "dose": [None if row % 8 == 3 else 1e9 + row * 0.5 for row in range(ROWS)],
    "sex": [["f", "m", None, "m"][row % 4] for row in range(ROWS)],
    "smoker": [row % 3 == 0 for row in range(ROWS)],
    "empty": [None] * ROWS,
    "ward": ["west"] * ROWS,
    "kind": [["a", "b"][row // 2 % 2] for row in range(ROWS)],
}


def written(folder: Path, **columns: list[Any]) -> Path:
    return write_table(folder, COLUMNS | columns)


def test_a_table_becomes_numbers_indicators_and_codes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    splits = loaded(written(tmp_path), split={"order": "time"})
    assert splits.name == "patients"
    assert splits.class_names == ("a", "b")
    assert splits.target_names == ("kind",)
    assert splits.categories == (3, 3)  # sex and smoker, each with a code for unknown and missing
    assert splits.input_shape == (5,)  # age, dose, whether there is a dose, sex, smoker
    table = pd.DataFrame(COLUMNS)
    known = table.dose[:24]
    filled = known.fillna(known.median())
    inputs = splits.train.inputs.double()  # type: ignore[attr-defined]
    scaled = (filled - filled.mean()) / filled.std(ddof=0)
    torch.testing.assert_close(inputs[:, 1], torch.tensor(scaled.to_numpy()), atol=1e-6, rtol=0)
    assert inputs[:, 2].tolist() == [float(row % 8 == 3) for row in range(24)]
    assert inputs[:, 3].tolist() == [[1, 2, 0, 2][row % 4] for row in range(24)]
    assert inputs[:, 4].tolist() == [2.0 if row % 3 == 0 else 1.0 for row in range(24)]
    for words in ("empty in all training rows: empty", "of one value in all training rows: ward", "dose (5), sex (10)"):
        assert words in caplog.text


def test_what_test_rows_hold_changes_no_statistic(tmp_path: Path) -> None:
    file = written(tmp_path)
    first = loaded(file)
    order = {tuple(row) for row in first.train.inputs.tolist()}  # type: ignore[attr-defined]
    changed = pd.read_csv(file, dtype={"age": float})
    split = RowSplit()
    from nas.data.row_split import Rows, drawn_parts

    parts = drawn_parts(Rows(ROWS, labels=torch.tensor([row // 2 % 2 for row in range(ROWS)])), split)
    later = [*parts.validation.tolist(), *parts.test.tolist()]
    changed.loc[later, ["age", "dose"]] = [[1e6, float("nan")]] * len(later)
    changed["sex"] = changed["sex"].astype(object)
    changed.loc[later, "sex"] = "unseen"
    changed.to_csv(file, index=False)
    second = loaded(file)
    assert second.preparation == first.preparation
    assert (second.mean, second.std, second.class_names) == (first.mean, first.std, first.class_names)
    assert {tuple(row) for row in second.train.inputs.tolist()} == order  # type: ignore[attr-defined]
    assert second.test.inputs[:, 3].unique().tolist() == [0.0]  # type: ignore[attr-defined] # unseen is unknown
    assert second.digest != first.digest


def test_the_preparation_is_json_that_takes_new_rows(tmp_path: Path) -> None:
    splits = loaded(written(tmp_path), split={"order": "time"})
    preparation = json.loads(json.dumps(splits.preparation, allow_nan=False))
    assert preparation == splits.preparation
    rows = [{name: values[row] for name, values in COLUMNS.items()} for row in range(ROWS)]
    train = splits.train.inputs  # type: ignore[attr-defined]
    assert torch.equal(prepared_rows(rows, preparation)[:24], train)
    assert torch.equal(prepared_rows(COLUMNS, preparation)[:24], train)
    assert torch.equal(prepared_rows(rows[1], preparation), train[1:2])
    frame = pd.DataFrame(COLUMNS)
    assert torch.equal(prepared_rows(frame, preparation)[:24], train)
    assert torch.equal(prepared_rows(frame.iloc[1], preparation), train[1:2])
    assert torch.equal(prepared_rows([row for _, row in frame.iterrows()], preparation)[:24], train)
    as_texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert torch.equal(prepared_rows(as_texts, preparation)[:24], train)
    strange = {"age": 30, "dose": float("nan"), "sex": "unheard of", "smoker": None}
    assert prepared_rows(strange, preparation)[0, 2:].tolist() == [1.0, 0.0, 0.0]
    for wrong, words in [
        ({"age": 30}, "lack the columns dose, sex, smoker"),
        (strange | {"weight": 70}, "had no column weight"),
        (frame.to_numpy(), "rows need the names of their columns: give a data frame"),
        (strange | {"age": "thirty"}, "age of row 1 is 'thirty', not a number"),
        (strange | {"age": "inf"}, "age is infinite in 1 of 1 rows, first in row 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            prepared_rows(wrong, preparation)


@pytest.mark.parametrize("kind", ["csv", "gz", "tsv", "tabs", "european", "parquet"])
def test_every_format_gives_the_same_inputs(kind: str, tmp_path: Path) -> None:
    expected = loaded(written(tmp_path))
    frame, settings = pd.DataFrame(COLUMNS), {}
    file = tmp_path / {"gz": "patients.csv.gz", "european": "patients.csv", "tabs": "patients.txt"}.get(
        kind, f"patients.{kind}"
    )
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.astype({"sex": "category"}).to_parquet(file)
    elif kind == "european":
        frame.to_csv(file, index=False, sep=";", decimal=",", encoding="latin-1")
        settings = {"csv": {"separator": ";", "decimal": ",", "encoding": "latin-1"}}
    else:
        frame.to_csv(file, index=False, sep="\t" if kind in ("tsv", "tabs") else ",")
        settings = {"csv": {"separator": r"\t"}} if kind == "tabs" else {}
    splits = loaded(file, **settings)
    decimal = {"decimal": ","} if kind == "european" else {}
    assert splits.preparation == {**expected.preparation, **decimal}
    assert torch.equal(splits.train.inputs, expected.train.inputs)  # type: ignore[attr-defined]
    assert torch.equal(splits.test.targets, expected.test.targets)


@pytest.mark.parametrize(
    ("target", "kind", "names"),
    [
        ("kind", torch.int64, ("a", "b")),
        ("age", torch.int64, None),
        ("weight", torch.float64, None),
        ("smoker", torch.bool, None),
        (["age", "weight"], torch.float64, None),
        (["smoker", "ill"], torch.bool, None),
    ],
)
def test_targets_keep_their_type(target: Any, kind: torch.dtype, names: tuple[str, ...] | None, tmp_path: Path) -> None:
    weight, ill = [50 + row % 9 + 0.5 for row in range(ROWS)], [row % 5 == 0 for row in range(ROWS)]
    splits = loaded(written(tmp_path, weight=weight, ill=ill), target)
    assert splits.train.targets.dtype == kind
    assert splits.train.targets.shape[1:] == ((2,) if isinstance(target, list) else ())
    assert splits.class_names == names
    assert not {"kind"} & set(splits.target_names) or target == "kind"
    inputs = [column["name"] for column in [*splits.preparation["numeric"], *splits.preparation["categorical"]]]
    assert not set(splits.target_names) & set(inputs)


def test_a_test_file_is_the_test_part_and_its_columns_are_matched_by_name(tmp_path: Path) -> None:
    file = written(tmp_path)
    test = pd.DataFrame(COLUMNS)[list(reversed(COLUMNS))].head(8)
    test.drop(columns="ward").to_csv(tmp_path / "test.csv", index=False)
    splits = loaded(file, test_file=str(tmp_path / "test.csv"), ignore=["ward"])
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (32, 8, 8)
    assert torch.equal(splits.test.inputs, prepared_rows(test, splits.preparation))  # type: ignore[attr-defined]
    assert list(splits.test_samples) == list(range(1, 9))


def test_columns_that_divide_the_rows_are_no_inputs(tmp_path: Path) -> None:
    patient = [f"p{row // 4}" for row in range(ROWS)]
    splits = loaded(written(tmp_path, patient=patient), split={"by": "patient"})
    assert splits.preparation["left_out"] == ["patient", "empty", "ward"]
    splits = loaded(written(tmp_path, patient=[row // 4 for row in range(ROWS)]), "age", split={"by": "patient"})
    numbered = [[COLUMNS["age"].index(age) // 4 for age in part.targets.tolist()] for part in splits.parts.values()]
    assert sum(len(set(of_part)) for of_part in numbered) == 10
    last = [COLUMNS["age"][row] for row in (6, 7, 4, 5, 2, 3, 0, 1)]
    for first, later in (("2024-01-{:02}", "2024-02-{:02}"), ("{}.1.2024", "{:02}.02.2024, 09:30")):
        days = [(later if row < 20 else first).format(21 - row // 2) for row in range(ROWS)]
        splits = loaded(written(tmp_path, day=days), "age", split={"order": "day"})
        assert splits.test.targets.tolist() == last


def test_a_column_of_parts_is_no_input_and_divides_the_rows(tmp_path: Path) -> None:
    said = ["train"] * (ROWS - 10) + ["val"] * 4 + ["test"] * 6
    file = written(tmp_path, split=said)
    splits = loaded(file, split={"parts": "split"})
    assert [len(part) for part in splits.parts.values()] == [ROWS - 10, 4, 6]
    assert splits.test_samples == list(range(ROWS - 5, ROWS + 1))
    assert not splits.exchangeable
    assert "split" in splits.preparation["left_out"]
    with pytest.raises(UnusableInput, match=r"split \(it says test, train, val, .* data.split.parts=split divides"):
        loaded(file)
    assert len(loaded(file, categorical=["split"]).train)


def test_a_column_of_parts_that_a_data_frame_had_as_categories_is_no_input_either(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(COLUMNS | {"split": ["train"] * (ROWS - 10) + ["val"] * 4 + ["test"] * 6})
    frame.astype({"split": "category"}).to_parquet(tmp_path / "own.parquet")
    ways = r"'data.categorical=\[ward,split\]' takes texts as categories; data.split.parts=split divides"
    with pytest.raises(UnusableInput, match=rf"split \(it says test, train, val, .* {ways}"):
        loaded(tmp_path / "own.parquet", categorical=["ward"])
    assert len(loaded(tmp_path / "own.parquet", categorical=["split"]).train)
    assert len(loaded(tmp_path / "own.parquet", split={"parts": "split"}).test) == 6


BAD_AGES = [*COLUMNS["age"][:30], "?", *COLUMNS["age"][31:]]
UNIQUE = [f"name {row}" for row in range(ROWS)]
DATES = [f"2024-01-{1 + row % 28:02}" for row in range(ROWS)]
MISTAKES: list[tuple[dict[str, list[Any]], dict[str, Any], str]] = [
    (
        {},
        {"target": "Kind"},
        r"target=Kind is not allowed: patients.csv has the columns age, .* \(did you mean kind\?\)",
    ),
    ({}, {"ignore": ["ag"]}, r"ignore=ag is not allowed: .*did you mean age"),
    ({}, {"ignore": ["kind"]}, r"ignore=kind is not allowed: it is the target"),
    (
        {},
        {"target": "sex"},
        r"The target sex of patients.csv is missing in 10 of 40 rows \(rows 3, 7, 11, 15, 19 and 5",
    ),
    ({"y": [1.0, float("inf")] * 20}, {"target": "y"}, r"column y of .* is infinite in 20 of 40 rows \(rows 2, 4, "),
    (
        {"age": BAD_AGES},
        {},
        r"The column age .* a text in 1 of 40 rows \('\?' in row 31\): 'data.missing=\[\"\?\"\]' takes",
    ),
    (
        {"name": UNIQUE},
        {},
        r"name \(40 different texts in 40 rows\): 'data.ignore=\[name\]' .*'data.categorical=\[name\]'",
    ),
    ({"my day": DATES}, {}, r"my day \(dates such as '2024-01-01'\): 'data.ignore=\[\"my day\"\]' leaves it out\."),
    ({"id": list(range(1, 41))}, {}, r"id \(it numbers the rows\): 'data.ignore=\[id\]' leaves it out; 'data.num"),
    (
        {"name": UNIQUE},
        {"target": "name"},
        r"target name of .* has 40 different texts in 40 rows: a class needs several",
    ),
    ({"day": DATES}, {"target": "day"}, r"The target day of patients.csv has dates"),
    (
        {},
        {"target": ["age", "kind"]},
        r"The target kind of patients.csv has texts: several targets must all be numbers",
    ),
    (
        {},
        {"numeric": ["sex"]},
        r"The column sex of patients.csv has 30 texts that are no numbers, the first is 'f' in row 1",
    ),
    ({}, {"split": {"by": "sex"}}, r"The column sex .*data.split.by names, is missing in 10 of 40 rows \(rows 3, 7, "),
    (
        {"day": UNIQUE},
        {"split": {"order": "day"}},
        r"data.split.order sorts, has no time in 40 of 40 rows, the first is 'name 0' in row 1: write times as",
    ),
    (
        {"x": ["1,5"] * 39 + ["2,5"]},
        {},
        r"x of patients.csv has decimal commas \('1,5' in row 1\): .data.csv.decimal=','",
    ),
    (
        {"x": ["1,500"] * 39 + ["2,500"]},
        {},
        r"data.csv.decimal=','\" reads them; if they part thousands, remove them from the file\.",
    ),
    ({"x": [1e300, -1e300] * 20}, {}, r"x of patients.csv .* too large .* such as 1e\+300: .*ignore=\[x\]"),
    ({}, {"target": ["age", "age"]}, r"target=\['age', 'age'\] is not allowed: it must have each name once"),
    (
        {"rare": ["often"] * 36 + list("abcd")},
        {"target": "rare"},
        r" of .* that its training part lacks, . \(1\).*: leave .* out, add samples until each part can have some",
    ),
    ({}, {"csv": {"separator": ";"}}, r"target=kind is not allowed"),
    (
        {"day": [*DATES[:-1], "31/01/2024"]},
        {"split": {"order": "day"}},
        r"no time in 1 of 40 rows, the first is '31/01/2024' in row 40: write times as 2024-01-31",
    ),
    (
        {"id": [1000 + 7 * row % ROWS for row in range(ROWS)]},
        {"numeric": ["age"]},
        r"id \(it numbers the rows\): .*; 'data.numeric=\[age,id\]' keeps id as numbers\.$",
    ),
    (
        {"y": [*["unknown"] * 3, *[1.5] * 37]},
        {"target": "y"},
        r"text in 3 of 40 rows \('unknown' in row 1\): correct or remove these rows, or 'data.categorical=\[y\]'",
    ),
    ({"y": [1.0, float("inf")] * 20}, {"target": "y"}, r"infinite .*\(rows 2, .*\): correct or remove them\.$"),
    (
        {"rate": [f"{5 + row % 21} %" for row in range(ROWS)]},
        {},
        r"rate of .* has in 40 of 40 rows numbers that are not written plainly \('5 %' in row 1\): write them without "
        r"units, blanks, signs and marks between thousands, or 'data.categorical=\[rate\]'",
    ),
    (
        {"price": [row if row % 2 else f"$1,{200 + row}.50" for row in range(ROWS)]},
        {},
        r"price of .* in 20 of 40 rows numbers .* \('\$1,200.50' in row 1\)",
    ),
    (
        {"price": [f"{row},5" if row % 2 else f"1.{200 + row},50" for row in range(ROWS)]},
        {},
        r"price of .* in 40 of 40 rows numbers .* \('1.200,50' in row 1\)",
    ),
    (
        {"age": [*COLUMNS["age"][:39], "9,1\n7,2"]},
        {},
        r"age of .* a text in 1 of 40 rows \('9,1.n7,2' in row 40\): a quotation mark there is not closed\.$",
    ),
    (
        {},
        {"numeric": ["age"], "categorical": ["age"]},
        r"categorical=age is not allowed: it is in data.numeric, too",
    ),
    (
        {"a": ["yes", "no"] * 20},
        {"target": ["a", "age"]},
        r"target a of .* has texts: .* write 0 and 1 for labels",
    ),
    ({}, {"target": "KIND"}, r"target=KIND is not allowed: .* \(did you mean kind\?\)"),
    (
        {"rate": [f"{row + 5} %" for row in range(ROWS)], "price": [f"${row + 1000:,}.50" for row in range(ROWS)]},
        {},
        r"^The column rate .* takes all of them as texts; to be mended, too: price\.$",
    ),
    (
        {"saldo": [f"{row + 500}.25-" if row % 2 else row for row in range(ROWS)]},
        {},
        r"saldo of .* numbers that are not written plainly \('501.25-' in row 2\)",
    ),
    *(
        ({"day": [f"{1 + row % 28}{month} 2024" for row in range(ROWS)]}, {}, rf"day \(dates such as '1{month} 2024'\)")
        for month in (". März", " février", " déc.", ". Okt.", ". Ma\u0308rz", ". Jänner", " fevrier", " aou\u0302t")
    ),
    *(
        ({"day": [f"{day} {1 + row % 28}. Mai 2024" for row in range(ROWS)]}, {}, rf"day \(dates such as '{day} 1. Mai")
        for day in ("Mo.,", "Samstag,", "lun.", "Wednesday")
    ),
    ({"20": ["x"] * ROWS}, {"target": "outcome"}, r"has the columns .*20 \(its first line must have the names"),
]


@pytest.mark.parametrize("separator", [",", "\t"])
def test_rows_that_stray_quotation_marks_swallow_are_told(
    separator: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sizes = ['"7 in' if row in (7, 20) else ["5 in", "6 in"][row % 2] for row in range(ROWS)]
    lines = [separator.join((str(row * 7 % 20), size, "ab"[row // 2 % 2])) for row, size in enumerate(sizes)]
    file = tmp_path / "screens.csv"
    file.write_text("\n".join([separator.join(("age", "size", "kind")), *lines]))
    csv = {"separator": None if separator == "," else "tab"}
    assert sum(map(len, loaded(file, csv=csv).parts.values())) == ROWS - 13
    assert "screens.csv: row 8 has a text over 14 lines with as many separators as rows have, '7 in" in caplog.text
    caplog.clear()
    file.write_text(file.read_text().replace('"7 in', '"7 in, wide\nflat"'))
    assert sum(map(len, loaded(file, csv=csv).parts.values())) == ROWS
    assert "swallows rows" not in caplog.text
    file.write_text(file.read_text().replace('flat"', "flat").replace('"7 in', "7 in", 1))
    with pytest.raises(UnusableInput, match=r"a quotation mark in row 22, .* is not closed"):
        loaded(file, csv=csv)


@pytest.mark.parametrize(("columns", "settings", "sentence"), MISTAKES)
def test_a_mistake_is_told_in_one_sentence_with_names_and_numbers(
    columns: dict[str, list[Any]], settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((InvalidValue, UnusableInput), match=sentence) as caught:
        loaded(written(tmp_path, **columns), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "texts",
    [
        ["5%", "10%", "25%", "50%"],
        ["$1,200", "$900", "$2,400"],
        [f"192.168.100.{201 + n}" for n in range(21)],
        [f"{n} {'$%'[n % 2]}" for n in range(22)],
        [f"1,{100 + n}'200" for n in range(21)],
    ],
    ids=["shares", "prices", "addresses", "units", "marks"],
)
def test_a_few_signed_numbers_are_classes_and_addresses_are_texts(texts: list[str], tmp_path: Path) -> None:
    of_rows = [texts[row * len(texts) // 80] for row in range(80)]
    pd.DataFrame({"x": [0.5, 1.5, 4.0, 8.5] * 20, "bin": of_rows, "y": ["a", "b"] * 40}).to_csv(tmp_path / "own.csv")
    assert len(loaded(tmp_path / "own.csv", "y").preparation["categorical"]) == 1
    column = Column("bin", "text", texts=tuple(of_rows))
    assert targets_among({"bin": column}, ["bin"], "own.csv").class_names == tuple(sorted(texts))


def test_a_column_called_par1_is_no_parquet_and_odd_separators_are_quiet(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("PAR1,PAR2,y\n" + "0.5,1,a\n2.5,1,b\n" * 20, encoding="utf-8")
    assert loaded(tmp_path / "own.csv", "y").class_names == ("a", "b")
    (tmp_path / "a.csv").write_bytes(b"PAR1" + bytes(range(256)) + b"PAR1")
    with pytest.raises(UnusableInput, match=r"is no text, but Parquet \(it should be called .parquet\)"):
        loaded(tmp_path / "a.csv")
    (tmp_path / "own.csv").write_text("x§y\n1§a\n", encoding="utf-8")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")  # pandas warns that it takes a slower reader
        with pytest.raises(UnusableInput, match="python"):
            loaded(tmp_path / "own.csv", "y", csv={"separator": "§"})
    assert not told


def test_what_a_sentence_proposes_helps(tmp_path: Path) -> None:
    file = written(tmp_path, age=BAD_AGES, name=UNIQUE, id=list(range(1, 41)))
    splits = loaded(file, missing=["?"], ignore=["name"], numeric=["id"])
    assert [column["name"] for column in splits.preparation["numeric"]] == ["age", "dose", "id"]
    as_names = loaded(file, missing=["?"], categorical=["name", "age"], ignore=["id"])
    assert {"name", "age"} < {column["name"] for column in as_names.preparation["categorical"]}
    infinite = written(tmp_path, age=[*COLUMNS["age"][:39], float("inf")])
    assert loaded(infinite, missing=[float("inf"), "-inf"]).preparation["numeric"][0]["name"] == "age"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b,kind\n", "has no rows below its first one"),
        ("", "patients.csv is empty: it needs a row with the names"),
        ("a,a,kind\n1,2,x\n", "more than one column called 'a'"),
        ("a,kind\n1,2,x\n3,4,y\n", r"line 2 has 3 values, and the first line has 2 names \(a, kind\): a text that has"),
        (
            "made by x\na,kind\n1,x\n",
            r"has 1 name \(made by x\): the first line must have the names of the columns, with",
        ),
        ("sep=;\na;kind\n1;x\n", "first line of .* is 'sep=;', .*: remove it, and say \"data.csv.separator=';'\""),
        ("a kind\n1 x\n2 y\n", "\"data.csv.separator=' '\""),
        (b"PK\3\4" + bytes(range(256)), "is no text, but a spreadsheet, a document or a ZIP archive: save it as CSV"),
        (b"\x1f\x8b\x08\x00", r"compressed \(it should be called .csv.gz\)"),
        ("a;kind\n1;x\n2;y\n", "\"data.csv.separator=';'\""),
        ("a,kind\n1,x\n2,y,3,4\n", "cannot be read: line 3 has 4 values, and the first line has 2 names"),
        (b"a,kind\n\xe9,x\n", "data.csv.encoding=cp1252"),
        ("a,kind\n1,x\n".encode("utf-16"), "data.csv.encoding=utf-16 reads it"),
        (
            "a;kind\n1,5;x\n2,5;y\n",
            r"2 values, .* 1 name \(a;kind\): \"data.csv.separator=';'\" \"data.csv.decimal=','\" may tell the columns",
        ),
        (
            'a;kind\n1;x\n"2,5";y\n',
            r"column, 'a;kind': \"data.csv.separator=';'\" \"data.csv.decimal=','\" may tell its",
        ),
        ("a;kind\n1;x\n2,500;y\n", r"1 name \(a;kind\): \"data.csv.separator=';'\" may tell"),  # or thousands
        (
            "größe;kind\n1,5;x\n2,5;y\n".encode("cp1252"),
            r"data.csv.encoding=cp1252 \"data.csv.separator=';'\" \"data.csv.decimal=','\" may read it",
        ),
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(text: str | bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnusableInput, match=sentence) as caught:
        loaded(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("own.xlsx", "is a spreadsheet: save it as CSV and give that file in data.test_file"),
        ("own.json", "is no CSV or Parquet file: save it as one and give that file in data.test_file"),
        ("own.npz", "is no table: data=arrays reads it"),
        ("none.csv", "is not there: data.test_file must be a CSV or Parquet file"),
        ("folder", "is a folder: data.test_file must be"),
    ],
)
def test_another_file_is_refused_with_the_setting_that_names_it(name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnusableInput, match=sentence):
        loaded(written(tmp_path), test_file=str(tmp_path / name))


@pytest.mark.parametrize("values", ["numbers", "texts"])
def test_a_byte_order_mark_blanks_and_windows_paths_are_no_mistakes(
    values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = [f"{row % 7}, {['naïve', '日本'][row % 2]} ,{row * 3 % 11}" for row in range(ROWS)]
    quoted = '"größe"' if values == "texts" else "größe"
    (tmp_path / "data" / "own.csv").write_text("\n".join([f"\ufeff{quoted}, Blood pressure ,x", *rows]), "utf-8")
    splits = loaded(Path("data\\own.csv"), "Blood pressure")
    assert splits.class_names == ("naïve", "日本")
    assert [column["name"] for column in splits.preparation["numeric"]] == ["größe", "x"]


def test_a_title_above_the_names_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("Report of 2024,,\nage,dose,kind\n" + "1,2,a\n3,4,b\n" * 20, encoding="utf-8")
    with pytest.raises(UnusableInput, match=r"line of .* names 1 of 3 columns: .*, with nothing above it\.$"):
        loaded(tmp_path / "own.csv")


def test_numbers_that_a_data_frame_had_as_categories_are_categories_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pyarrow")
    caplog.set_level(logging.INFO)
    frame = pd.DataFrame(COLUMNS | {"ward": [[7, 9, None, 40][row % 4] for row in range(ROWS)]})
    frame.astype({"ward": "category", "sex": "category"}).to_parquet(tmp_path / "own.parquet")
    splits = loaded(tmp_path / "own.parquet")
    told = "taken as categories, as the data frame had them: ward; data.numeric takes them as numbers"
    assert told in caplog.text
    caplog.clear()
    loaded(tmp_path / "own.parquet", numeric=["ward"])
    loaded(tmp_path / "own.parquet", categorical=["ward"])
    assert "as the data frame had them" not in caplog.text
    assert {"name": "ward", "values": ["40", "7", "9"]} in splits.preparation["categorical"]
    assert "ward" not in [column["name"] for column in splits.preparation["numeric"]]


def test_separators_at_the_ends_of_lines_make_no_column(tmp_path: Path) -> None:
    file = written(tmp_path)
    expected = loaded(file)
    file.write_text("\n".join(line + ",," for line in file.read_text().splitlines()))
    found = loaded(file)
    assert found.preparation == expected.preparation
    assert torch.equal(found.test.inputs, expected.test.inputs)  # type: ignore[attr-defined]


def test_numbers_as_texts_may_be_either_and_both_ways_out_are_named() -> None:
    column = Column("y", "text", texts=("0", "1") * 9)  # a Parquet file may have such
    with pytest.raises(
        UnusableInput, match=r"all numbers \('0' in row 1\): 'data.numeric=\[y\]' .* 'data.categorical="
    ):
        targets_among({"y": column}, ["y"], "own.parquet")
    for said in ({"numeric": ["y"], "categorical": []}, {"numeric": [], "categorical": ["y"]}):
        targets = targets_among(as_said({"y": column}, file="own.parquet", **said), ["y"], "own.parquet")
        assert targets.class_names == (None if said["numeric"] else ("0", "1"))


def test_the_index_that_a_data_frame_writes_is_left_out(tmp_path: Path) -> None:
    pd.DataFrame(COLUMNS).to_csv(tmp_path / "patients.csv")
    splits = loaded(tmp_path / "patients.csv")
    assert splits.preparation["left_out"] == ["", "empty", "ward"]
    assert splits.preparation["numeric"][0]["name"] == "age"


def test_a_test_table_of_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    file = written(tmp_path)
    with pytest.raises(InvalidValue, match=r"test_file=.* is not allowed: it has the same content as data.file"):
        loaded(file, test_file=str(file))
    pd.DataFrame(COLUMNS).drop(columns="age").assign(weight=1.0).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UnusableInput, match=r"test.csv lacks age and has weight, which the training table lacks"):
        loaded(file, test_file=str(tmp_path / "test.csv"))
    pd.DataFrame(COLUMNS | {"age": ["old"] * ROWS}).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UnusableInput, match=r"age has numbers in training, and texts \('old'\) in test.csv"):
        loaded(file, test_file=str(tmp_path / "test.csv"))
    pd.DataFrame(COLUMNS | {"kind": ["a", None] * 20}).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UnusableInput, match=r"target kind of test.csv is missing in 20 of 40 rows \(rows 2, 4, 6"):
        loaded(file, test_file=str(tmp_path / "test.csv"))
    pd.DataFrame(COLUMNS | {"kind": ["c"] * ROWS}).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UnusableInput, match=r"test part of patients.csv has 40 samples of a class .* lacks, c \(40\)"):
        loaded(file, test_file=str(tmp_path / "test.csv"))


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_a_missing_package_is_a_sentence_with_the_command(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnusableInput, match=rf'needs the package {package}: .*pip install -e "\.\[table\]"'):
        loaded(tmp_path / "patients.parquet")


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("größe,kind\n1.5,x\n", "größe, kind"),
        ("größe;kind\n1,5;x\n", "größe, kind, read with \"data.csv.separator=';'\" \"data.csv.decimal=','\""),
        ("größe\tkind\n1,5\tx\n", 'größe, kind, read with "data.csv.separator=tab" "data.csv.decimal=\',\'"'),
    ],
)
def test_without_a_target_the_columns_are_named_and_the_settings_that_read_them(
    text: str, columns: str, tmp_path: Path
) -> None:
    file = tmp_path / "patients.csv"
    file.write_text(text)
    with pytest.raises(InvalidValue) as caught:
        loaded(file, None)
    allowed = "it must be the name of a column, or a list of names"
    assert str(caught.value) == f"target=null is not allowed: {allowed}; patients.csv has {columns}."
    for typed in shlex.split(columns.partition("read with ")[2]):
        key, _, value = typed.rpartition(".")[2].partition("=")
        assert OverridesParser.create().parse_override(typed).value() in (";", ",", "tab"), key + value


def test_new_rows_have_the_decimal_mark_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    sizes = [f"1,{row * 7 % 90 + 10}" for row in range(ROWS)]
    lines = [f"{size};{'ab'[row // 2 % 2]}" for row, size in enumerate(sizes)]
    file.write_text("\n".join(["size;kind", *lines]))
    splits = loaded(file, split={"order": "time"}, csv={"separator": ";", "decimal": ","})
    train, preparation = splits.train.inputs, json.loads(json.dumps(splits.preparation))  # type: ignore[attr-defined]
    assert torch.equal(prepared_rows({"size": sizes}, preparation)[:24], train)
    assert torch.equal(
        prepared_rows([{"size": float(size.replace(",", "."))} for size in sizes], preparation)[:24], train
    )
    for wrong in ("1.200,50", "1,2,3"):
        with pytest.raises(ValueError, match=f"size of row 1 is '{wrong}', not a number"):
            prepared_rows({"size": [wrong]}, preparation)
    plain = {**preparation, "decimal": "."}
    with pytest.raises(ValueError, match="size of row 1 is '1,5', not a number"):
        prepared_rows({"size": ["1,5"]}, plain)


def test_a_source_without_a_file_is_refused_by_its_key() -> None:
    settings: dict[str, Any] = {"_target_": "nas.data.Table", "split": {"_target_": "nas.data.RowSplit"}}
    settings["csv"] = {"_target_": "nas.data.CsvFormat"}
    with pytest.raises(InvalidValue, match=r"^data.file=null is not allowed: it must be the path of a CSV or Parquet"):
        build(settings, "data")
    with pytest.raises(InvalidValue, match=r"separator=, ; is not allowed: it must be one character such as ; or tab"):
        CsvFormat(", ;")
    for key, value, typed in (("target", 3, "'3'"), ("ignore", [1, 2], r"\['1','2'\]")):
        with pytest.raises(InvalidValue, match=rf'in quotes it is a text, "data.{key}={typed}"'):
            build(settings | {"file": "a.csv", "target": "y", key: value}, "data")


@pytest.mark.parametrize("names", [["Name", "Sample Number"], ["7", "null", "it's", 'a "b"', "x\\", "(mm)", "é,[]"]])
def test_a_proposed_setting_is_read_as_it_was_meant(names: list[str]) -> None:
    (typed,) = shlex.split(override("ignore", names))
    (parsed,) = OverridesParser.create().parse_overrides([typed])
    assert parsed.key_or_group == "data.ignore"
    assert parsed.value() == names
