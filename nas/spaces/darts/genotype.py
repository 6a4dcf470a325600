"""The pair of cells that a DARTS search finds, in the form in which the literature publishes it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nas.errors import InvalidValue, require
from nas.operations.cell_operations import CELL_OPERATIONS

LARGEST_STEPS = 16
Edge = tuple[str, int]  # (operation, the state it reads)


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell (Liu et al., 2019).

    A cell's states are numbered: 0 and 1 are the outputs of the two cells before it, 2 its first own node, and so on.
    Node ``n`` is the sum of edges ``2 * (n - 2)`` and ``2 * (n - 2) + 1``. The cell's output concatenates the states in
    ``..._concat``. The two cells may have different numbers of nodes.

    Raises:
        InvalidValue: An operation is unknown, an edge reads a state that is not there yet, or the lengths are wrong.
    """

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for cell in ("normal", "reduce"):
            edges = _checked_edges(cell, getattr(self, cell))
            concat = _checked_concat(f"{cell}_concat", getattr(self, f"{cell}_concat"), len(edges) // 2)
            object.__setattr__(self, cell, edges)
            object.__setattr__(self, f"{cell}_concat", concat)

    @property
    def normal_steps(self) -> int:
        """The number of nodes of the normal cell."""
        return len(self.normal) // 2

    def operations(self) -> tuple[str, ...]:
        """The operations in use, each once, in the order of their first use."""
        return tuple(dict.fromkeys(operation for operation, _ in self.normal + self.reduce))

    @classmethod
    def from_mapping(cls, values: object) -> "Genotype":
        """The genotype in ``values``, the untrusted entries of a text or of JSON.

        Raises:
            InvalidValue: They are not exactly the four fields, or one of them is wrong.
        """
        if not isinstance(values, Mapping):
            raise InvalidValue("genotype", values, "it must be an object")
        fields = {"normal", "normal_concat", "reduce", "reduce_concat"}
        require(
            set(values) == fields, "genotype", sorted(map(str, values)), f"it must hold {', '.join(sorted(fields))}"
        )
        return cls(**values)


def _checked_edges(cell: str, edges: object) -> tuple[Edge, ...]:
    whole = isinstance(edges, list | tuple) and len(edges) % 2 == 0 and 0 < len(edges) <= 2 * LARGEST_STEPS
    allowed = f"it must be a list of (operation, input) pairs, two per node, at most {LARGEST_STEPS} nodes"
    if not whole:
        raise InvalidValue(cell, edges, allowed)
    assert isinstance(edges, list | tuple)
    checked = []
    for index, edge in enumerate(edges):
        key = f"{cell}[{index}]"
        if not isinstance(edge, list | tuple) or len(edge) != 2:
            raise InvalidValue(key, edge, "it must be a pair (operation, input)")
        operation, source = edge
        known = isinstance(operation, str) and operation in CELL_OPERATIONS
        require(known, key, operation, f"the operation must be one of {', '.join(CELL_OPERATIONS)}")
        before = index // 2 + 2
        there = type(source) is int and 0 <= source < before
        require(there, key, source, f"the input must be a whole number from 0 to {before - 1}")
        checked.append((str(operation), int(source)))
    return tuple(checked)


def _checked_concat(key: str, concat: object, steps: int) -> tuple[int, ...]:
    allowed = f"it must be a list of different nodes, each a whole number from 2 to {steps + 1}"
    if not isinstance(concat, list | tuple) or not 0 < len(concat) <= steps:
        raise InvalidValue(key, concat, allowed)
    good = all(type(node) is int and 2 <= node <= steps + 1 for node in concat) and len(set(concat)) == len(concat)
    require(good, key, list(concat), allowed)
    return tuple(concat)
