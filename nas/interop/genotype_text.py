"""The text ``Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), ...)`` of quark0/darts.

The recurrent half of that code writes ``Genotype(recurrent=[('relu', 0), ...], concat=range(1, 9))``.

Such a text is Python, and the original evaluates it. Here it is read by a grammar of its own, without recursion. It
knows what the forks write, too: a list of two edges per node (pt.darts), edges that name their node (FairDARTS),
tuples, and the scalars of NumPy and torch.

    genotype := "Genotype" "(" field ("," field)* [","] ")"        each field of one kind once, in any order
    field    := name "=" (list of edges, or of lists of two edges | numbers)
    edge     := a list of two, string and number, or of three, string, node and number
    numbers  := list of numbers | "range" "(" number "," number ")" | ("list" | "tuple") "(" numbers ")"
    number   := digits | scalar "(" digits ")"                     scalar is np.int64, int, tensor, ...
    string   := in quotes | "np.str_" "(" in quotes ")"
    list     := "[" [entry ("," entry)* [","]] "]" | "(" ... ")"
"""

import logging
import re
from collections.abc import Callable
from typing import Any

from nas.errors import InvalidValue, keys_below, require
from nas.spaces.darts.genotype import LARGEST_STEPS, Edge, Genotype
from nas.spaces.recurrent.genotype import RecurrentGenotype

log = logging.getLogger(__name__)
LONGEST_TEXT = 10_000
_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)|(?P<number>[0-9]{1,4}(?!\w))"""
    r"""|(?P<string>'\w+'|"\w+")|(?P<mark>[()\[\],=]))""",
    re.ASCII,
)
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
RECURRENT_FIELDS = ("recurrent", "concat")
KNOWN_FIELDS = (*FIELDS, *RECURRENT_FIELDS)
AnyGenotype = Genotype | RecurrentGenotype
CLOSING = {"[": "]", "(": ")"}
SCALARS = re.compile(r"(np|numpy)\.(str_|u?int\d+)|int|str|(torch\.)?tensor")
SEQUENCES = ("list", "tuple")
BEGINNING = re.compile(r"\bGenotype\s*\((?=\s*\w+\s*=)|\bGenotype\s*\((?!\w)")
LOGGED = re.compile(r"genotype\s*[=:]\s*$")  # before a genotype: the line of a search's log


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

    def next_is(self, kind: str) -> bool:
        token = self._next()
        return token is not None and token.lastgroup == kind

    def opening(self) -> str:
        """Take the mark that opens a list, and give the one that closes it."""
        for opening, closing in CLOSING.items():
            if self.skip_mark(opening):
                return closing
        raise self.refuse("a [ or a (")

    def scalar(self, kind: str, expected: str) -> str:
        """A token of ``kind``, bare or in the call of a scalar's type."""
        if not self.next_is("name"):
            return self.take(kind, expected)
        before = self.position
        if not SCALARS.fullmatch(self.take("name", expected)):
            self.position = before
            raise self.refuse(expected)
        self.take_mark("(")
        value = self.take(kind, expected)
        self.take_mark(")")
        return value

    def number(self) -> int:
        return int(self.scalar("number", "a whole number"))

    def edge_in(self, closing: str) -> tuple[Any, ...]:
        """The rest of an edge whose list is open already: (operation, source), or (operation, node, source)."""
        operation = self.scalar("string", "an operation's name in quotes")[1:-1]
        self.take_mark(",")
        numbers = [self.number()]
        if self.skip_mark(","):
            numbers.append(self.number())
        self.take_mark(closing)
        return operation, *numbers

    def edge(self) -> tuple[Any, ...]:
        return self.edge_in(self.opening())

    def edge_or_node(self) -> list[tuple[Any, ...]]:
        """An edge, or the list of a node's two."""
        before, closing = self.position, self.opening()
        if self.next_is("mark"):
            edges = self.take_list(self.edge, closing)
            if len(edges) != 2:
                self.position = before
                raise self.refuse("the two edges of a node")
            return edges
        return [self.edge_in(closing)]

    def edges(self) -> list[tuple[Any, ...]]:
        return [edge for entry in self.take_list(self.edge_or_node, self.opening()) for edge in entry]

    def numbers(self) -> list[int]:
        if not self.next_is("name"):
            return self.take_list(self.number, self.opening())
        before, expected = self.position, "a list of whole numbers or range(first, end)"
        name = self.take("name", expected)
        wrapped = 0
        while name in SEQUENCES:
            self.take_mark("(")
            wrapped += 1
            name = self.take("name", expected) if self.next_is("name") else ""
        if name == "range":
            self.take_mark("(")
            first = self.number()
            self.take_mark(",")
            end = self.number()
            self.take_mark(")")
            found = list(range(first, min(end, LARGEST_STEPS + 3)))
        elif name == "" and wrapped:
            found = self.take_list(self.number, self.opening())
        else:
            self.position = before
            raise self.refuse(expected)
        for _ in range(wrapped):
            self.take_mark(")")
        return found

    def field(self) -> tuple[str, list[Any]]:
        name = self.take("name", f"one of {', '.join(KNOWN_FIELDS)}")
        if name not in KNOWN_FIELDS:
            raise self.refuse(f"one of {', '.join(KNOWN_FIELDS)} before")
        self.take_mark("=")
        return name, self.numbers() if name.endswith("concat") else self.edges()


