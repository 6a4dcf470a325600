"""The DARTS space (Liu et al., 2019): a normal and a reduction cell, stacked; its plain search network.

A cell has two input states, the outputs of the two cells before it, and ``steps`` nodes. While searching, each node is
the sum of a mixed operation from every state before it; afterwards each keeps two (input, operation) pairs.

Decisions are named after their place: ``normal.node2.first.input`` (the number of a state), then
``normal.node2.first.operation``; ``first`` is the stronger edge.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import add
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate, Choice, Domain
from nas.configuration import InvalidValue, require
from nas.operations.batched.edges import bundles, node_states
from nas.operations.cell_operations import CELL_OPERATIONS, FactorisedReduction, ReLUConvBN
from nas.operations.mixed_edge import MixedEdge
from nas.operations.stochastic import Dropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.darts_network import CifarStem, DartsNetwork, ImageNetStem, NetworkKind, reduction_indices
from nas.spaces.genotype import LARGEST_STEPS, Edge, Genotype
from nas.spaces.space import BlockCost, LayerDescription, Probabilities, RunnerUp, SearchSpace
from nas.spaces.supernet import Implementation, Supernet, checked_implementation

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


class Darts(SearchSpace):
    """DARTS cells, searched in a small network and then stacked into a large one.

    Args:
        channels: Of the nodes in the search network's first cells.
        cells: How many cells the search network has.
        steps: How many nodes a cell computes.
        multiplier: A cell's output concatenates this many of its last nodes.
        stem_multiplier: Channels of the stem in units of ``channels``.
        operations: What an edge chooses from, in the order of alpha's columns.
        normal_concat: The states that the normal cell's output concatenates instead of the last ``multiplier`` nodes.
        reduce_concat: The same of the reduction cell.
        final_channels: ``channels`` of the stand-alone network.
        final_cells: ``cells`` of the stand-alone network.
        final_network: Whether the stand-alone network starts at full resolution (``cifar``) or at an eighth of it.
        auxiliary: Whether the stand-alone network has an auxiliary head; in training mode it then gives a pair of
            logits.
        implementation: How the supernet computes: ``plain``, one operation after the other, or ``fast``, with the work
            that edges share done once. Both have the same parameters and give the same numbers.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds.
    """

    name: ClassVar[str] = "darts"

    def __init__(
        self,
        channels: int = 16,
        cells: int = 8,
        steps: int = 4,
        multiplier: int = 4,
        stem_multiplier: int = 3,
        operations: Sequence[str] = OPERATIONS,
        normal_concat: Sequence[int] | None = None,
        reduce_concat: Sequence[int] | None = None,
        final_channels: int = 36,
        final_cells: int = 20,
        final_network: NetworkKind = "cifar",
        auxiliary: bool = False,
        implementation: Implementation = "fast",
        *,
        input_shape: Sequence[int],
        classes: int,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(input_shape, classes, ranges)
        self.channels = _whole("channels", channels, LARGEST["channels"])
        self.cells = _whole("cells", cells, LARGEST["cells"])
        self.steps = _whole("steps", steps, LARGEST["steps"])
        self.multiplier = _whole("multiplier", multiplier, self.steps)
        self.stem_multiplier = _whole("stem_multiplier", stem_multiplier, LARGEST["stem_multiplier"])
        self.operations = _operations(operations)
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
        self.implementation = checked_implementation(implementation)
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
        operations = tuple(operation for operation in self.operations if operation != "none")
        choices = []
        for node in range(2, self.steps + 2):
            for place in PLACES:
                choices.append(Choice(f"{cell}.node{node}.{place}.input", tuple(map(str, range(node)))))
                choices.append(Choice(f"{cell}.node{node}.{place}.operation", operations))
        return choices

    def for_genotype(self, genotype: Genotype) -> "Darts":
        """This space if it can express ``genotype``, else one of its sizes that can.

        That one has the genotype's number of nodes and concatenations, and the paper's operations with what else the
        genotype uses.

        Raises:
            InvalidValue: The two cells differ in their number of nodes, or one uses ``none``.
        """
        try:
            self.architecture(genotype)
        except InvalidValue:
            further = [name for name in genotype.operations() if name not in OPERATIONS]
            needed = {
                "steps": genotype.normal_steps,
                "multiplier": len(genotype.normal_concat),
                "operations": [*OPERATIONS, *further],
                "normal_concat": genotype.normal_concat,
                "reduce_concat": genotype.reduce_concat,
            }
            settings = self.settings() | needed | {"implementation": self.implementation}
            space = Darts(**settings, input_shape=self.input_shape, classes=self.classes, ranges=self.ranges)
            space.architecture(genotype)
            return space
        return self

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def settings(self) -> dict[str, Any]:
        default = self._concat("", None)
        return {
            "channels": self.channels,
            "cells": self.cells,
            "steps": self.steps,
            "multiplier": self.multiplier,
            "stem_multiplier": self.stem_multiplier,
            "operations": list(self.operations),
            "normal_concat": None if self.concat["normal"] == default else list(self.concat["normal"]),
            "reduce_concat": None if self.concat["reduce"] == default else list(self.concat["reduce"]),
            "final_channels": self.final_channels,
            "final_cells": self.final_cells,
            "final_network": self.final_network,
            "auxiliary": self.auxiliary,
        }

    def sample(self, generator: torch.Generator) -> Candidate:
        """As everywhere, but the two edges of a node read different states, as those of a searched cell do.

        The choices themselves do not exclude equal inputs: published cells of other searches have them.
        """
        candidate = super().sample(generator)
        options = dict(candidate.architecture)
        for cell in CELLS:
            for node in range(2, self.steps + 2):
                first, second = (f"{cell}.node{node}.{place}.input" for place in PLACES)
                while options[second] == options[first]:
                    options[second] = str(int(torch.randint(node, (), generator=generator)))
        return Candidate(Architecture(self.name, options), candidate.hyperparameters)

    def repair(self, indices: list[float], generator: torch.Generator) -> list[float]:
        """The second edge of a node reads another state where both have come to read the same one."""
        repaired = list(indices)
        for first in range(0, len(self.choices), 4):  # per node: input and operation of the first edge, of the second
            second = first + 2
            while repaired[second] == repaired[first]:
                repaired[second] = float(torch.randint(len(self.choices[second].options), (), generator=generator))
        return repaired

    def genotype(self, architecture: Architecture) -> Genotype:
        """``architecture`` in the form of the literature.

        Raises:
            InvalidValue: It is no architecture of this space.
        """
        architecture.check(self.choices)
        cells = {cell: tuple(self._edges(architecture, cell)) for cell in CELLS}
        return Genotype(cells["normal"], self.concat["normal"], cells["reduce"], self.concat["reduce"])

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        """One entry per node: the cell's type and node, and the operations with the states they read."""
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
        architecture.check(self.choices)
        return architecture

    def preferred(self, probabilities: Probabilities) -> Architecture:
        """Per node the two strongest edges, each by its strongest operation but ``none`` (the paper's section 2.4).

        The stronger edge comes first. Among equal edges the one from the earlier state wins, among equal operations
        the one named earlier, as in the original.
        """
        cells: dict[str, tuple[Edge, ...]] = {}
        for cell in CELLS:
            chosen: list[Edge] = []
            for node in range(2, self.steps + 2):
                edges = [(*_strongest(probabilities[edge_name(cell, node, one)]), one) for one in range(node)]
                # max and sorted keep the first of equals.
                strongest = sorted(edges, key=lambda edge: -edge[1])[:2]
                chosen += [(operation, source) for operation, _, source in strongest]
            cells[cell] = tuple(chosen)
        return self.architecture(
            Genotype(cells["normal"], self.concat["normal"], cells["reduce"], self.concat["reduce"])
        )

    def runner_up(self, choice: str, architecture: Architecture, probabilities: Probabilities) -> RunnerUp | None:
        """For an edge's operation the next one on that edge, for its input the strongest edge that the node left out.

        The option of an input also names the operation with which its edge would come.
        """
        place, _, kind = choice.rpartition(".")
        cell, node = place.split(".")[0], int(place.split(".")[1].removeprefix("node"))
        source, operation = architecture[f"{place}.input"], architecture[f"{place}.operation"]
        kept = probabilities[edge_name(cell, node, int(source))]
        if kind == "operation":
            others = {name: value for name, value in kept.items() if name not in (operation, "none")}
            if not others:
                return None
            option, strength = _strongest(others)
            swapped = Architecture(self.name, {**architecture, choice: option})
            return RunnerUp(option, kept[operation] - strength, swapped)
        taken = {architecture[f"{cell}.node{node}.{one}.input"] for one in PLACES}
        left_out = [one for one in range(node) if str(one) not in taken]
        if not left_out:
            return None
        edges = {one: _strongest(probabilities[edge_name(cell, node, one)]) for one in left_out}
        best = max(edges, key=lambda one: edges[one][1])
        option, strength = edges[best]
        options = {**architecture, f"{place}.input": str(best), f"{place}.operation": option}
        return RunnerUp(f"{best} ({option})", kept[operation] - strength, Architecture(self.name, options))

    def agree(self, choice: str, one: Architecture, other: Architecture) -> bool:
        """As everywhere, but whether an edge comes first or second at its node does not matter."""
        place, _, kind = choice.rpartition(".")
        node = place.rpartition(".")[0]
        edges = [(other[f"{node}.{at}.input"], other[f"{node}.{at}.operation"]) for at in PLACES]
        source, operation = one[f"{place}.input"], one[f"{place}.operation"]
        return (source, operation) in edges if kind == "operation" else source in [edge[0] for edge in edges]

    def supernet(self, relaxation: Relaxation) -> "DartsSupernet":
        return DartsSupernet(self, relaxation)

    def network(self, architecture: Architecture) -> DartsNetwork:
        """The freshly initialised stand-alone network; see :class:`~nas.spaces.darts_network.DartsNetwork`."""
        return DartsNetwork(**self._network_settings() | {"genotype": self.genotype(architecture)})

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        genotype = self.genotype(architecture)
        return {"genotype": SimpleNamespace(**vars(genotype))} | self._network_settings()

    def _network_settings(self) -> dict[str, Any]:
        return {
            "in_channels": self.input_shape[0],
            "channels": self.final_channels,
            "cells": self.final_cells,
            "classes": self.classes,
            "kind": self.final_network,
            "auxiliary": self.auxiliary,
            "stem_multiplier": self.stem_multiplier,
        }

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        genotype = self.genotype(architecture)
        rows = {edge: row for row, edge in enumerate(cell_edges(self.steps))}
        weights: dict[str, Tensor] = {}
        for kind in CELLS:
            weights[kind] = torch.zeros(len(rows), len(self.operations))
            edges: tuple[Edge, ...] = getattr(genotype, kind)
            for index, (operation, source) in enumerate(edges):
                weights[kind][rows[index // 2 + 2, source], self.operations.index(operation)] += 1
        return weights

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        """That of the retrained network, without the auxiliary head, which is of use in training only.

        An edge that is not discretised yet counts with the whole weight of its operations.
        """
        cifar, channels = self.final_network == "cifar", self.final_channels
        width = self.stem_multiplier * channels if cifar else channels
        stem = CifarStem if cifar else ImageNetStem
        in_channels, *sides = self.input_shape
        total = weights["normal"].new_zeros(())
        total = total + cost(
            f"{stem.__name__} {width} {self.input_shape}", partial(stem, in_channels, width), self.input_shape
        )
        older_sides = sides
        for _ in range(0 if cifar else 3):
            older_sides, sides = sides, [-(-side // 2) for side in sides]
        before, last, halve_before = width, width, not cifar
        for index in range(self.final_cells):
            reduction = index in reduction_indices(self.final_cells)
            channels = 2 * channels if reduction else channels
            kind = "reduce" if reduction else "normal"
            older = (before, *older_sides)
            make = (
                partial(FactorisedReduction, before, channels, affine=True)
                if halve_before
                else partial(ReLUConvBN, before, channels, 1, 1, affine=True)
            )
            total = total + cost(f"preprocess {older} {channels} {halve_before}", make, older)
            make = partial(ReLUConvBN, last, channels, 1, 1, affine=True)
            total = total + cost(f"preprocess {(last, *sides)} {channels} False", make, (last, *sides))
            smaller = [-(-side // 2) for side in sides] if reduction else sides
            rows = []
            for _, source in cell_edges(self.steps):
                stride, inside = (2, sides) if reduction and source < 2 else (1, smaller)
                shape = (channels, *inside)
                rows.append(
                    [
                        cost(f"{name} {shape} {stride}", partial(CELL_OPERATIONS[name], channels, stride, True), shape)
                        for name in self.operations
                    ]
                )
            total = total + (weights[kind] * weights[kind].new_tensor(rows)).sum()
            before, last, halve_before = last, len(self.concat[kind]) * channels, reduction
            older_sides, sides = sides, smaller
        return total + cost(f"classifier {last} {self.classes}", partial(nn.Linear, last, self.classes), (last,))


def edge_name(cell: str, node: int, source: int) -> str:
    """The row of alpha that holds an edge."""
    return f"{cell}.node{node}.from{source}"


def _strongest(options: Mapping[str, float]) -> tuple[str, float]:
    """The most probable operation besides ``none``, with its probability; among equals the one named earlier."""
    name = max((one for one in options if one != "none"), key=options.__getitem__)
    return name, options[name]


def _whole(key: str, value: object, largest: int) -> int:
    allowed = f"it must be a whole number from 1 to {largest}"
    if type(value) is not int or not 1 <= value <= largest:
        raise InvalidValue(key, value, allowed)
    return value


def _operations(names: object) -> tuple[str, ...]:
    allowed = f"it must be a list of different operations out of {', '.join(CELL_OPERATIONS)}"
    if not isinstance(names, Sequence) or isinstance(names, str) or not 0 < len(names) <= len(CELL_OPERATIONS):
        raise InvalidValue("operations", names, allowed)
    for name in names:
        require(isinstance(name, str) and name in CELL_OPERATIONS, "operations", list(names), allowed)
    require(len(set(names)) == len(names), "operations", list(names), allowed)
    require(set(names) != {"none"}, "operations", list(names), "it needs at least one operation besides none")
    return tuple(names)


class SearchCell(nn.Module):
    """A cell with a mixed operation on every edge; its arguments are those of a stand-alone cell."""

    def __init__(
        self,
        operations: Sequence[str],
        steps: int,
        concat: Sequence[int],
        before_channels: int,
        last_channels: int,
        channels: int,
        reduction: bool,
        halve_before: bool,
    ) -> None:
        super().__init__()
        self.preprocess0: nn.Module = (
            FactorisedReduction(before_channels, channels, affine=False)
            if halve_before
            else ReLUConvBN(before_channels, channels, 1, 1, affine=False)
        )
        self.preprocess1 = ReLUConvBN(last_channels, channels, 1, 1, affine=False)
        self.edges = nn.ModuleList(
            MixedEdge(operations, channels, 2 if reduction and source < 2 else 1, normalise_pooling=True)
            for _, source in cell_edges(steps)
        )
        self.steps = steps
        self.concat = tuple(concat)
        self.width = len(self.concat) * channels

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """``weights`` (edges, operations), the rows in the order of :func:`cell_edges`."""
        states = [self.preprocess0(before), self.preprocess1(last)]
        offset = 0
        for _ in range(self.steps):
            terms = [
                self.edges[offset + source](state, weights[offset + source]) for source, state in enumerate(states)
            ]
            offset += len(terms)
            states.append(reduce(add, terms))
        return torch.cat([states[index] for index in self.concat], dim=1)


class FastSearchCell(SearchCell):
    """The same cell with the edges that leave one state computed together."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.bundles = bundles(self.edges, cell_edges(self.steps))

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        inputs = [self.preprocess0(before), self.preprocess1(last)]
        states = node_states(inputs, self.edges, self.bundles, cell_edges(self.steps), weights)
        return torch.cat([states[index] for index in self.concat], dim=1)


def cell_edges(steps: int) -> list[tuple[int, int]]:
    """The edges (node, the state it reads) of a cell in the order of alpha's rows."""
    return [(node, source) for node in range(2, steps + 2) for source in range(node)]


class DartsSupernet(Supernet):
    """The search network; the plain implementation computes one operation after the other, as the paper has it.

    ``alpha["normal"]`` and ``alpha["reduce"]`` are (edges, operations), shared by all cells of their type and drawn
    from a normal distribution with standard deviation 1e-3. Batch norms have no affine parameters except the stem's.
    """

    def __init__(self, space: Darts, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        self.space = space
        width = space.stem_multiplier * space.channels
        self.stem = nn.Sequential(
            nn.Conv2d(space.input_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.cells = nn.ModuleList()
        self.cell_types: list[str] = []
        cell_class = FastSearchCell if space.implementation == "fast" else SearchCell
        before, last, channels, halve_before = width, width, space.channels, False
        for index in range(space.cells):
            reduction = index in reduction_indices(space.cells)
            channels = 2 * channels if reduction else channels
            kind = "reduce" if reduction else "normal"
            cell = cell_class(
                space.operations, space.steps, space.concat[kind], before, last, channels, reduction, halve_before
            )
            self.cells.append(cell)
            self.cell_types.append(kind)
            before, last, halve_before = last, cell.width, reduction
        self.dropout = Dropout()
        self.classifier = nn.Linear(last, space.classes)
        for kind in CELLS:
            rows = len(cell_edges(space.steps))
            self.alpha[kind] = nn.Parameter(1e-3 * torch.randn(rows, len(space.operations)))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        before = last = self.stem(self.laid_out(x, self.space.implementation))
        for cell, kind in zip(self.cells, self.cell_types, strict=True):
            before, last = last, cell(before, last, weights[kind])
        return self.classifier(self.dropout(F.adaptive_avg_pool2d(last, 1).flatten(1)))

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        edges = cell_edges(self.space.steps)
        return [(edge_name(name, node, source), self.space.operations) for node, source in edges]

    @torch.no_grad()
    def discretise(self) -> Architecture:
        for kind in CELLS:
            for (row, _), values in zip(self.alpha_rows(kind), self.alpha[kind], strict=True):
                if not bool(torch.isfinite(values).all()):
                    raise FloatingPointError(f"alpha of {row} is not finite: {values.tolist()}")
        return self.space.preferred(self.probabilities())

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The weights with which this supernet computes ``architecture``: 1 where it has an edge, 0 elsewhere.

        A node that reads one state twice through one operation has a 2 there.
        """
        weights = self.space.architecture_weights(architecture)
        return {kind: weights[kind].to(self.alpha[kind]) for kind in CELLS}

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """A state dict for the stand-alone network, where it has the size of this one.

        Its batch norms get a scale of 1 and a shift of 0, which is what theirs without affine parameters compute.

        Raises:
            InvalidValue: The stand-alone network is larger, has other parts, or pools: its pooling operations have no
                batch norm. :meth:`architecture_weights` computes such an architecture in the supernet itself.
        """
        space = self.space
        genotype = space.genotype(architecture)
        allowed = "weights can be inherited only where the stand-alone network has the search network's size and parts"
        require(space.final_channels == space.channels, "final_channels", space.final_channels, allowed)
        require(space.final_cells == space.cells, "final_cells", space.final_cells, allowed)
        require(space.final_network == "cifar", "final_network", space.final_network, allowed)
        require(not space.auxiliary, "auxiliary", space.auxiliary, allowed)
        pools = [operation for operation in genotype.operations() if "pool" in operation]
        require(not pools, "architecture", pools, "a stand-alone pooling operation has no batch norm to inherit")
        rows = {edge: row for row, edge in enumerate(cell_edges(space.steps))}
        own = self.state_dict()
        state: dict[str, Tensor] = {}
        for name, fresh in space.network(architecture).state_dict().items():
            parts = name.split(".")
            if parts[0] == "cells" and parts[2] == "edges":
                edges: tuple[Edge, ...] = getattr(genotype, self.cell_types[int(parts[1])])
                operation, source = edges[int(parts[3])]
                row = rows[int(parts[3]) // 2 + 2, source]
                parts[3:4] = [str(row), "operations", str(space.operations.index(operation))]
            # Affine parameters that this network has not are 1 and 0, as freshly made.
            state[name] = own.get(".".join(parts), fresh).detach().clone()
        return state


def from_description(settings: object, input_shape: Sequence[int], classes: int) -> Darts:
    """The space whose :meth:`Darts.settings` were ``settings``; see ``space_from_description``.

    Raises:
        InvalidValue: ``settings`` are not exactly those of a space.
    """
    names = set(Darts(input_shape=input_shape, classes=classes).settings())
    if not isinstance(settings, Mapping):
        raise InvalidValue("", settings, "it must be an object")
    require(set(settings) == names, "", sorted(map(str, settings)), f"it must hold {', '.join(sorted(names))}")
    return Darts(**settings, input_shape=input_shape, classes=classes)
