"""Where a chart's lines, areas and marks lie in the SVG on the page."""

import re

import pytest

from nas.report.charts import Chart, Line, Mark
from nas.report.rendering import environment
from nas.report.svg import MOST_POINTS, Plot, tick_text


def chart_svg(chart):
    return environment().get_template("chart.svg.jinja").module.chart_svg(Plot(chart))


def numbers(svg, tag, attribute):
    return [
        value for found in re.findall(rf'<{tag} class="[^"]*" [^>]*{attribute}="([^"]*)"', svg) for value in [found]
    ]


def test_a_line_goes_up_where_its_values_do():
    svg = chart_svg(Chart("t", (Line("a", (0, 1, 2), (0.0, 1.0, 0.5), "#0072B2"),), "epoch"))
    points = [tuple(map(float, point.split(","))) for point in numbers(svg, "polyline", "points")[0].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x0 < x1 < x2
    assert y1 < y2 < y0  # downwards on the screen


def test_equal_ratios_are_equal_steps_on_a_logarithmic_axis_and_zeros_are_left_out():
    svg = chart_svg(Chart("t", (Line("a", (0, 1, 2, 3), (0.0, 0.01, 0.1, 1.0), "#0072B2"),), "epoch", scale="log"))
    ys = [float(point.split(",")[1]) for point in numbers(svg, "polyline", "points")[0].split()]
    assert len(ys) == 3
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)


def test_areas_lie_on_each_other_up_to_the_total():
    lines = (Line("a", (1, 2), (0.25, 0.5), "#0072B2"), Line("b", (1, 2), (0.75, 0.5), "#D55E00"))
    first, second = (
        [tuple(map(float, point.split(","))) for point in polygon.split()]
        for polygon in numbers(chart_svg(Chart("t", lines, "epoch", kind="areas")), "polygon", "points")
    )
    assert first[:2] == second[:1:-1]  # the ceiling of one is the floor of the other
    assert {y for _, y in second[:2]} == {14.0}  # the top of the frame


def test_a_long_line_is_thinned_without_losing_its_peak():
    ys = [0.0] * 5000
    ys[3333] = 9.0
    chart = Chart("t", (Line("a", tuple(range(5000)), tuple(ys), "#0072B2"),), "step")
    points = numbers(chart_svg(chart), "polyline", "points")[0].split()
    assert len(points) <= MOST_POINTS
    highest = min(float(point.split(",")[1]) for point in points)
    assert sum(float(point.split(",")[1]) == highest for point in points) == 1


def test_single_points_constant_lines_and_empty_lines_can_be_drawn():
    for line in (
        Line("a", (3,), (0.5,), "#0072B2"),
        Line("a", (1, 2), (0.5, 0.5), "#0072B2"),
        Line("a", (), (), "#0072B2"),
    ):
        for scale in ("linear", "log"):
            assert "nan" not in chart_svg(Chart("t", (line,), "epoch", scale=scale))
        assert "nan" not in chart_svg(Chart("t", (line,), "epoch", kind="areas"))


def test_marks_outside_of_the_axis_are_left_out():
    line = Line("a", (1, 2), (0.1, 0.2), "#0072B2")
    svg = chart_svg(Chart("t", (line,), "epoch", marks=(Mark(1.5, "restart"), Mark(7, "late"))))
    assert "restart" in svg
    assert "late" not in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.025, "0.025"), (1500, "1,500"), (40000, "40k"), (2.5e6, "2.5M"), (1e-5, "1e-5"), (-0.5, "-0.5")],
)
def test_ticks_are_short(value, text):
    assert tick_text(value) == text
