"""Tables in the terminal and in files."""

import io
import re

import pytest

from nas.report.tables import comparison_table, mean_and_deviation, outcome_table, print_table


def printed(table) -> list[str]:
    stream = io.StringIO()
    print_table(table, stream)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_outcome_has_a_line_per_name_with_its_value():
    lines = printed(outcome_table({"test accuracy": "0.9912", "parameters": "12 345"}))
    assert any(line.split() == ["test", "accuracy", "0.9912"] for line in lines)
    assert any(line.split() == ["parameters", "12", "345"] for line in lines)


def test_a_comparison_has_its_title_its_columns_and_its_rows_in_order():
    rows = [["random search", "97.10 ± 0.30", "8"], ["one-step", "98.31 ± 0.12", "8"]]
    lines = [line.split() for line in printed(comparison_table("MNIST", ["method", "accuracy", "runs"], rows)) if line]
    assert lines[0] == ["MNIST"]
    assert lines[1] == ["method", "accuracy", "runs"]
    assert lines[-2:] == [["random", "search", "97.10", "±", "0.30", "8"], ["one-step", "98.31", "±", "0.12", "8"]]


def test_a_row_with_a_missing_cell_is_refused():
    with pytest.raises(ValueError, match="has 1 cells, not 2"):
        comparison_table("MNIST", ["method", "accuracy"], [["random search"]])


def test_a_file_gets_whole_rows_however_long_and_no_colours(monkeypatch):
    # What a continuous integration server sets, and a terminal's width that must not cut a file's rows.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    long = "x" * 150
    stream = io.StringIO()
    print_table(comparison_table("long", ["method", "detail"], [["a", long], ["b", "two words " * 12]]), stream)
    assert long in stream.getvalue()
    assert ("two words " * 12).strip() in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert "…" not in stream.getvalue()


def test_a_narrow_terminal_folds_cells_instead_of_cutting_them(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    print_table(outcome_table({"fingerprint": "0123456789" * 8}), stream)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    digits = "".join(character for line in lines for character in line if character.isdigit())
    assert digits == "0123456789" * 8
    assert max(map(len, lines)) <= 40


def test_brackets_are_text_and_not_markup():
    lines = printed(outcome_table({"[bold]kind[/bold]": "pool [max]"}))
    assert any("[bold]kind[/bold]" in line and "pool [max]" in line for line in lines)


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([98.19, 98.31, 98.43], 2, "98.31 ± 0.12"),
        ([1.0, 3.0], 3, "2.000 ± 1.414"),
        ([0.5, 0.5], 1, "0.5 ± 0.0"),
        ([-1e-6, -2e-6], 4, "0.0000 ± 0.0000"),
        ([97.126], 1, "97.1"),
        ([1.0, float("nan")], 2, "nan ± nan"),
    ],
)
def test_mean_and_sample_deviation(values, digits, expected):
    assert mean_and_deviation(values, digits) == expected


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_and_deviation([], 2)
