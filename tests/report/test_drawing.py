"""The drawing of an architecture as a chain of layers."""

from itertools import pairwise

import matplotlib.pyplot
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nas.report.drawing import KIND_COLOURS, Block, draw_chain

CHAIN = [
    Block("input", "Input", "1x28x28"),
    Block("conv", "Conv 3x3", "32 filters, ReLU"),
    Block("skip", "Conv", "skipped"),
    Block("pool", "Max pool 2x2", "stride 2"),
    Block("dense", "Dense", "128 units, ReLU"),
    Block("output", "Output", "10 classes"),
]


def boxes_of(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def arrows_of(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def extents_of_texts(figure):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for axes in figure.axes for text in axes.texts]


def assert_inside(extents, outer):
    for extent in extents:
        assert outer.x0 <= extent.x0
        assert extent.x1 <= outer.x1
        assert outer.y0 <= extent.y0
        assert extent.y1 <= outer.y1


def test_a_chain_has_one_box_per_block_in_the_colour_of_its_kind():
    boxes = boxes_of(draw_chain(CHAIN, "found"))
    assert [to_hex(box.get_edgecolor()) for box in boxes] == [KIND_COLOURS[block.kind].lower() for block in CHAIN]
    assert len(set(KIND_COLOURS.values())) == len(KIND_COLOURS)


def test_only_skipped_layers_are_dashed():
    boxes = boxes_of(draw_chain(CHAIN, "found"))
    assert [box.get_linestyle() == "--" for box in boxes] == [block.kind == "skip" for block in CHAIN]


def test_a_chain_shows_its_title_and_every_word_of_its_blocks():
    shown = " ".join(texts_of(draw_chain(CHAIN, "found on MNIST"))).split()
    for text in ["found on MNIST", *(block.label for block in CHAIN), *(block.detail for block in CHAIN)]:
        assert set(text.split()) <= set(shown)


def test_each_block_is_joined_to_the_next():
    figure = draw_chain(CHAIN * 3, "long")
    centres = [box.get_bbox() for box in boxes_of(figure)]
    arrows = arrows_of(figure)
    assert len(arrows) == len(centres) - 1
    for arrow, (box, following) in zip(arrows, pairwise(centres), strict=True):
        # An arrow keeps two points (0.03 inches) away from the borders it joins.
        vertices = arrow.get_path().vertices
        assert box.padded(0.04).contains(*vertices[0])
        assert any(following.padded(0.04).contains(*vertex) for vertex in vertices)


def test_a_long_chain_goes_on_in_a_further_row_and_stays_as_wide_as_a_page():
    short, long = draw_chain(CHAIN[:3], "short"), draw_chain(CHAIN * 3, "long")
    rows = {round(box.get_y(), 6) for box in boxes_of(long)}
    assert len({box.get_y() for box in boxes_of(short)}) == 1
    assert len(rows) > 1
    assert long.get_size_inches()[0] <= 7.2
    first_row = [box for box in boxes_of(long) if round(box.get_y(), 6) == max(rows)]
    assert [box.get_x() for box in first_row] == sorted(box.get_x() for box in first_row)


@pytest.mark.parametrize("blocks", [CHAIN[:1], CHAIN, CHAIN * 3], ids=["one", "short", "long"])
def test_no_box_overlaps_another_and_no_text_leaves_its_box_or_the_figure(blocks):
    figure = draw_chain(blocks, "a title that is wider than a single box")
    boxes = [box.get_window_extent() for box in boxes_of(figure)]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    title, *labels = extents_of_texts(figure)
    assert_inside([title, *boxes], figure.bbox)
    for label in labels:
        assert sum(box.overlaps(label) for box in boxes) == 1
        assert_inside([label], next(box for box in boxes if box.overlaps(label)))


def test_a_block_of_a_kind_of_a_users_own_is_grey():
    (box,) = boxes_of(draw_chain([Block("recurrence", "Recurrence")], ""))
    assert to_hex(box.get_edgecolor()) == KIND_COLOURS["input"].lower()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no blocks"):
        draw_chain([], "empty")


def test_drawing_leaves_no_global_figure_behind_and_can_be_saved(tmp_path):
    figure = draw_chain(CHAIN, "found")
    figure.savefig(tmp_path / "figure.png")
    figure.savefig(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert matplotlib.pyplot.get_fignums() == []
