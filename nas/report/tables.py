"""Tables in the terminal. In a file, they keep whole rows and have no colours."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEAST_WIDTH_IN_FILES = 100


def outcome_table(rows: Mapping[str, str]) -> Table:
    """A table with a name and its value per row."""
    table = Table(box=SIMPLE_HEAD, show_header=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(_literal(name), _literal(value))
    return table


def comparison_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a title; its first column, the name of the row, is aligned to the left, all others to the right.

    Raises:
        ValueError: A row has not as many cells as there are columns.
    """
    table = Table(title=_literal(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(_literal(column), justify="right" if index else "left", overflow="fold")
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"The row {list(row)} has {len(row)} cells, not {len(columns)}.")
        table.add_row(*map(_literal, row))
    return table


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print ``table`` to ``stream`` or, without one, to standard output.

    Cells wrap in a terminal narrower than the table. Any other stream gets each row on one line, without colours.
    """
    stream = sys.stdout if stream is None else stream
    if stream.isatty():
        Console(file=stream).print(table)
        return
    # Colours are ruled out explicitly, since variables such as FORCE_COLOR would bring them into files.
    console = Console(file=stream, width=LEAST_WIDTH_IN_FILES, force_terminal=False, color_system=None)
    natural_width = console.measure(table, options=console.options.update(width=sys.maxsize)).maximum
    console.width = max(LEAST_WIDTH_IN_FILES, natural_width)
    console.print(table)


def say_at_the_end(summary: str, page: Path | None, following: str, console: str) -> None:
    """Print the last lines of a command: its page, the next command, and ``summary``, which names the run folder.

    If ``console`` is ``quiet``, the next command and the summary share one line.
    """
    if console == "quiet":
        print(f"{summary}; next: {following}")
        return
    if page is not None:
        print(f"page: {page}")
    print(f"next: {following}")
    print(summary)


def mean_and_deviation(values: Sequence[float], digits: int) -> str:
    """``98.31 ± 0.12``: the mean and the sample standard deviation (n - 1); one value has no deviation.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("There are no values to take the mean of.")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{mean:z.{digits}f}"
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{mean:z.{digits}f} ± {deviation:.{digits}f}"


def _literal(text: str) -> Text:
    # Rich would take the brackets in a text such as "pool [max]" for its own markup.
    return Text(text)
