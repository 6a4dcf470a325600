"""Cells as in the DARTS paper's figures: states in boxes, an arrow with the operation's name for every edge."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from nas.report.cell_graph import CellGraph
from nas.report.cell_layout import CellLayout, Placed, lay_out
from nas.report.colours import LIGHT_GREY, OPERATION_COLOURS, SERIES_COLOURS
from nas.report.drawing import INK, LABEL_SIZE, MARGIN, TITLE_HEIGHT, TITLE_SIZE, sheet, text_width, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION_HEIGHT, BETWEEN = 0.3, 0.25
STATE_COLOURS = {"input": "#8FBF8F", "node": "#9EC3E6", "output": "#D9C36A"}  # as the paper's: green, blue, yellow


def draw_cells(cells: Sequence[tuple[str, CellGraph]], title: str) -> "Figure":
    """Draw each cell with its caption, one above the other.

    Raises:
        ValueError: There are no cells.
    """
    if not cells:
        raise ValueError("There are no cells to draw.")
    operations = {edge.operation for _, graph in cells for edge in graph.edges if edge.operation}
    widths = {operation: text_width(operation, LABEL_SIZE) + 0.14 for operation in operations}
    layouts = [lay_out(graph, widths) for _, graph in cells]
    width = max([layout.width for layout in layouts] + [text_width(title, TITLE_SIZE)]) + 2 * MARGIN
    captions = CAPTION_HEIGHT if any(caption for caption, _ in cells) else 0.0
    inner = sum(layout.height + captions for layout in layouts) + BETWEEN * (len(layouts) - 1)
    height = inner + (TITLE_HEIGHT if title else 0.0) + 2 * MARGIN
    figure, axes = sheet(width, height, title)
    top = height - MARGIN - (TITLE_HEIGHT if title else 0.0)
    for (caption, graph), layout in zip(cells, layouts, strict=True):
        if captions:
            write(axes, MARGIN, top - 0.1, caption, LABEL_SIZE, weight="bold", ha="left", va="center")
        bottom = top - captions - layout.height
        _draw_cell(axes, graph, layout, (width - layout.width) / 2, bottom)
        top = bottom - BETWEEN
    return figure


def _draw_cell(axes: "Axes", graph: CellGraph, layout: CellLayout, left: float, bottom: float) -> None:
    for number, edge in enumerate(graph.edges):
        points = [(left + x, bottom + y) for x, y in layout.paths[number]]
        _draw_edge(axes, points, edge.operation)
    for number, box in layout.labels.items():
        _draw_label(axes, graph.edges[number].operation, left + box.x, bottom + box.y, box)
    reached = {edge.target for edge in graph.edges}
    for state, box in layout.states.items():
        kind = "output" if state == graph.states[-1] else "node" if state in reached else "input"
        _draw_state(axes, state, kind, left + box.x, bottom + box.y, box)


def operation_colour(operation: str) -> str:
    """The colour of an edge (#RRGGBB); the concatenation into the output, which has no operation, is drawn in ink."""
    return OPERATION_COLOURS.get(operation, SERIES_COLOURS[0]) if operation else INK


def _draw_edge(axes: "Axes", points: Sequence[tuple[float, float]], operation: str) -> None:
    """Draw a smooth line through ``points``, horizontal at each of them, with an arrow at its end."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [int(Path.MOVETO)]
    for (x, y), (next_x, next_y) in pairwise(points):
        middle = (x + next_x) / 2
        vertices += [(middle, y), (middle, next_y), (next_x, next_y)]
        codes += [int(Path.CURVE4)] * 3
    absent = operation == "none"
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=7,
            color=operation_colour(operation),
            linewidth=0.8 if absent or not operation else 1.5,
            linestyle=":" if absent else "-",
            shrinkA=0,
            shrinkB=0,
            zorder=1,
            joinstyle="miter",
        )
    )


def _draw_label(axes: "Axes", operation: str, x: float, y: float, box: Placed) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = operation_colour(operation)
    axes.add_patch(
        FancyBboxPatch(
            (x - box.width / 2, y - box.height / 2),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor="white",
            edgecolor=colour,
            linewidth=0.9,
            linestyle=":" if operation == "none" else "-",
            gid="paper",
            zorder=2,
        )
    )
    ink = "0.45" if colour == LIGHT_GREY else "black"
    write(axes, x, y, operation, LABEL_SIZE, ink=ink, zorder=3)


def _draw_state(axes: "Axes", state: str, kind: str, x: float, y: float, box: Placed) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = STATE_COLOURS[kind]
    axes.add_patch(
        FancyBboxPatch(
            (x - box.width / 2, y - box.height / 2),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=colour,
            alpha=0.55,
            edgecolor="none",
            zorder=2,
        )
    )
    write(axes, x, y, state, LABEL_SIZE, zorder=3)
