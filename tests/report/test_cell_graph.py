"""Cells as graphs, their layout and their drawing."""

from itertools import combinations

import pytest
from matplotlib.patches import FancyArrowPatch

from nas.interop.named_architecture import PUBLISHED
from nas.report.cell_drawing import draw_cells, operation_colour
from nas.report.cell_graph import CellEdge, darts_cell, nasbench201_cell
from nas.report.cell_layout import lay_out
from nas.spaces.nasbench201.choices import parse_architecture

CELL = parse_architecture("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|")
EVERY_CELL = [
    *(darts_cell(genotype, cell) for genotype in PUBLISHED.values() for cell in ("normal", "reduce")),
    nasbench201_cell(CELL),
]


def test_darts_v2_has_the_edges_and_labels_of_the_papers_figures():
    """Figures 4 and 5 of Liu et al. (2019): the second-order cells on CIFAR-10."""
    to_output = [CellEdge(node, "c_{k}") for node in "0123"]
    assert darts_cell(PUBLISHED["darts_v2"], "normal").edges == (
        CellEdge("c_{k-2}", "0", "sep_conv_3x3"),
        CellEdge("c_{k-1}", "0", "sep_conv_3x3"),
        CellEdge("c_{k-2}", "1", "sep_conv_3x3"),
        CellEdge("c_{k-1}", "1", "sep_conv_3x3"),
        CellEdge("c_{k-1}", "2", "sep_conv_3x3"),
        CellEdge("c_{k-2}", "2", "skip_connect"),
        CellEdge("c_{k-2}", "3", "skip_connect"),
        CellEdge("0", "3", "dil_conv_3x3"),
        *to_output,
    )
    assert darts_cell(PUBLISHED["darts_v2"], "reduce").edges == (
        CellEdge("c_{k-2}", "0", "max_pool_3x3"),
        CellEdge("c_{k-1}", "0", "max_pool_3x3"),
        CellEdge("0", "1", "skip_connect"),
        CellEdge("c_{k-1}", "1", "max_pool_3x3"),
        CellEdge("c_{k-2}", "2", "max_pool_3x3"),
        CellEdge("0", "2", "skip_connect"),
        CellEdge("0", "3", "skip_connect"),
        CellEdge("c_{k-1}", "3", "max_pool_3x3"),
        *to_output,
    )


def test_only_concatenated_nodes_reach_the_output():
    edges = darts_cell(PUBLISHED["nasnet"], "reduce").edges
    assert [edge.source for edge in edges if edge.target == "c_{k}"] == ["2", "3", "4"]


def test_a_nasbench201_cell_has_its_six_edges():
    assert [(edge.source, edge.target, edge.operation) for edge in nasbench201_cell(CELL).edges] == [
        ("input", "1", "nor_conv_3x3"),
        ("input", "2", "none"),
        ("1", "2", "skip_connect"),
        ("input", "output", "avg_pool_3x3"),
        ("1", "output", "nor_conv_1x1"),
        ("2", "output", "nor_conv_3x3"),
    ]


@pytest.mark.parametrize("graph", EVERY_CELL)
def test_nothing_overlaps_and_every_edge_goes_from_its_source_to_its_target(graph):
    layout = lay_out(graph, {edge.operation: 0.9 for edge in graph.edges if edge.operation})
    boxes = [*layout.states.values(), *layout.labels.values()]
    for one, other in combinations(boxes, 2):
        apart_x = abs(one.x - other.x) >= (one.width + other.width) / 2 - 1e-9
        apart_y = abs(one.y - other.y) >= (one.height + other.height) / 2 - 1e-9
        assert apart_x or apart_y
    assert len(layout.labels) == sum(1 for edge in graph.edges if edge.operation)
    for number, edge in enumerate(graph.edges):
        path, source, target = layout.paths[number], layout.states[edge.source], layout.states[edge.target]
        assert path[0][0] == pytest.approx(source.x + source.width / 2)
        assert path[-1][0] == pytest.approx(target.x - target.width / 2)
        assert abs(path[0][1] - source.y) < source.height / 2
        assert abs(path[-1][1] - target.y) < target.height / 2
        assert [x for x, _ in path] == sorted(x for x, _ in path)  # always onwards
    for box in boxes:
        assert box.width / 2 - 1e-9 <= box.x <= layout.width - box.width / 2 + 1e-9
        assert box.height / 2 - 1e-9 <= box.y <= layout.height - box.height / 2 + 1e-9


def test_the_layout_is_the_same_every_time():
    graph = EVERY_CELL[0]
    widths = dict.fromkeys((edge.operation for edge in graph.edges), 0.9)
    assert lay_out(graph, widths) == lay_out(graph, widths)


def test_a_drawing_has_an_arrow_per_edge_in_its_operations_colour_and_every_name():
    graph = darts_cell(PUBLISHED["darts_v2"], "normal")
    drawn = draw_cells([("normal cell", graph)], "DARTS_V2").axes[0]
    arrows = [patch for patch in drawn.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == len(graph.edges)
    from matplotlib.colors import to_hex

    assert [to_hex(arrow.get_edgecolor()).upper() for arrow in arrows] == [
        operation_colour(edge.operation).upper() for edge in graph.edges
    ]
    texts = sorted(text.get_text() for text in drawn.texts)
    expected = ["DARTS_V2", "normal cell", *graph.states, *(edge.operation for edge in graph.edges if edge.operation)]
    assert texts == sorted(expected)


def test_no_cell_is_refused():
    with pytest.raises(ValueError, match="no cells"):
        draw_cells([], "none")
