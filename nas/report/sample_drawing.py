"""Drawings of test samples of a task of places: input, target, prediction, and where they differ.

Places without a known target are hatched, whatever is drawn. Lengths are in inches.
"""

import base64
import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nas.data.augmentation import UNKNOWN_CLASS
from nas.report.colours import BLUE, CLASS_COLOURS, GREY, VERMILLION
from nas.report.drawing import DETAIL_SIZE, INK, LABEL_SIZE, LINE_HEIGHT, MARGIN, WIDTH, sheet, text_width, write
from nas.report.shown_samples import MOST_CHANNELS, Array, ShownSamples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROW = 3.6  # a sample on a page, which a telephone shows in its own size
LEAST_SIDE = 192  # pixels of a picture, so that a pattern can be seen in it
LINES_HEIGHT, STRIP_HEIGHT, GAP = 0.9, 0.25, 0.12
AXIS = 0.45  # what the numbers beside lines take
MOST_KEYS = 60
DARK = "#3C3C3C"
RIGHT, WRONG = -1, -2  # in the place of classes
JUDGED = {RIGHT: "#EDEDED", WRONG: "#000000"}
NO_SWATCH = np.empty((0, 0, 3), np.uint8)
PATTERNS = 4  # of a colour: with eight colours 32 classes can be told apart


