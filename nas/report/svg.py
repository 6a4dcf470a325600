"""Charts as inline SVG: plain shapes and text whose colours a style sheet sets, so that they follow light and dark."""

import math
from collections.abc import Sequence
from html import escape

from nas.report.charts import Chart, Line

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 14, 34
MOST_POINTS = 400


def chart_svg(chart: Chart, height: int = HEIGHT) -> str:
    """``chart`` as an ``<svg>`` element without its title and legend, which belong into the page's text."""
    frame = _Frame(chart, height)
    parts = [*frame.axes()]
    if chart.kind == "areas":
        parts += frame.areas()
    else:
        dots = chart.lines[:1] if chart.kind == "points" else ()
        parts += [frame.dots(line) for line in dots] + [frame.curve(line) for line in chart.lines[len(dots) :]]
    parts += frame.marks()
    names = ", ".join(line.name for line in chart.lines[:12])
    label = escape(f"{chart.title}: {names} by {chart.x_label}", quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def legend(lines: Sequence[Line]) -> str:
    """The lines' names with their colours, as HTML."""
    chips = (
        f'<span class="key{" dashed" if line.dashed else ""}"><i style="--c:{escape(line.colour, quote=True)}"></i>'
        f"{escape(line.name)}</span>"
        for line in lines
    )
    return f'<div class="legend">{"".join(chips)}</div>'


class _Frame:
    """The mapping from a chart's numbers to the drawing's coordinates, and what is drawn in it."""

    def __init__(self, chart: Chart, height: int) -> None:
        self.chart, self.height = chart, height
        self.log = chart.scale == "log"
        xs = [x for line in chart.lines for x in line.xs] or [0.0, 1.0]
        self.low_x, self.high_x = _widened(min(xs), max(xs))
        if chart.kind == "areas":
            totals = [sum(ys) for ys in zip(*(line.ys for line in chart.lines), strict=False)]
            self.low_y, self.high_y = 0.0, max([1.0, *totals])
        else:
            ys = [y for line in chart.lines for y in line.ys if y > 0 or not self.log]
            self.low_y, self.high_y = self._limits(ys or [0.1, 1.0])

    def _limits(self, ys: Sequence[float]) -> tuple[float, float]:
        low, high = min(ys), max(ys)
        if self.log:
            return low / 1.15 if high > low else low / 2, high * 1.15 if high > low else high * 2
        low, high = _widened(low, high)
        margin = 0.05 * (high - low)
        return (0.0 if low >= 0 and low < 0.3 * high else low - margin), high + margin

    def x(self, value: float) -> float:
        return LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.low_y, self.high_y
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low_y))
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - BOTTOM - TOP)

    def axes(self) -> list[str]:
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        parts = []
        for value in _ticks(self.low_y, self.high_y, self.log, 5):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{_shown(value)}</text>'
            )
        for value in _ticks(self.low_x, self.high_x, False, 6):
            x = self.x(value)
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_shown(value)}</text>'
            )
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (LEFT + right) / 2
        label = escape(self.chart.x_label)
        parts.append(f'<text class="label" x="{middle}" y="{self.height - 4}" text-anchor="middle">{label}</text>')
        return parts

    def curve(self, line: Line) -> str:
        points = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y > 0 or not self.log]
        if not points:
            return ""
        name = f"<title>{escape(line.name)}</title>"
        style = f'style="--c:{escape(line.colour, quote=True)}"'
        if len(points) == 1:
            x, y = points[0]
            return f'<circle class="dot" {style} cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3.5">{name}</circle>'
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in _thinned(points))
        dashed = " dashed" if line.dashed else ""
        return f'<polyline class="line{dashed}" {style} points="{path}">{name}</polyline>'

    def dots(self, line: Line) -> str:
        points = _thinned([(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y > 0 or not self.log])
        drawn = "".join(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="2.6"/>' for x, y in points)
        style = f'style="--c:{escape(line.colour, quote=True)}"'
        return f'<g class="dots" {style}><title>{escape(line.name)}</title>{drawn}</g>'

    def areas(self) -> list[str]:
        lines = [line for line in self.chart.lines if line.xs]
        count = min((len(line.xs) for line in lines), default=0)
        if count == 0:
            return []
        kept = list(range(0, count, max(1, count // MOST_POINTS)))
        kept += [count - 1] if kept[-1] != count - 1 else []
        xs = [lines[0].xs[index] for index in kept]
        if len(xs) == 1:  # one record alone has no width
            xs, kept = [self.low_x, self.high_x], [kept[0], kept[0]]
        floor = [0.0] * len(kept)
        parts = []
        for line in lines:
            ceiling = [low + line.ys[index] for low, index in zip(floor, kept, strict=True)]
            up = [f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ceiling, strict=True)]
            down = [f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, floor, strict=True)]
            style = f'style="--c:{escape(line.colour, quote=True)}"'
            last = f"{escape(line.name)} {line.ys[count - 1]:.2f}"
            points = " ".join([*up, *reversed(down)])
            parts.append(f'<polygon class="area" {style} points="{points}"><title>{last}</title></polygon>')
            floor = ceiling
        return parts

    def marks(self) -> list[str]:
        parts = []
        for mark in self.chart.marks:
            if self.low_x <= mark.x <= self.high_x:
                x = self.x(mark.x)
                name = escape(mark.name)
                parts.append(
                    f'<g class="mark"><title>{name} at {self.chart.x_label} {_shown(mark.x)}</title>'
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self.height - BOTTOM}"/>'
                    f'<path d="M{x - 4:.1f},{TOP - 8} h8 l-4,7 z"/></g>'
                )
        return parts


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits that are never one and the same."""
    if high > low:
        return low, high
    margin = 0.1 * abs(low) or 0.5
    return low - margin, high + margin


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`MOST_POINTS` of ``points``: of each stretch its lowest and its highest, lest a peak is lost."""
    if len(points) <= MOST_POINTS:
        return list(points)
    kept: list[tuple[float, float]] = []
    stretches = MOST_POINTS // 2
    for index in range(stretches):
        stretch = points[index * len(points) // stretches : (index + 1) * len(points) // stretches]
        extremes = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept


def _ticks(low: float, high: float, log: bool, most: int) -> list[float]:
    from matplotlib.ticker import LogLocator, MaxNLocator  # here and not above: it takes a while to import

    if log and high / low >= 10:
        values = LogLocator(numticks=most).tick_values(low, high)
    else:
        values = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def _shown(value: float) -> str:
    """A tick's number: 0.025, 1,500, 40k, 1.5M."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e15 or size < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-").replace("e+", "e")
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= max(unit, 1e4):
            return f"{value / unit:.4g}{letter}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"
