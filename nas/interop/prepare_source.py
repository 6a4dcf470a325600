"""The part of a stand-alone file that makes inputs of the network from data as they come: ``prepare``."""

from collections.abc import Callable, Mapping
from pprint import pformat
from typing import Any, NamedTuple

from torch import Tensor

from nas.data.pictures.picture_inputs import prepared_pictures
from nas.data.tables.table_rows import prepared_rows
from nas.data.texts.text_tokens import prepared_text, prepared_texts
from nas.interop.bundled_source import bundled_source


class Preparer(NamedTuple):
    """How a source's inputs are made.

    Attributes:
        function: Of data and the source's preparation.
        argument: What ``prepare`` takes.
        words: Its docstring.
    """

    function: Callable[[Any, Any], Tensor]
    argument: str
    words: str


PREPARERS = {
    "images": Preparer(
        prepared_pictures,
        "pictures",
        "Inputs of the network from a picture (channels, height, width), or several, of any size: uint8 to 255,\n"
        "    other whole numbers to 65535, floating point to 1.",
    ),
    "table": Preparer(
        prepared_rows,
        "rows",
        "Inputs of the network from rows as dictionaries, or from a dictionary or data frame of columns.",
    ),
    "texts": Preparer(
        prepared_texts, "texts", "Inputs of the network from a list of texts: longer ones are cut, shorter ones padded."
    ),
    "running text": Preparer(
        prepared_text, "text", 'The tokens of a text, (1, length); PREPARATION["vocabulary"] tells what they stand for.'
    ),
}


def preparer_of(preparation: Mapping[str, Any]) -> Preparer | None:
    """How inputs are made of the data that ``preparation`` was measured on; None where the file leaves it to others."""
    kind = preparation.get("kind", "running text" if "vocabulary" in preparation else "")
    return PREPARERS.get(kind)


def prepare_source(preparer: Preparer, preparation: Mapping[str, Any]) -> tuple[list[str], str]:
    """The import statements that ``prepare`` needs, and its definitions."""
    imports, _, definitions = bundled_source(preparer.function).partition("\n\n\n")
    source = (
        f"{definitions.strip()}\n\n\n"
        f"PREPARATION = {pformat(preparation, width=110, compact=True, sort_dicts=False)}\n\n\n"
        f"def prepare({preparer.argument}):\n"
        f'    """{preparer.words}"""\n'
        f"    return {preparer.function.__name__}({preparer.argument}, PREPARATION)"
    )
    return imports.splitlines(), source