def parse_genotype(text: object) -> AnyGenotype:
    """The genotype that ``text`` spells out, and nothing else; nothing in it is executed.

    Raises:
        InvalidValue: ``text`` is too long, not of the form above, or its cells are impossible.
    """
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise InvalidValue("genotype", text, f"it must be a text of at most {LONGEST_TEXT} characters")
    reader = _Reader(text)
    genotype = _read(reader)
    if text[reader.position :].strip():
        raise reader.refuse("nothing more")
    return genotype


def find_genotypes(text: str) -> list[AnyGenotype]:
    """The genotypes in ``text``, whatever stands around them, each once; of a search's log only the last.

    A log is what has ``genotype =`` before every one: the last is what the search ended with. In any other text, such
    as a file of published cells, the last has no claim over the others.

    Raises:
        InvalidValue: What begins as a genotype is none.
    """
    places = list(BEGINNING.finditer(text))
    found = [_read(_Reader(text[place.start() :][:LONGEST_TEXT])) for place in places]
    different = list(dict.fromkeys(found))
    logged = all(LOGGED.search(text[max(0, place.start() - 40) : place.start()]) for place in places)
    if logged and len(different) > 1:
        log.info(f"the last of the log's {len(found)} genotypes is taken")
        return found[-1:]
    return different


def _read(reader: _Reader) -> AnyGenotype:
    if reader.take("name", "Genotype(") != "Genotype":
        raise InvalidValue("genotype", reader.text, "it must begin with Genotype(")
    reader.take_mark("(")
    fields = reader.take_list(reader.field, ")")
    names = sorted(name for name, _ in fields)
    recurrent = not set(names).isdisjoint(RECURRENT_FIELDS)
    wanted = RECURRENT_FIELDS if recurrent else FIELDS
    require(names == sorted(wanted), "genotype", reader.text, f"it must give each of {', '.join(wanted)} once")
    values = dict(fields)
    with keys_below("genotype"):
        if recurrent:
            return RecurrentGenotype.from_mapping(values)
        for cell in ("normal", "reduce"):
            if values[cell] and all(len(edge) == 3 for edge in values[cell]):
                values |= _in_pairs(cell, values[cell], values[f"{cell}_concat"])
        return Genotype.from_mapping(values)


def _in_pairs(cell: str, edges: list[tuple[str, int, int]], concat: list[int]) -> dict[str, list[Any]]:
    """A cell of FairDARTS, whose edges name their node, as one of two edges per node, with ``none`` for those missing.

    As there, a node without an edge is no part of the output, and what would read it is left out.
    """
    most = LARGEST_STEPS + 1
    good = bool(concat) and all(2 <= node <= most for node in concat) and len(set(concat)) == len(concat)
    allowed = f"it must be a list of different nodes, each a whole number from 2 to {most}"
    require(good, f"{cell}_concat", concat, allowed)
    states, pairs = {0, 1}, list[Edge]()
    nodes = range(2, max(concat) + 1)
    for operation, node, source in edges:
        good = node in nodes and source < node and sum(edge[1:] == (node, source) for edge in edges) == 1
        allowed = "it must be (operation, node, an earlier state), each edge once"
        require(good, cell, (operation, node, source), allowed)
    for node in nodes:
        own = [(operation, source) for operation, to, source in edges if to == node and source in states]
        require(len(own) <= 2, cell, own, f"node {node} must have two edges at most")
        states |= {node} if own else set()
        free = [state for state in range(node) if state not in {source for _, source in own}]
        pairs += [*own, *(("none", source) for source in free[: 2 - len(own)])]
    kept = [node for node in concat if node in states]
    require(bool(kept), f"{cell}_concat", concat, f"one of its nodes must have an edge in {cell}")
    return {cell: pairs, f"{cell}_concat": kept}


def genotype_text(genotype: AnyGenotype) -> str:
    """``genotype`` as quark0/darts prints it."""
    fields = []
    for name in FIELDS if isinstance(genotype, Genotype) else RECURRENT_FIELDS:
        value = getattr(genotype, name)
        contiguous = name.endswith("concat") and value == tuple(range(value[0], value[-1] + 1))
        fields.append(f"{name}={f'range({value[0]}, {value[-1] + 1})' if contiguous else list(value)}")
    return f"Genotype({', '.join(fields)})"
