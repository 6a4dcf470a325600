"""The cells of an architecture as graphs."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.candidate import Architecture
from nas.spaces.darts.choices import CELLS
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.choices import EDGES, edge_name
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recurrent.genotype import RecurrentGenotype
from nas.spaces.recurrent.space import Recurrent
from nas.spaces.space import SearchSpace

CELL_CAPTIONS = {"normal": "normal cell", "reduce": "reduction cell"}


@dataclass(frozen=True)
class CellEdge:
    """An operation from one state to another; an empty name is no operation, as the way into the cell's output."""

    source: str
    target: str
    operation: str = ""


@dataclass(frozen=True)
class CellGraph:
    """The states of a cell, inputs first and output last, and the edges between them."""

    states: tuple[str, ...]
    edges: tuple[CellEdge, ...]


def captioned_cells(space: SearchSpace, architecture: Architecture) -> list[tuple[str, CellGraph]]:
    """The cells of ``architecture`` with their captions; none where an architecture is a chain of layers."""
    if isinstance(space, Darts):
        genotype = space.genotype(architecture)
        return [(CELL_CAPTIONS[cell], darts_cell(genotype, cell)) for cell in CELLS]
    if isinstance(space, NasBench201):
        return [("", nasbench201_cell(architecture))]
    if isinstance(space, Recurrent):
        return [("", recurrent_cell(space.genotype(architecture)))]
    return []


def darts_cell(genotype: Genotype, cell: str) -> CellGraph:
    """``normal`` or ``reduce`` with the names of the paper's figures: c_{k-2}, c_{k-1}, the nodes 0, 1, ..., c_{k}."""
    pairs: Sequence[tuple[str, int]] = getattr(genotype, cell)
    concat: Sequence[int] = getattr(genotype, f"{cell}_concat")
    nodes = [str(node) for node in range(len(pairs) // 2)]
    states = ("c_{k-2}", "c_{k-1}", *nodes, "c_{k}")
    edges = [CellEdge(states[source], nodes[index // 2], operation) for index, (operation, source) in enumerate(pairs)]
    edges += [CellEdge(states[node], "c_{k}") for node in sorted(concat)]
    return CellGraph(states, tuple(edges))


def nasbench201_cell(architecture: Architecture) -> CellGraph:
    """The six edges between input, two nodes and output; ``none`` is an edge like any other."""
    states = ("input", "1", "2", "output")
    edges = (CellEdge(states[source], states[node], architecture[edge_name(node, source)]) for node, source in EDGES)
    return CellGraph(states, tuple(edges))


def recurrent_cell(genotype: RecurrentGenotype) -> CellGraph:
    """A recurrent cell with the names of the paper's figures: x_{t}, h_{t-1}, the nodes 0, 1, ..., h_{t}."""
    nodes = [str(node) for node in range(len(genotype.recurrent) + 1)]
    edges = [CellEdge("x_{t}", "0"), CellEdge("h_{t-1}", "0")]
    edges += [CellEdge(nodes[source], nodes[node], name) for node, (name, source) in enumerate(genotype.recurrent, 1)]
    edges += [CellEdge(nodes[node], "h_{t}") for node in sorted(genotype.concat)]
    return CellGraph(("x_{t}", "h_{t-1}", *nodes, "h_{t}"), tuple(edges))
