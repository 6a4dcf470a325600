"""The decisions of the DARTS space: choices, genotypes, the discretisation of Liu et al. (2019, section 2.4).

Decisions are named after their place: ``normal.node2.first.input`` (the number of a state), then
``normal.node2.first.operation``; ``first`` is the stronger edge.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.candidate import Architecture, Candidate, Choice, Domain
from nas.errors import InvalidValue, require
from nas.operations.cell_operations import CELL_OPERATIONS
from nas.operations.edge_structure import Decay, EdgeStructure
from nas.signature import Signature
from nas.spaces.cell_supernet import AUXILIARY_SKIP
from nas.spaces.darts.genotype import LARGEST_STEPS, Edge, Genotype
from nas.spaces.darts.network import NetworkKind
from nas.spaces.space import SKIPS, LayerDescription, Probabilities, Rivals, RunnerUp, SearchSpace
from nas.spaces.supernet import Implementation, checked_implementation

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CELLS = ("normal", "reduce")
PLACES = ("first", "second")
LARGEST = {"channels": 1024, "cells": 200, "steps": LARGEST_STEPS, "stem_multiplier": 64}


def cell_edges(steps: int) -> list[tuple[int, int]]:
    """The edges (node, the state it reads) of a cell in the order of alpha's rows."""
    return [(node, source) for node in range(2, steps + 2) for source in range(node)]


def edge_name(cell: str, node: int, source: int) -> str:
    """The row of alpha that holds the operations of an edge."""
    return f"{cell}.node{node}.from{source}"


def edge_weight_row(cell: str, node: int) -> str:
    """The row of alpha that weighs the edges of a node (PC-DARTS); its options are ``from0``, ``from1``, ..."""
    return f"{cell}.node{node}.edges"


def edges_alpha(cell: str, node: int) -> str:
    """The alpha that holds :func:`edge_weight_row`."""
    return f"{cell}_node{node}_edges"


def edge_weight_row_of(alpha: str) -> tuple[str, tuple[str, ...]]:
    """From :func:`edges_alpha` to its row: the name, and the options."""
    cell, node = alpha.removesuffix("_edges").split("_node")
    return edge_weight_row(cell, int(node)), tuple(f"from{source}" for source in range(int(node)))


