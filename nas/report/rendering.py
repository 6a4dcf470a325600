"""The templates of the pages. Autoescaping keeps a run folder's text from becoming HTML; the pages have no script."""

import re
import shlex
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from nas.data.own_files import readable
from nas.report.cell_graph import captioned_cells
from nas.report.drawing import inline_svg
from nas.report.outcome import architecture_in_words, space_figure
from nas.report.sample_drawing import drawn_in_words, keys, sample_figure
from nas.report.shown_samples import ShownSamples
from nas.report.svg import Plot, corners
from nas.run.candidate_file import CandidateFile

# A page loads nothing but itself: no script, no font, no picture from anywhere else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NARROW = 3.6  # inches: the width of a chain of layers that a telephone shows in its own size


def render(template: str, **context: object) -> str:
    r"""The page that ``template`` makes of ``context``; bytes of a path that is not in UTF-8 become ``\xe4``."""
    return readable(environment().get_template(template).render(context))


@cache
def environment() -> Environment:
    """The templates with the filters that they use."""
    made = Environment(
        loader=PackageLoader("nas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["policy"] = POLICY
    made.filters |= {
        "architecture_in_words": architecture_in_words,
        "breakable": breakable,
        "corners": corners,
        "drawn": drawn,
        "drawn_in_words": drawn_in_words,
        "drawn_sample": drawn_sample,
        "keys": keys,
        "plot": Plot,
        "quoted": quoted,
        "size": size,
    }
    return made


def drawn(found: CandidateFile, prefix: str) -> dict[str, Markup]:
    """The drawing of the architecture as ``broad`` and, for a chain of layers, as ``narrow``, too.

    Args:
        found: The architecture and its space.
        prefix: Keeps the identifiers of a page's drawings apart.
    """
    space, architecture = found.space, found.candidate.architecture
    figure = partial(space_figure, space, architecture, task_name=found.task["name"])
    drawings = {"broad": Markup(inline_svg(figure(), f"{prefix}-broad"))}
    if not captioned_cells(space, architecture):
        drawings["narrow"] = Markup(inline_svg(figure(width=NARROW), f"{prefix}-narrow"))
    return drawings


def drawn_sample(shown: ShownSamples, place: int, target: int, prefix: str) -> Markup:
    """The drawing of one of the samples; ``prefix`` keeps the identifiers of a page's drawings apart."""
    return Markup(inline_svg(sample_figure(shown, place, target), prefix))


def breakable(text: str) -> Markup:
    """``text`` escaped; a single word, such as a setting's name, may break behind its dots and underscores."""
    parts = re.split(r"(?<=[._])(?=[A-Za-z])", text) if " " not in text else [text]
    return Markup("<wbr>").join(map(escape, parts))


def quoted(text: str | Path) -> str:
    """``text`` as a shell takes it."""
    return shlex.quote(str(text))


def whole(value: float | None) -> str | None:
    """``1,536``; None stays None."""
    return None if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str | None:
    """``17 s``, ``12 min 5 s`` or ``3 h 20 min``."""
    if seconds is None:
        return None
    rounded = round(seconds)
    if rounded < 120:
        return f"{rounded} s"
    if rounded < 7200:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


def size(count: int) -> str:
    """``1,536`` or ``2.1 · 10^18``."""
    if count < 10**9:
        return f"{count:,}"
    mantissa, _, exponent = f"{count:.1e}".partition("e")
    return f"{mantissa} · 10^{int(exponent)}"