class Key(NamedTuple):
    """What a colour means: a swatch of it, (h, w, 3) uint8, and words."""

    swatch: Array
    words: str

    @property
    def png(self) -> str:
        """The swatch as the address of a picture that a page shows."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self.swatch).save(content, "PNG")
        return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


class Panel(NamedTuple):
    """A picture (h, w, 3) uint8 or ``lines`` of (L,) values with a colour and a style, below a title.

    A series is ``high``, and has numbers beside it; an image's height follows from its width.
    """

    title: str
    picture: Array | None = None
    lines: Sequence[tuple[Array, str, str]] = ()
    high: float = 0.0

    def height(self, width: float) -> float:
        if self.picture is None or self.high:
            return self.high
        return width * min(max(self.picture.shape[0] / self.picture.shape[1], 0.1), 2.0)


def sample_figure(shown: ShownSamples, place: int, target: int = 0) -> "Figure":
    """One sample, for a page, which has its name and its score as text beside it."""
    return _figure([("", _panels(shown, place, target))], (), NARROW, 2 if shown.sides == 2 else 1)


def sample_sheets(shown: ShownSamples) -> Iterator[tuple[str, "Figure"]]:
    """All samples as drawings with a name each, ``samples``: several numbers of a place are drawn one by one."""
    count = 1 if shown.are_classes else len(shown.names)
    for target in range(count):
        yield "samples" if count == 1 else f"samples_{target + 1}", sample_sheet(shown, target)


def sample_sheet(shown: ShownSamples, target: int = 0) -> "Figure":
    """All samples, one below the other, and what the colours mean.

    Args:
        shown: The samples.
        target: Which of several numbers of a place is drawn.
    """
    told = zip(shown.sample.tolist(), shown.score.tolist(), shown.worst.tolist(), strict=True)
    captions = [f"{name}: {score}{', one of the worst' if worst else ''}" for name, score, worst in told]
    blocks = [(caption, _panels(shown, place, target)) for place, caption in enumerate(captions)]
    words = textwrap.wrap(drawn_in_words(shown), 110)
    explained = [*keys(shown, target), *(Key(NO_SWATCH, line) for line in words)]
    return _figure(blocks, explained, WIDTH, 4 if shown.sides == 2 else 1)


def keys(shown: ShownSamples, target: int = 0) -> list[Key]:
    """What the colours mean in the drawings of ``shown``."""
    if not shown.are_classes:
        return _keys_of_numbers(shown, target)
    there = np.union1d(shown.target, shown.prediction)
    there = there[there != UNKNOWN_CLASS]
    found = [Key(_swatch(one), str(shown.names[one])) for one in there[:MOST_KEYS].tolist()]
    if len(there) > MOST_KEYS:
        found.append(Key(NO_SWATCH, f"and {len(there) - MOST_KEYS} more"))
    if there.max(initial=0) >= (distinct := PATTERNS * len(CLASS_COLOURS)):
        found.append(Key(NO_SWATCH, f"colours repeat after {distinct} classes"))
    found += [Key(_swatch(RIGHT), "right"), Key(_swatch(WRONG), "wrong")]
    if bool((shown.target == UNKNOWN_CLASS).any()):
        found.append(Key(_swatch(UNKNOWN_CLASS), "not counted: ignored or unknown"))
    return found


def drawn_in_words(shown: ShownSamples) -> str:
    """What of inputs, targets and places is drawn, and how; empty where all is, as it is."""
    drawn, count = shown.input.shape[1], shown.channels
    of_input = [f"the first {f'{drawn} ' if drawn > 1 else ''}of {count} channels"] if drawn < count else []
    low, high = _limits(shown)
    scaled = shown.sides == 2 and not ((low == 0).all() and (high == 1).all())
    if shown.sides == 2 and drawn == MOST_CHANNELS and (of_input or scaled):
        of_input.append("as red, green and blue")
    if scaled:
        limits = f"black is {low[0]:.4g} and white {high[0]:.4g}"
        of_input.append(limits if drawn == 1 else "each from its lowest to its highest value")
    told = [f"input: {', '.join(of_input)}"] if of_input else []
    if shown.spacing > 1:
        told.append(f"one of {shown.spacing} places is drawn along each side")
    if shown.targets > MOST_CHANNELS:
        told.append(f"the first {MOST_CHANNELS} of {shown.targets} targets are drawn")
    return "; ".join(told)


def _keys_of_numbers(shown: ShownSamples, target: int) -> list[Key]:
    low, high, largest = _range(shown, target)
    true, said = shown.target[:, target], shown.prediction[:, target]
    unknown = not (np.isfinite(true).all() and np.isfinite(said).all())
    beyond = bool((said < low).any() or (said > high).any())
    if shown.sides == 1:
        found = [Key(_flat(BLUE), "target"), Key(_flat(VERMILLION), "prediction (dashed)")]
        found.append(Key(NO_SWATCH, "error: prediction minus target"))
        return [*found, Key(NO_SWATCH, "gaps: unknown")] if unknown else found
    ramp = np.tile(np.linspace(0, 1, 80), (12, 1))
    clipped = "; predictions beyond take the colours of its ends" if beyond else ""
    found = [
        Key(_on_scale(ramp, "viridis"), f"target and prediction, from {low:.4g} (dark) to {high:.4g} (light){clipped}"),
        Key(_on_scale(ramp, "RdBu_r"), f"prediction minus target, from {-largest:.4g} (blue) to {largest:.4g} (red)"),
    ]
    return [*found, Key(_swatch(UNKNOWN_CLASS), "unknown")] if unknown else found


def _range(shown: ShownSamples, target: int) -> tuple[float, float, float]:
    """The lowest and the highest known target of all samples, and the largest error."""
    true, said = shown.target[:, target].astype(np.float64), shown.prediction[:, target].astype(np.float64)
    known, errors = true[np.isfinite(true)], np.abs(said - true)
    errors = errors[np.isfinite(errors)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return low, high if high > low else low + 1.0, float(errors.max()) if errors.size and errors.max() > 0 else 1.0


def _limits(shown: ShownSamples) -> tuple[Array, Array]:
    """What is black and what is white of each channel, (C,): 0 and 1, or the lowest and highest value where beyond."""
    axes = (0, *range(2, shown.input.ndim))
    low, high = shown.input.min(axes), shown.input.max(axes)
    if low.min() >= 0 and high.max() <= 1:
        return np.zeros_like(low), np.ones_like(high)
    return low, np.where(high > low, high, low + 1)


def _panels(shown: ShownSamples, place: int, target: int) -> list[Panel]:
    inputs = shown.input[place]
    if shown.sides == 1:
        named = zip(range(1, 4), ("solid", "dashed", "dotted"), strict=True)
        called = [f"channel {number} {style}" for number, style in named][: len(inputs)]
        lines = [(one, GREY, style) for one, style in zip(inputs, ("-", "--", ":"), strict=False)]
        title = f"input: {', '.join(called)}" if len(inputs) > 1 else "input"
        first = Panel(title, lines=lines, high=LINES_HEIGHT)
    else:
        black, white = (one[:, None, None] for one in _limits(shown))
        light = ((inputs - black) / (white - black)).clip(0, 1).transpose(1, 2, 0)
        first = Panel("input", _enlarged((255 * light.repeat(3 // len(inputs), 2)).round().astype(np.uint8)))
    true, said = shown.target[place], shown.prediction[place]
    if shown.are_classes:
        known = true != UNKNOWN_CLASS
        errors = np.where(known, np.where(true == said, RIGHT, WRONG), UNKNOWN_CLASS)
        judged = {"target": true, "prediction": said, "errors": errors}
        if shown.sides == 1:
            return [first, *(Panel(name, _strip(one), high=STRIP_HEIGHT) for name, one in judged.items())]
        return [first, *(Panel(name, _coloured(_enlarged(one))) for name, one in judged.items())]
    true, said = true[target].astype(np.float64), said[target].astype(np.float64)
    if shown.sides == 1:
        both = [(true, BLUE, "-"), (said, VERMILLION, "--")]
        error = Panel("error", lines=[(said - true, INK, "-")], high=LINES_HEIGHT)
        return [first, Panel("target and prediction", lines=both, high=LINES_HEIGHT), error]
    low, high, largest = _range(shown, target)
    drawn = {
        "target": _on_scale(_enlarged((true - low) / (high - low)), "viridis"),
        "prediction": _on_scale(_enlarged((said - low) / (high - low)), "viridis"),
        "error": _on_scale(_enlarged((said - true) / (2 * largest) + 0.5), "RdBu_r"),
    }
    return [first, *(Panel(name, picture) for name, picture in drawn.items())]


def _strip(classes: Array) -> Array:
    """A strip of the classes (L,) of a series."""
    return _coloured(np.tile(classes.repeat(-(-2 * LEAST_SIDE // len(classes))), (LEAST_SIDE // 8, 1)))


def _enlarged(values: Array) -> Array:
    factor = max(1, -(-LEAST_SIDE // max(values.shape[:2])))
    return values.repeat(factor, 0).repeat(factor, 1)


def _rgb(colour: str) -> Array:
    return np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], np.uint8)


def _flat(colour: str) -> Array:
    return np.tile(_rgb(colour), (12, 12, 1))


def _swatch(one: int) -> Array:
    return _coloured(np.full((12, 12), one))


def _coloured(classes: Array) -> Array:
    """(h, w) classes, or :data:`RIGHT` and :data:`WRONG`, in their colours and patterns."""
    y, x = np.mgrid[: classes.shape[0], : classes.shape[1]]
    hues = np.stack([*map(_rgb, (*CLASS_COLOURS, JUDGED[WRONG], JUDGED[RIGHT]))])
    drawn = hues[np.where(classes >= 0, classes % len(CLASS_COLOURS), np.maximum(classes, WRONG))]
    patterns = ((x % 6 < 3) & (y % 6 < 3), y % 6 < 2, x % 6 < 2)
    number = np.where(classes >= 0, classes // len(CLASS_COLOURS) % PATTERNS, 0)
    for place, pattern in enumerate(patterns, start=1):
        inked = pattern & (number == place)
        hue = drawn[inked].astype(np.float64)
        drawn[inked] = np.where(hue.mean(-1, keepdims=True) > 130, 0.5 * hue, 0.4 * hue + 0.6 * 255)  # not as hatched
    return np.where((classes == UNKNOWN_CLASS)[..., None], _hatching(*classes.shape), drawn).astype(np.uint8)


def _hatching(height: int, width: int) -> Array:
    y, x = np.mgrid[:height, :width]
    return np.where(((x + y) % 8 < 3)[..., None], _rgb(DARK), np.uint8(255))


def _on_scale(shares: Array, name: str) -> Array:
    """Shares (h, w) of a scale in its colours; what is no number is hatched."""
    from matplotlib import colormaps

    drawn = colormaps[name](np.clip(np.nan_to_num(shares), 0, 1), bytes=True)[..., :3]
    return np.where(np.isfinite(shares)[..., None], drawn, _hatching(*shares.shape)).astype(np.uint8)


def _figure(
    blocks: Sequence[tuple[str, Sequence[Panel]]], explained: Sequence[Key], width: float, columns: int
) -> "Figure":
    """Blocks of panels with a caption each, in so many columns, and below them the keys."""
    panel_width = (width - 2 * MARGIN - (columns - 1) * GAP) / columns
    rows = [
        (caption if not start else "", panels[start : start + columns])
        for caption, panels in blocks
        for start in range(0, len(panels), columns)
    ]
    heights = [max(panel.height(panel_width) for panel in panels) for _, panels in rows]
    caption_heights = [1.6 * LINE_HEIGHT if caption else 0.0 for caption, _ in rows]
    lines = _in_lines(explained, width - 2 * MARGIN)
    below = (len(lines) + 0.5) * 1.4 * LINE_HEIGHT if lines else 0.0
    height = 2 * MARGIN + sum(heights) + sum(caption_heights) + len(rows) * 1.4 * LINE_HEIGHT + below
    figure, axes = sheet(width, height, "")
    top = height - MARGIN
    for (caption, panels), tall, caption_height in zip(rows, heights, caption_heights, strict=True):
        if caption:
            fitting = _cut(caption, width - 2 * MARGIN)
            write(axes, MARGIN, top - LINE_HEIGHT, fitting, LABEL_SIZE, weight="bold", ink=INK, ha="left")
        top -= caption_height
        for column, panel in enumerate(panels):
            left = MARGIN + column * (panel_width + GAP)
            write(axes, left, top - 0.7 * LINE_HEIGHT, panel.title, DETAIL_SIZE, ink=INK, ha="left")
            own = panel.height(panel_width)
            _draw(figure, panel, (left, top - 1.3 * LINE_HEIGHT - own, panel_width, own))
        top -= tall + 1.4 * LINE_HEIGHT
    for line in lines:
        top -= 1.4 * LINE_HEIGHT
        for x, one in line:
            high, wide = (side / 100 for side in one.swatch.shape[:2])
            if high:
                axes.imshow(one.swatch, extent=(x, x + wide, top - high / 2, top + high / 2), zorder=3)
            write(axes, x + wide + 0.06, top, one.words, DETAIL_SIZE, ink=INK, ha="left")
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    return figure


def _in_lines(explained: Sequence[Key], widest: float) -> list[list[tuple[float, Key]]]:
    """The keys in lines of at most this width, each with its place from the left."""
    lines: list[list[tuple[float, Key]]] = []
    x = 0.0
    for one in explained:
        wide = one.swatch.shape[1] / 100 + 0.06 + text_width(one.words, DETAIL_SIZE) + 0.2
        if not lines or x + wide > widest:
            lines.append([])
            x = 0.0
        lines[-1].append((MARGIN + x, one))
        x += wide
    return lines


def _cut(text: str, widest: float) -> str:
    """The end of a text that is too long, such as a path."""
    while text_width(text, LABEL_SIZE, "bold") > widest:
        text = f"…{text[4:]}"
    return text


def _draw(figure: "Figure", panel: Panel, box: tuple[float, float, float, float]) -> None:
    """Draw ``panel`` into a box: left, bottom, width, height."""
    width, height = figure.get_size_inches()
    left, bottom, wide, high = box
    indent = AXIS if panel.high else 0.0
    axes = figure.add_axes(
        ((left + indent) / width, bottom / height, (wide - indent) / width, high / height), facecolor="none"
    )
    for spine in axes.spines.values():
        spine.set(color=INK, linewidth=0.4)
    if panel.picture is not None:
        axes.imshow(panel.picture, interpolation="none", aspect="auto" if panel.high else "equal")
        axes.set_anchor("NW")
        axes.set(xticks=[], yticks=[])
        return
    for values, colour, style in panel.lines:
        axes.plot(np.where(np.isfinite(values), values, np.nan), color=colour, linestyle=style, linewidth=1.0)
    axes.locator_params(axis="y", nbins=4)
    axes.set_xmargin(0)
    axes.set_xticks([])
    axes.tick_params(axis="y", labelsize=DETAIL_SIZE - 1, labelcolor=INK, color=INK, width=0.4, length=2)
