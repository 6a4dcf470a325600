from itertools import pairwise

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from nas.errors import InvalidValue
from nas.report.drawing import KIND_COLOURS, Block, draw_chain, draw_probabilities

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


def test_a_block_of_an_unknown_kind_is_refused():
    with pytest.raises(InvalidValue, match="kind=attention is not allowed: it must be one of input, conv"):
        Block("attention", "Attention")


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no blocks"):
        draw_chain([], "empty")
    with pytest.raises(ValueError, match="no probabilities"):
        draw_probabilities({}, "empty")


ROWS = {
    "layer 1 filters": {"16": 0.1, "32": 0.7, "64": 0.2},
    "layer 2 kind": {"max": 0.004, "average": 0.996},
}


def test_the_bars_have_the_lengths_of_the_probabilities_end_to_end():
    axes = draw_probabilities(ROWS, "choices").axes[1]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.1, 0.7, 0.2, 0.004, 0.996])
    np.testing.assert_allclose([bar.get_x() for bar in bars], [0.0, 0.1, 0.8, 0.0, 0.004])
    assert len({bar.get_y() for bar in bars}) == len(ROWS)
    assert bars[3].get_y() > bars[0].get_y()
    assert axes.yaxis_inverted()


def test_every_option_is_labelled_with_its_probability_even_where_its_bar_is_too_narrow():
    figure = draw_probabilities(ROWS, "choices")
    assert texts_of(figure) == ["choices", "16\n0.10", "32\n0.70", "64\n0.20", "average\n1.00", "max 0.00"]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == list(ROWS)


def test_the_strongest_option_is_the_bold_one():
    texts = draw_probabilities(ROWS, "choices").axes[1].texts
    assert [text.get_text() for text in texts if text.get_weight() == "bold"] == ["32\n0.70", "average\n1.00"]


def test_weights_that_add_up_to_more_than_one_stay_in_the_picture():
    axes = draw_probabilities({"edge": {"conv": 0.9, "skip": 0.8}}, "sigmoid").axes[1]
    assert axes.get_xlim() == pytest.approx((0.0, 1.7))


def test_labels_fit_into_their_bars_and_the_figure():
    names = [
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        *(f"{k}_conv_{n}" for k in ("sep", "dil") for n in "35"),
    ]
    uniform = dict.fromkeys(names, 1 / len(names))
    skewed = {name: weight / 255 for name, weight in zip(names, (1, 2, 4, 8, 16, 32, 64, 128), strict=True)}
    figure = draw_probabilities({"normal 0 → 2": uniform, "normal 1 → 2": skewed}, "Normal cell")
    figure.canvas.draw()
    axes = figure.axes[1]
    names_of_rows = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert_inside([*extents_of_texts(figure), *names_of_rows, axes.xaxis.label.get_window_extent()], figure.bbox)
    bars = [bar.get_window_extent() for bar in axes.patches]
    for text in axes.texts:
        extent = text.get_window_extent()
        if "\n" in text.get_text():
            assert_inside(
                [extent],
                next(bar for bar in bars if bar.contains(*text.get_transform().transform(text.get_position()))),
            )
        else:
            assert not any(extent.overlaps(bar) for bar in bars)


def test_drawing_leaves_no_global_figure_behind_and_can_be_saved(tmp_path):
    for figure in (draw_chain(CHAIN, "found"), draw_probabilities(ROWS, "choices")):
        figure.savefig(tmp_path / "figure.png")
        figure.savefig(tmp_path / "figure.pdf")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert matplotlib.pyplot.get_fignums() == []