class DartsChoices(SearchSpace):
    """A normal and a reduction cell, two edges per node; see :class:`~nas.spaces.darts.space.Darts`."""

    name: ClassVar[str] = "darts"
    never_chosen: ClassVar[frozenset[str]] = frozenset({"none"})

    def __init__(
        self,
        channels: int = 16,
        cells: int = 8,
        steps: int = 4,
        multiplier: int = 4,
        stem_multiplier: int = 3,
        operations: Sequence[str] | Mapping[str, Any] = OPERATIONS,
        normal_concat: Sequence[int] | None = None,
        reduce_concat: Sequence[int] | None = None,
        final_channels: int = 36,
        final_cells: int = 20,
        final_network: NetworkKind = "cifar",
        auxiliary: bool = False,
        implementation: Implementation = "fast",
        partial_channels: int = 1,
        edge_normalisation: bool = False,
        auxiliary_skip: bool = False,
        auxiliary_decay: Decay = "linear",
        optional_edges: bool = False,
        *,
        signature: Signature,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(signature, ranges)
        self.channels = _whole("channels", channels, LARGEST["channels"])
        self.cells = _whole("cells", cells, LARGEST["cells"])
        self.steps = _whole("steps", steps, LARGEST["steps"])
        self.multiplier = _whole("multiplier", multiplier, self.steps)
        self.stem_multiplier = _whole("stem_multiplier", stem_multiplier, LARGEST["stem_multiplier"])
        self.edge_operations = edge_operations(operations, self.steps)
        self.operations = _union(row for rows in self.edge_operations.values() for row in rows)
        self.concat = {
            "normal": self._concat("normal_concat", normal_concat),
            "reduce": self._concat("reduce_concat", reduce_concat),
        }
        self.final_channels = _whole("final_channels", final_channels, LARGEST["channels"])
        self.final_cells = _whole("final_cells", final_cells, LARGEST["cells"])
        kinds = ("cifar", "imagenet")
        require(final_network in kinds, "final_network", final_network, f"it must be one of {', '.join(kinds)}")
        narrow = final_network == "imagenet" and self.final_channels < 2
        require(not narrow, "final_channels", final_channels, "the imagenet network needs at least 2")
        self.final_network: NetworkKind = final_network
        require(isinstance(auxiliary, bool), "auxiliary", auxiliary, "it must be true or false")
        self.auxiliary = auxiliary
        require(isinstance(optional_edges, bool), "optional_edges", optional_edges, "it must be true or false")
        self.optional_edges = optional_edges
        self.implementation = checked_implementation(implementation)
        self.structure = EdgeStructure(partial_channels, edge_normalisation, auxiliary_skip, auxiliary_decay)
        self.structure.require_parts(self.channels)
        self._choices = tuple(choice for cell in CELLS for choice in self._cell_choices(cell))

    def _concat(self, key: str, concat: Sequence[int] | None) -> tuple[int, ...]:
        last = self.steps + 1
        if concat is None:
            return tuple(range(last - self.multiplier + 1, last + 1))
        allowed = f"it must be null or a list of different nodes, each a whole number from 2 to {last}"
        if not isinstance(concat, Sequence) or isinstance(concat, str) or not 0 < len(concat) <= self.steps:
            raise InvalidValue(key, concat, allowed)
        good = all(type(node) is int and 2 <= node <= last for node in concat) and len(set(concat)) == len(concat)
        require(good, key, list(concat), allowed)
        return tuple(concat)

    def _cell_choices(self, cell: str) -> list[Choice]:
        choices = []
        for node in range(2, self.steps + 2):
            operations = _union(self.chosen_from(cell, node, source) for source in range(node))
            for place in PLACES:
                choices.append(Choice(f"{cell}.node{node}.{place}.input", tuple(map(str, range(node)))))
                choices.append(Choice(f"{cell}.node{node}.{place}.operation", operations))
        return choices

    def chosen_from(self, cell: str, node: int, source: int) -> tuple[str, ...]:
        """What an architecture may have on an edge: its operations without ``none``, or with it at the end where edges
        are optional."""
        row = cell_edges(self.steps).index((node, source))
        found = tuple(name for name in self.edge_operations[cell][row] if name != "none")
        return (*found, "none") if self.optional_edges else found

    def settings(self) -> dict[str, Any]:
        rows = {cell: [list(row) for row in rows] for cell, rows in self.edge_operations.items()}
        alike = all(row == list(self.operations) for cell in CELLS for row in rows[cell])
        default = self._concat("", None)
        return {
            "channels": self.channels,
            "cells": self.cells,
            "steps": self.steps,
            "multiplier": self.multiplier,
            "stem_multiplier": self.stem_multiplier,
            "operations": list(self.operations) if alike else rows,
            "normal_concat": None if self.concat["normal"] == default else list(self.concat["normal"]),
            "reduce_concat": None if self.concat["reduce"] == default else list(self.concat["reduce"]),
            "final_channels": self.final_channels,
            "final_cells": self.final_cells,
            "final_network": self.final_network,
            "auxiliary": self.auxiliary,
            **({"optional_edges": True} if self.optional_edges else {}),
            **self.structure.settings(),
        }

    def sample(self, generator: torch.Generator) -> Candidate:
        """A candidate whose nodes read two different states each, as those of a searched cell do; inputs are uniform,
        and so are the operations of an edge.

        The choices themselves do not exclude equal inputs: published cells of other searches have them.
        """
        candidate = super().sample(generator)
        options = dict(candidate.architecture)
        for cell in CELLS:
            for node in range(2, self.steps + 2):
                first, second = (f"{cell}.node{node}.{place}.input" for place in PLACES)
                while options[second] == options[first]:
                    options[second] = str(int(torch.randint(node, (), generator=generator)))
                for place in PLACES:
                    name = f"{cell}.node{node}.{place}"
                    allowed = self.chosen_from(cell, node, int(options[f"{name}.input"]))
                    if options[f"{name}.operation"] not in allowed:
                        drawn = int(torch.randint(len(allowed), (), generator=generator))
                        options[f"{name}.operation"] = allowed[drawn]
        return Candidate(Architecture(self.name, options), candidate.hyperparameters)

    def repair(self, indices: list[float], generator: torch.Generator) -> list[float]:
        """Where both edges of a node read the same state, the second one reads another; an operation that its edge does
        not have becomes one that it has."""
        repaired = list(indices)
        for first in range(0, len(self.choices), 4):  # per node: input and operation of the first edge, of the second
            second = first + 2
            while repaired[second] == repaired[first]:
                repaired[second] = float(torch.randint(len(self.choices[second].options), (), generator=generator))
            for place in (first, second):
                node, choice = self.choices[place].name.split("."), self.choices[place + 1]
                allowed = self.chosen_from(node[0], int(node[1].removeprefix("node")), round(repaired[place]))
                if choice.options[round(repaired[place + 1])] not in allowed:
                    name = allowed[int(torch.randint(len(allowed), (), generator=generator))]
                    repaired[place + 1] = float(choice.options.index(name))
        return repaired

    def genotype(self, architecture: Architecture) -> Genotype:
        """``architecture`` in the form of the literature.

        Raises:
            InvalidValue: It is no architecture of this space.
        """
        self._check(architecture)
        cells = {cell: tuple(self._edges(architecture, cell)) for cell in CELLS}
        return self._genotype(cells)

    def _check(self, architecture: Architecture) -> None:
        """Raise ``InvalidValue`` where ``architecture`` is none of this space."""
        architecture.check(self.choices)
        for cell in CELLS:
            for index, (operation, source) in enumerate(self._edges(architecture, cell)):
                node, place = index // 2 + 2, PLACES[index % 2]
                allowed = self.chosen_from(cell, node, source)
                key = f"architecture.{cell}.node{node}.{place}.operation"
                require(operation in allowed, key, operation, f"the edge from {source} has {', '.join(allowed)}")

    def _genotype(self, cells: Mapping[str, tuple[Edge, ...]]) -> Genotype:
        return Genotype(cells["normal"], self.concat["normal"], cells["reduce"], self.concat["reduce"])

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        """The architecture in words, one entry per node: its operations with the states they read."""
        genotype = self.genotype(architecture)
        described = []
        for cell in CELLS:
            edges: tuple[Edge, ...] = getattr(genotype, cell)
            for node in range(self.steps):
                pair = edges[2 * node : 2 * node + 2]
                detail = ", ".join(f"{operation}({source})" for operation, source in pair)
                described.append(LayerDescription("conv", f"{cell} {node + 2}:", detail))
        return described

    def _edges(self, architecture: Architecture, cell: str) -> list[Edge]:
        names = [f"{cell}.node{node}.{place}" for node in range(2, self.steps + 2) for place in PLACES]
        return [(architecture[f"{name}.operation"], int(architecture[f"{name}.input"])) for name in names]

    def architecture(self, genotype: Genotype) -> Architecture:
        """The inverse of :meth:`genotype`.

        Raises:
            InvalidValue: This space cannot express ``genotype``: its number of nodes, concatenation or operations.
        """
        options = {}
        for cell in CELLS:
            edges: tuple[Edge, ...] = getattr(genotype, cell)
            allowed = f"the cells of this space have {self.steps} nodes (steps={self.steps})"
            require(len(edges) == 2 * self.steps, f"genotype.{cell}", f"{len(edges) // 2} nodes", allowed)
            concat: tuple[int, ...] = getattr(genotype, f"{cell}_concat")
            allowed = f"this space concatenates {list(self.concat[cell])}"
            require(concat == self.concat[cell], f"genotype.{cell}_concat", list(concat), allowed)
            for index, (operation, source) in enumerate(edges):
                name = f"{cell}.node{index // 2 + 2}.{PLACES[index % 2]}"
                options[f"{name}.input"] = str(source)
                options[f"{name}.operation"] = operation
        architecture = Architecture(self.name, options)
        self._check(architecture)
        return architecture

    def preferred(self, probabilities: Probabilities) -> Architecture:
        """The two strongest edges of every node, each with its strongest operation but ``none`` (section 2.4).

        With edge weights an edge is as strong as its weight times its strongest operation's. The stronger edge comes
        first. Among equal edges the one from the earlier state wins, among equal operations the one named earlier, as
        in the original. An optional edge without any strength is left out.
        """
        cells: dict[str, tuple[Edge, ...]] = {}
        for cell in CELLS:
            chosen: list[Edge] = []
            for node in range(2, self.steps + 2):
                edges = [(*_strongest(edge_strengths(probabilities, cell, node, one)), one) for one in range(node)]
                # max and sorted keep the first of equals.
                strongest = sorted(edges, key=lambda edge: -edge[1])[:2]
                for operation, strength, source in strongest:
                    chosen.append(("none" if self.optional_edges and strength == 0 else operation, source))
            cells[cell] = tuple(chosen)
        return self.architecture(self._genotype(cells))

    def rivals(self) -> list[Rivals]:
        """The edges that enter a node: two of them are kept."""
        nodes = [(cell, node) for cell in CELLS for node in range(2, self.steps + 2)]
        return [Rivals(tuple(edge_name(cell, node, source) for source in range(node)), 2) for cell, node in nodes]

    def skips(self, architecture: Architecture) -> list[tuple[str, str]]:
        """Those of the normal cell: the literature counts no others."""
        edges = self._edges(architecture, "normal")
        named = [(edge_name("normal", 2 + place // 2, source), option) for place, (option, source) in enumerate(edges)]
        return [(row, option) for row, option in named if option in SKIPS]

    def runner_up(self, choice: str, architecture: Architecture, probabilities: Probabilities) -> RunnerUp | None:
        """The next operation on the edge, or for an input the strongest edge that the node left out.

        The option of an input also names the operation with which its edge would come.
        """
        place, _, kind = choice.rpartition(".")
        cell, node = place.split(".")[0], int(place.split(".")[1].removeprefix("node"))
        source, operation = architecture[f"{place}.input"], architecture[f"{place}.operation"]
        if operation == "none":
            return None
        strengths = edge_strengths(probabilities, cell, node, int(source))
        if kind == "operation":
            others = {name: value for name, value in strengths.items() if name not in (operation, "none")}
            if not others:
                return None
            option, strength = _strongest(others)
            swapped = Architecture(self.name, {**architecture, choice: option})
            return RunnerUp(option, strengths[operation] - strength, swapped)
        taken = {architecture[f"{cell}.node{node}.{one}.input"] for one in PLACES}
        left_out = [one for one in range(node) if str(one) not in taken]
        if not left_out:
            return None
        edges = {one: _strongest(edge_strengths(probabilities, cell, node, one)) for one in left_out}
        best = max(edges, key=lambda one: edges[one][1])
        option, strength = edges[best]
        options = {**architecture, f"{place}.input": str(best), f"{place}.operation": option}
        return RunnerUp(f"{best} ({option})", strengths[operation] - strength, Architecture(self.name, options))

    def agree(self, choice: str, one: Architecture, other: Architecture) -> bool:
        """Whether both decide ``choice`` alike, be an edge the first or the second of its node."""
        place, _, kind = choice.rpartition(".")
        node = place.rpartition(".")[0]
        edges = [(other[f"{node}.{at}.input"], other[f"{node}.{at}.operation"]) for at in PLACES]
        source, operation = one[f"{place}.input"], one[f"{place}.operation"]
        return (source, operation) in edges if kind == "operation" else source in [edge[0] for edge in edges]

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """1 where ``architecture`` has an edge, 2 where a node reads one state twice through one operation."""
        genotype = self.genotype(architecture)
        rows = {edge: row for row, edge in enumerate(cell_edges(self.steps))}
        weights: dict[str, Tensor] = {}
        for kind in CELLS:
            names = self.edge_operations[kind]
            weights[kind] = torch.zeros(len(rows), len(names[0]))
            edges: tuple[Edge, ...] = getattr(genotype, kind)
            for index, (operation, source) in enumerate(edges):
                row = rows[index // 2 + 2, source]
                if operation in names[row]:  # not so the none of an optional edge
                    weights[kind][row, names[row].index(operation)] += 1
            if self.structure.edge_normalisation:
                for node in range(2, self.steps + 2):
                    own = [row for (end, _), row in rows.items() if end == node]
                    weights[edges_alpha(kind, node)] = (weights[kind][own].sum(1) > 0).to(weights[kind])
        if self.structure.auxiliary_skip:
            weights[AUXILIARY_SKIP] = torch.zeros(())
        return weights


def edge_strengths(probabilities: Probabilities, cell: str, node: int, source: int) -> dict[str, float]:
    """The probabilities of an edge's operations, times the edge's own where edges have weights (Xu et al., 2020)."""
    of_edges = probabilities.get(edge_weight_row(cell, node))
    of_edge = 1.0 if of_edges is None else of_edges[f"from{source}"]
    return {name: of_edge * value for name, value in probabilities[edge_name(cell, node, source)].items()}


def _strongest(options: Mapping[str, float]) -> tuple[str, float]:
    """The most probable operation besides ``none``, with its probability; among equals the one named earlier."""
    name = max((one for one in options if one != "none"), key=options.__getitem__)
    return name, options[name]


def _whole(key: str, value: object, largest: int) -> int:
    allowed = f"it must be a whole number from 1 to {largest}"
    if type(value) is not int or not 1 <= value <= largest:
        raise InvalidValue(key, value, allowed)
    return value


def edge_operations(operations: object, steps: int) -> dict[str, tuple[tuple[str, ...], ...]]:
    """What each edge chooses from: per kind of cell a row of operations per edge, in the order of alpha.

    Args:
        operations: One list for all edges, or per kind of cell (``normal``, ``reduce``) a list of lists, one per edge.

    Raises:
        InvalidValue: ``operations`` are anything else, or some edges have more of them than others.
    """
    edges = len(cell_edges(steps))
    if not isinstance(operations, Mapping):
        return dict.fromkeys(CELLS, (_operations("operations", operations),) * edges)
    fields = f"it must hold {' and '.join(CELLS)}"
    require(set(operations) == set(CELLS), "operations", sorted(map(str, operations)), fields)
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for cell in CELLS:
        rows, key = operations[cell], f"operations.{cell}"
        if not isinstance(rows, Sequence) or isinstance(rows, str) or len(rows) != edges:
            raise InvalidValue(key, rows, f"it must be a list of {edges} lists, one for each edge of {steps} nodes")
        found[cell] = tuple(_operations(f"{key}[{row}]", names) for row, names in enumerate(rows))
        many = len(found[cell][0])
        alike = all(len(row) == many for row in found[cell])
        require(alike, key, [list(row) for row in found[cell]], "every edge must choose from equally many operations")
    return found


def _operations(key: str, names: object) -> tuple[str, ...]:
    allowed = f"it must be a list of different operations out of {', '.join(CELL_OPERATIONS)}"
    if not isinstance(names, Sequence) or isinstance(names, str) or not 0 < len(names) <= len(CELL_OPERATIONS):
        raise InvalidValue(key, names, allowed)
    for name in names:
        require(isinstance(name, str) and name in CELL_OPERATIONS, key, list(names), allowed)
    require(len(set(names)) == len(names), key, list(names), allowed)
    require(set(names) != {"none"}, key, list(names), "it needs at least one operation besides none")
    return tuple(names)


def _union(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The operations of all ``rows``, each once, in the order in which they come first."""
    return tuple(dict.fromkeys(name for row in rows for name in row))
