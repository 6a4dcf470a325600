"""Drawings of architectures in the style of a paper's figures.

The figures are not registered with pyplot; ``figure.savefig(path)`` writes them as PDF, SVG or PNG. Lengths are in
inches and font sizes in points.
"""

import io
import logging
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from nas.report.colours import GREY, OPERATION_COLOURS, VERMILLION

if TYPE_CHECKING:
    # matplotlib takes most of a second to import, so the functions below do it once there is something to draw.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it logs, once per user, that it has looked for fonts
KINDS = ("conv", "pool", "global_pool", "dense", "skip", "attention", "convolution", "gated")
KIND_COLOURS: Mapping[str, str] = {
    "input": GREY,
    **{kind: OPERATION_COLOURS[kind] for kind in KINDS},
    "output": VERMILLION,
}
INK = "#222222"  # the colour of lines; pages replace it and white by their own colours

WIDTH = 7.2
MARGIN = 0.12
TITLE_HEIGHT = 0.32
TITLE_SIZE, LABEL_SIZE, DETAIL_SIZE = 10.0, 8.0, 7.0
LINE_HEIGHT = 0.145


@dataclass(frozen=True)
class Block:
    """A layer of a chain.

    Attributes:
        kind: ``input``, ``conv``, ``pool``, ``global_pool``, ``dense``, ``skip`` (a layer that was left out),
            ``attention``, ``convolution``, ``gated`` or ``output``; any other one is grey.
        label: Its name, such as ``Conv 3×3``.
        detail: Further words, such as ``32 filters, ReLU``; may be empty.
    """

    kind: str
    label: str
    detail: str = ""


def draw_chain(blocks: Sequence[Block], title: str, widest: float = WIDTH) -> "Figure":
    """Draw boxes of equal size from left to right with arrows between them, in as many rows as the width requires.

    Args:
        blocks: The layers.
        title: The figure's title; may be empty.
        widest: The largest allowed width of the figure, in inches.

    Raises:
        ValueError: There are no blocks.
    """
    if not blocks:
        raise ValueError("There are no blocks to draw.")
    gap, row_gap, padding, longest_line = 0.26, 0.4, 0.1, 18
    title_height = TITLE_HEIGHT if title else 0.0
    texts = [_BlockText(_wrapped(block.label, longest_line), _wrapped(block.detail, longest_line)) for block in blocks]
    box_width = max(0.8, max(text.width() for text in texts) + 2 * padding)
    box_height = max(text.height() for text in texts) + 2 * padding

    per_row = max(1, int((widest - 2 * MARGIN + gap) / (box_width + gap)))
    rows = -(-len(blocks) // per_row)
    per_row = -(-len(blocks) // rows)  # the rows filled evenly
    width = max(per_row * (box_width + gap) - gap, text_width(title, TITLE_SIZE)) + 2 * MARGIN
    height = rows * (box_height + row_gap) - row_gap + title_height + 2 * MARGIN
    figure, axes = sheet(width, height, title)

    left = (width - (per_row * (box_width + gap) - gap)) / 2 + box_width / 2
    top = height - MARGIN - title_height - box_height / 2
    centres = [
        (left + index % per_row * (box_width + gap), top - index // per_row * (box_height + row_gap))
        for index in range(len(blocks))
    ]
    for block, text, centre in zip(blocks, texts, centres, strict=True):
        _draw_box(axes, block, text, centre, box_width, box_height)
    for (x, y), (next_x, next_y) in pairwise(centres):
        if y == next_y:
            _draw_arrow(axes, [(x + box_width / 2, y), (next_x - box_width / 2, y)])
        else:
            between = (y + next_y) / 2
            corners = [(x, y - box_height / 2), (x, between), (next_x, between), (next_x, next_y + box_height / 2)]
            _draw_arrow(axes, corners)
    return figure


FORMATS = ("png", "svg", "pdf")


def save_drawing(figure: "Figure", path: Path) -> list[Path]:
    """Write the figure to ``path`` with each ending in :data:`FORMATS`; the same figure gives the same bytes."""
    from matplotlib import rc_context

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every step of subsetting the PDF's font
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context({"svg.hashsalt": "nas", "pdf.fonttype": 42}):
        for ending in FORMATS:
            file = path.with_name(f"{path.name}.{ending}")
            dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
            figure.savefig(file, metadata=dates.get(ending, {}))
            written.append(file)
    return written


def inline_svg(figure: "Figure", prefix: str) -> str:
    """``figure`` as an ``<svg>`` element for a page: transparent, with text as text, in the page's colours.

    Args:
        figure: A drawing of this package.
        prefix: A prefix for all identifiers in the element, different for each drawing of a page.
    """
    from matplotlib import rc_context

    content = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'href="#([^"]*)"', rf'href="#{prefix}-\1"', svg)
    svg = svg.replace(INK.lower(), "currentColor").replace("#ffffff", "var(--paper)")
    width, height = figure.get_size_inches()
    size = f'style="width:{width:.2f}in" viewBox="0 0 {72 * width:.6g} {72 * height:.6g}"'
    return re.sub(r"<svg\b[^>]*>", f'<svg class="drawing" role="img" {size}>', svg, count=1)


@dataclass(frozen=True)
class _BlockText:
    """The lines of text in a block's box: the label's, in bold, and the detail's."""

    label: list[str]
    detail: list[str]

    def width(self) -> float:
        label = [text_width(line, LABEL_SIZE, "bold") for line in self.label]
        return max(0.0, *label, *(text_width(line, DETAIL_SIZE) for line in self.detail))

    def height(self) -> float:
        return (len(self.label) + len(self.detail)) * LINE_HEIGHT


def _wrapped(text: str, longest_line: int) -> list[str]:
    return [line for part in text.splitlines() for line in textwrap.wrap(part, longest_line)]


def sheet(width: float, height: float, title: str) -> "tuple[Figure, Axes]":
    """A figure with its title and invisible axes that measure inches from the lower left corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    write(axes, width / 2, height - MARGIN, title, TITLE_SIZE, va="top")
    return figure, axes


def write(
    axes: "Axes",
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    weight: str = "normal",
    ink: str = "black",
    ha: str = "center",
    va: str = "center_baseline",
    zorder: float = 3,
) -> None:
    """Write ``text`` literally: dollar signs do not start mathematics."""
    axes.text(x, y, text, fontsize=size, weight=weight, color=ink, ha=ha, va=va, zorder=zorder, parse_math=False)


def _draw_box(
    axes: "Axes", block: Block, text: _BlockText, centre: tuple[float, float], width: float, height: float
) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = centre
    skipped = block.kind == "skip"
    colour = KIND_COLOURS.get(block.kind, GREY)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="white" if skipped else (colour, 0.22),
            edgecolor=colour,
            linestyle="--" if skipped else "-",
            linewidth=1.2,
        )
    )
    lines = [(line, LABEL_SIZE, "bold") for line in text.label] + [
        (line, DETAIL_SIZE, "normal") for line in text.detail
    ]
    for number, (line, size, weight) in enumerate(lines):
        line_y = y + ((len(lines) - 1) / 2 - number) * LINE_HEIGHT
        ink = "0.45" if skipped else "black"
        write(axes, x, line_y, line, size, weight=weight, ink=ink)


def _draw_arrow(axes: "Axes", corners: list[tuple[float, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    axes.add_patch(FancyArrowPatch(path=Curve(corners), arrowstyle="-|>", mutation_scale=8, color=INK, linewidth=0.9))


@cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width in inches of a line of ``text``, ``size`` in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    points, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)
    return float(points) / 72
