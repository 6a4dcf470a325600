"""The text ``Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), ...)`` of quark0/darts.

Such a text is Python, and the original evaluates it. Here it is read by a grammar of its own, without recursion:

    genotype := "Genotype" "(" field ("," field)* [","] ")"        each of the four fields once, in any order
    field    := name "=" (edges | concat)
    edges    := "[" [edge ("," edge)* [","]] "]"
    edge     := "(" string "," number ")"
    concat   := "[" [number ("," number)* [","]] "]" | "range" "(" number "," number ")"
"""

import re
from collections.abc import Callable
from typing import Any

from nas.errors import InvalidValue
from nas.spaces.darts.genotype import LARGEST_STEPS, Edge, Genotype

LONGEST_TEXT = 10_000
_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]+)|(?P<number>[0-9]{1,4}(?![0-9A-Za-z_]))|(?P<string>'\w+'|"\w+")|(?P<mark>[()\[\],=]))""",
    re.ASCII,
)
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


class _Reader:
    """The tokens of a text, taken one by one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def refuse(self, expected: str) -> InvalidValue:
        rest = self.text[self.position :].strip()[:20]
        return InvalidValue(
            "genotype", self.text, f"at {rest!r} it must have {expected}" if rest else f"it ends before {expected}"
        )

    def _next(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.position)

    def take(self, kind: str, expected: str) -> str:
        """The next token, which must be of ``kind``."""
        token = self._next()
        if token is None or token.lastgroup != kind:
            raise self.refuse(expected)
        self.position = token.end()
        return token[kind]

    def take_mark(self, mark: str) -> None:
        if not self.skip_mark(mark):
            raise self.refuse(f"a {mark}")

    def skip_mark(self, mark: str) -> bool:
        """Take the next token if it is ``mark``."""
        token = self._next()
        if token is None or token["mark"] != mark:
            return False
        self.position = token.end()
        return True

    def take_list(self, entry: Callable[[], Any], closing: str) -> list[Any]:
        """Entries separated by commas, up to ``closing``."""
        entries: list[Any] = []
        while not self.skip_mark(closing):
            entries.append(entry())
            if not self.skip_mark(","):
                self.take_mark(closing)
                break
        return entries

    def number(self) -> int:
        return int(self.take("number", "a whole number"))

    def edge(self) -> Edge:
        self.take_mark("(")
        operation = self.take("string", "an operation's name in quotes")[1:-1]
        self.take_mark(",")
        source = self.number()
        self.take_mark(")")
        return operation, source

    def edges(self) -> list[Edge]:
        self.take_mark("[")
        return self.take_list(self.edge, "]")

    def concat(self) -> list[int]:
        if self.skip_mark("["):
            return self.take_list(self.number, "]")
        if self.take("name", "a list of whole numbers or range(first, end)") != "range":
            raise self.refuse("a list of whole numbers or range(first, end)")
        self.take_mark("(")
        first = self.number()
        self.take_mark(",")
        end = self.number()
        self.take_mark(")")
        return list(range(first, min(end, LARGEST_STEPS + 3)))

    def field(self) -> tuple[str, list[Any]]:
        name = self.take("name", f"one of {', '.join(FIELDS)}")
        if name not in FIELDS:
            raise self.refuse(f"one of {', '.join(FIELDS)} before")
        self.take_mark("=")
        return name, self.concat() if name.endswith("_concat") else self.edges()


def parse_genotype(text: object) -> Genotype:
    """The genotype that ``text`` spells out; nothing in it is executed.

    Raises:
        InvalidValue: ``text`` is too long, not of the form above, or its cells are impossible.
    """
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise InvalidValue("genotype", text, f"it must be a text of at most {LONGEST_TEXT} characters")
    reader = _Reader(text)
    if reader.take("name", "Genotype(") != "Genotype":
        raise InvalidValue("genotype", text, "it must begin with Genotype(")
    reader.take_mark("(")
    fields = reader.take_list(reader.field, ")")
    if text[reader.position :].strip():
        raise reader.refuse("nothing more")
    if sorted(name for name, _ in fields) != sorted(FIELDS):
        raise InvalidValue("genotype", text, f"it must give each of {', '.join(FIELDS)} once")
    try:
        return Genotype.from_mapping(dict(fields))
    except InvalidValue as error:
        raise error.below("genotype") from error


def genotype_text(genotype: Genotype) -> str:
    """``genotype`` as quark0/darts prints it."""
    fields = []
    for name in FIELDS:
        value = getattr(genotype, name)
        contiguous = name.endswith("_concat") and value == tuple(range(value[0], value[-1] + 1))
        fields.append(f"{name}={f'range({value[0]}, {value[-1] + 1})' if contiguous else list(value)}")
    return f"Genotype({', '.join(fields)})"
