"""Where the lines, areas, ticks and marks of a chart lie in its SVG, which a template writes."""

import math
from collections.abc import Iterable, Iterator, Sequence

from nas.report.charts import Chart, Line, Mark

MOST_POINTS = 400


class Plot:
    """``chart`` in the coordinates of an SVG of ``height``: what ``chart.svg.jinja`` draws."""

    width, left, right, top = 420, 46, 410, 14

    def __init__(self, chart: Chart, height: int = 230) -> None:
        self.chart, self.height, self.bottom = chart, height, height - 34
        self.log = chart.scale == "log"
        self.label = f"{chart.title}: {', '.join(line.name for line in chart.lines[:12])} by {chart.x_label}"
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
        return self.left + (value - self.low_x) / (self.high_x - self.low_x) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.low_y, self.high_y
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low_y))
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def x_ticks(self) -> list[tuple[float, str]]:
        """Places on the horizontal axis with their numbers."""
        return [(self.x(value), tick_text(value)) for value in _ticks(self.low_x, self.high_x, False, 6)]

    def y_ticks(self) -> list[tuple[float, str]]:
        """Places on the vertical axis with their numbers."""
        return [(self.y(value), tick_text(value)) for value in _ticks(self.low_y, self.high_y, self.log, 5)]

    def points(self, line: Line) -> list[tuple[float, float]]:
        """The points of ``line``, at most :data:`MOST_POINTS`; a logarithmic axis has no place for zeros."""
        points = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y > 0 or not self.log]
        return [(self.x(x), self.y(y)) for x, y in _thinned(points)]

    def areas(self) -> Iterator[tuple[Line, str, float]]:
        """Each line with the corners of its area, which lies on the one before, and with its last value."""
        lines = [line for line in self.chart.lines if line.xs]
        count = min((len(line.xs) for line in lines), default=0)
        if count == 0:
            return
        kept = list(range(0, count, max(1, count // MOST_POINTS)))
        kept += [count - 1] if kept[-1] != count - 1 else []
        xs = [lines[0].xs[index] for index in kept]
        if len(xs) == 1:  # one record alone has no width
            xs, kept = [self.low_x, self.high_x], [kept[0], kept[0]]
        floor = [0.0] * len(kept)
        for line in lines:
            ceiling = [low + line.ys[index] for low, index in zip(floor, kept, strict=True)]
            up = [(self.x(x), self.y(y)) for x, y in zip(xs, ceiling, strict=True)]
            down = [(self.x(x), self.y(y)) for x, y in zip(xs, floor, strict=True)]
            yield line, corners([*up, *reversed(down)]), line.ys[count - 1]
            floor = ceiling

    def marks(self) -> list[tuple[float, Mark, str]]:
        """The marks on the axis: the place in the drawing, the mark, and the place as a number on the axis."""
        inside = [mark for mark in self.chart.marks if self.low_x <= mark.x <= self.high_x]
        return [(self.x(mark.x), mark, tick_text(mark.x)) for mark in inside]


def corners(points: Iterable[tuple[float, float]]) -> str:
    """``points`` as the attribute of a polyline or polygon."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits that are never equal."""
    if high > low:
        return low, high
    margin = 0.1 * abs(low) or 0.5
    return low - margin, high + margin


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`MOST_POINTS` of ``points``: the lowest and highest of each stretch, which keeps every peak."""
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


def tick_text(value: float) -> str:
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
