"""Tables in the terminal, drawings of architectures, the page of a run and the comparison of several."""

from nas.report.drawing import save_drawing
from nas.report.explanation import write_discretisation_gap
from nas.report.outcome import (
    architecture_figure,
    architecture_in_words,
    final_outcome,
    recorded_seconds,
    search_outcome,
    space_figure,
)
from nas.report.page import write_page_if_possible
from nas.report.tables import comparison_table, mean_and_deviation, outcome_table, print_table, say_at_the_end

__all__ = [
    "architecture_figure",
    "architecture_in_words",
    "comparison_table",
    "final_outcome",
    "mean_and_deviation",
    "outcome_table",
    "print_table",
    "recorded_seconds",
    "save_drawing",
    "say_at_the_end",
    "search_outcome",
    "space_figure",
    "write_discretisation_gap",
    "write_page_if_possible",
]
