"""A search as a GIF: the preferred architecture and alpha's probabilities, epoch by epoch."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.report.charts import anytime_measure
from nas.report.colours import option_colours
from nas.report.outcome import space_figure
from nas.report.recorded_run import RecordedRun
from nas.run.checkpoint import write_atomically
from nas.spaces.space import Probabilities

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

MOST_FRAMES = 100
FRAME_MILLISECONDS, LAST_MILLISECONDS = 250, 3000
RESOLUTION = 90  # pixels per inch of the drawings
BAR_WIDTH, BAR_HEIGHT, ROW_HEIGHT = 240, 13, 17
MARGIN, TITLE_HEIGHT, TEXT_SIZE, TITLE_SIZE = 14, 34, 11, 16
INK, SOFT, PAPER = "#1b1f24", "#5b6470", "#ffffff"


class Frame(NamedTuple):
    """One picture: a title, the architecture preferred at that time, and the probabilities that prefer it."""

    title: str
    architecture: Architecture
    probabilities: Probabilities


def frames(run: RecordedRun) -> list[Frame]:
    """A frame per recorded epoch, at most :data:`MOST_FRAMES`; the first and the last epoch are always among them.

    Raises:
        InvalidValue: The run has no candidate or recorded no probabilities.
    """
    history = list(run.probability_history())
    if run.found is None or not history:
        raise InvalidValue("run folder", run.folder, "it must hold a finished search with recorded probabilities")
    kept = [history[round(index * (len(history) - 1) / (MOST_FRAMES - 1))] for index in range(MOST_FRAMES)]
    measure = anytime_measure([run])
    curve = run.curves.get(f"validation/{measure.name}")
    at = dict(zip(curve.steps, curve.values, strict=True)) if curve else {}
    unit = "epoch" if run.steps_per_epoch else "step"
    shown = []
    for step, probabilities in history if len(history) <= MOST_FRAMES else kept:
        title = f"{unit} {run.place(step):.4g}"
        if step in at:
            told = f"{100 * at[step]:.1f} %" if measure.unit == "%" else measure.told(at[step])
            title += f"   validation {measure.words} {told}"
        try:
            preferred = run.found.space.preferred(probabilities)
        except KeyError as error:
            allowed = "its recorded probabilities are not those of a supernet's rows"
            raise InvalidValue("run folder", run.folder, allowed) from error
        shown.append(Frame(title, preferred, probabilities))
    return shown


def write_animation(run: RecordedRun, path: Path) -> Path:
    """Write the GIF of ``run`` to ``path``.

    Raises:
        InvalidValue: See :func:`frames`.
    """
    from PIL import Image

    some = frames(run)
    assert run.found is not None
    drawn: dict[Architecture, Image.Image] = {}
    for frame in some:
        if frame.architecture not in drawn:
            content = BytesIO()
            figure = space_figure(run.found.space, frame.architecture, task_name=run.found.task["name"])
            figure.savefig(content, format="png", dpi=RESOLUTION)
            drawn[frame.architecture] = Image.open(content).convert("RGB")
    text, title = _font(TEXT_SIZE), _font(TITLE_SIZE)
    rows = list(some[0].probabilities)
    names_width = max(int(text.getlength(row)) for row in rows)
    columns = 2 if len(rows) > 24 else 1
    per_column = -(-len(rows) // columns)
    left = max(image.width for image in drawn.values())
    legend = _legend(some[0].probabilities)
    height = max(*(image.height for image in drawn.values()), per_column * ROW_HEIGHT + 2 * ROW_HEIGHT)
    size = (
        left + columns * (names_width + BAR_WIDTH + 2 * MARGIN) + MARGIN,
        height + TITLE_HEIGHT + MARGIN,
    )
    pictures = []
    for frame in some:
        picture = Image.new("RGB", size, PAPER)
        picture.paste(drawn[frame.architecture], (0, TITLE_HEIGHT))
        _draw_bars(picture, frame, left, names_width, per_column, text, title, legend)
        pictures.append(picture.quantize(colors=128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    durations = [FRAME_MILLISECONDS] * (len(pictures) - 1) + [LAST_MILLISECONDS]
    content = BytesIO()
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return path


def _legend(probabilities: Probabilities) -> Mapping[str, str]:
    """The colours of the options if all rows have the same options; otherwise the bars name the strongest option."""
    options = {tuple(row) for row in probabilities.values()}
    return option_colours(list(next(iter(options)))) if len(options) == 1 else {}


def _font(size: int) -> "FreeTypeFont":
    """The font of the drawings."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _draw_bars(
    picture: "Image",
    frame: Frame,
    left: int,
    names_width: int,
    per_column: int,
    text: "FreeTypeFont",
    title: "FreeTypeFont",
    legend: Mapping[str, str],
) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN // 2), frame.title, fill=INK, font=title)
    longest = max(1.0, *(sum(options.values()) for options in frame.probabilities.values()))
    for number, (row, options) in enumerate(frame.probabilities.items()):
        column, line = divmod(number, per_column)
        x = left + column * (names_width + BAR_WIDTH + 2 * MARGIN) + MARGIN
        y = TITLE_HEIGHT + line * ROW_HEIGHT
        pen.text((x + names_width, y), row, fill=INK, font=text, anchor="ra")
        start = float(x + names_width + 8)
        colours = option_colours(list(options))
        strongest = max(options, key=options.__getitem__)
        for option, probability in options.items():
            width = probability / longest * BAR_WIDTH
            pen.rectangle((start, y, start + width, y + BAR_HEIGHT), fill=colours[option])
            if option == strongest:
                pen.rectangle((start, y, start + width, y + BAR_HEIGHT), outline=INK, width=2)
                if not legend and text.getlength(option) + 6 < width:
                    ink = _readable_on(colours[option])
                    pen.text((start + width / 2, y + BAR_HEIGHT / 2 + 1), option, fill=ink, font=text, anchor="mm")
            start += width
    _draw_legend(picture, legend, left + MARGIN, TITLE_HEIGHT + per_column * ROW_HEIGHT + ROW_HEIGHT // 2, text)


def _draw_legend(picture: "Image", legend: Mapping[str, str], x: int, y: int, text: "FreeTypeFont") -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    start = x
    for option, colour in legend.items():
        width = 16 + int(text.getlength(option)) + 12
        if start + width > picture.width:
            start, y = x, y + ROW_HEIGHT
        pen.rectangle((start, y, start + 10, y + 10), fill=colour)
        pen.text((start + 15, y - 1), option, fill=SOFT, font=text)
        start += width


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER
