"""The DARTS space (Liu et al., 2019): a normal and a reduction cell, stacked.

A cell has two input states, the outputs of the two cells before it, and ``steps`` nodes. While searching, each node is
the sum of a mixed operation from every state before it; afterwards each keeps two (input, operation) pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.operations.cell_operations import CELL_OPERATIONS
from nas.operations.edge_structure import EdgeStructure
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.darts.choices import CELLS, OPERATIONS, DartsChoices, cell_edges, edge_name, edges_alpha
from nas.spaces.darts.genotype import Edge, Genotype
from nas.spaces.darts.network import CellShape, CifarStem, DartsNetwork, ImageNetStem, older_input, stacked_shapes
from nas.spaces.darts.supernet import DartsSupernet
from nas.spaces.space import BlockCost, require_settings


class Darts(DartsChoices):
    """DARTS cells, searched in a small network and then stacked into a large one.

    Args:
        channels: Channels of the nodes in the search network's first cells.
        cells: The number of cells of the search network.
        steps: The number of nodes that a cell computes.
        multiplier: A cell's output concatenates this many of its last nodes.
        stem_multiplier: Channels of the stem in units of ``channels``.
        operations: What an edge chooses from, in the order of alpha's columns: one list for all edges, or a mapping of
            ``normal`` and ``reduce`` to a list per edge, in the order of alpha's rows and all of one length.
        normal_concat: The states that the normal cell's output concatenates instead of the last ``multiplier`` nodes.
        reduce_concat: The same for the reduction cell.
        final_channels: ``channels`` of the stand-alone network.
        final_cells: ``cells`` of the stand-alone network.
        final_network: Whether the stand-alone network starts at full resolution (``cifar``) or at an eighth of it.
        auxiliary: Whether the stand-alone network has an auxiliary head; in training mode it then gives a pair of
            logits.
        implementation: How the supernet computes: ``plain``, one operation after the other, or ``fast``, with the work
            that edges share done once. Both have the same parameters and give the same numbers.
        partial_channels, edge_normalisation, auxiliary_skip, auxiliary_decay: What an edge of the search network has
            besides (:class:`~nas.operations.edge_structure.EdgeStructure`).
        optional_edges: Whether an architecture may leave edges out: ``none`` is then one of their options.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds.
    """

    def for_genotype(self, genotype: Genotype) -> "Darts":
        """This space if it can express ``genotype``, else a space with these sizes that can.

        The other space has the genotype's number of nodes and concatenations, and the paper's operations with what else
        the genotype uses; edges are optional where it has ``none``.

        Raises:
            InvalidValue: The two cells differ in their number of nodes.
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
                "optional_edges": self.optional_edges or "none" in genotype.operations(),
            }
            settings = self.settings() | needed | {"implementation": self.implementation}
            space = Darts(**settings, signature=self.signature, ranges=self.ranges)
            space.architecture(genotype)
            return space
        return self

    def narrowed(self, options: Mapping[str, Sequence[str]], further_cells: int) -> "Darts":
        edges = cell_edges(self.steps)
        operations = {cell: [list(options[edge_name(cell, *edge)]) for edge in edges] for cell in CELLS}
        settings = self.settings() | {"operations": operations, "cells": self.cells + further_cells}
        settings |= {"implementation": self.implementation}
        return Darts(**settings, signature=self.signature, ranges=self.ranges)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], signature: Signature) -> "Darts":
        unusual = {"optional_edges", *(one.name for one in fields(EdgeStructure))}  # written where not as usual
        require_settings(set(settings) - unusual, Darts(signature=signature).settings())
        return cls(**settings, signature=signature)

    def supernet(self, relaxation: Relaxation) -> "DartsSupernet":
        return DartsSupernet(self, relaxation)

    def network(self, architecture: Architecture) -> DartsNetwork:
        """The freshly initialised stand-alone network; see :class:`~nas.spaces.darts.network.DartsNetwork`."""
        return DartsNetwork(**self._network_settings() | {"genotype": self.genotype(architecture)})

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        genotype = self.genotype(architecture)
        return {"genotype": SimpleNamespace(**vars(genotype))} | self._network_settings()

    def reduction(self, architecture: Architecture) -> int:
        halved = {self.final_cells // 3, 2 * self.final_cells // 3}
        return 2 ** len(halved) * (8 if self.final_network == "imagenet" else 1)

    def doubts(self, architecture: Architecture) -> list[str]:
        found, genotype = super().doubts(architecture), self.genotype(architecture)
        for kind, concat in self.concat.items():
            reached = {0, 1}  # the states of the cell that depend on its inputs
            edges: tuple[Edge, ...] = getattr(genotype, kind)
            for place, (operation, source) in enumerate(edges):
                if source in reached and operation != "none":
                    reached.add(place // 2 + 2)
            if reached.isdisjoint(concat):
                found.append(f"every way through its {kind} cell has a none, so that it gives the same for every image")
        return found

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

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        """The cost of the retrained network, without the auxiliary head, which is used in training only.

        An edge that is not discretised yet counts with the whole weight of its operations, or with ``min(1, 2 q)`` of
        it where edges have weights q: a node keeps two.
        """
        cifar = self.final_network == "cifar"
        width = self.stem_multiplier * self.final_channels if cifar else self.final_channels
        stem = CifarStem if cifar else ImageNetStem
        in_channels, *sides = self.input_shape
        total = weights["normal"].new_zeros(())
        total = total + cost(
            f"{stem.__name__} {width} {self.input_shape}", partial(stem, in_channels, width), self.input_shape
        )
        older_sides = sides
        for _ in range(0 if cifar else 3):
            older_sides, sides = sides, [-(-side // 2) for side in sides]
        shapes = stacked_shapes(self.final_cells, self.final_channels, width, not cifar, self.concat)
        for cell in shapes:
            before, last, channels, reduction, halve_before = cell
            older = (before, *older_sides)
            make = partial(older_input, before, channels, halve_before, affine=True)
            total = total + cost(f"preprocess {older} {channels} {halve_before}", make, older)
            make = partial(older_input, last, channels, False, affine=True)
            total = total + cost(f"preprocess {(last, *sides)} {channels} False", make, (last, *sides))
            smaller = [-(-side // 2) for side in sides] if reduction else sides
            rows = self._edge_costs(cell, sides, smaller, cost)
            of_operations = weights[cell.kind]
            if self.structure.edge_normalisation:
                of_nodes = [weights[edges_alpha(cell.kind, node)] for node in range(2, self.steps + 2)]
                of_operations = of_operations * (2 * torch.cat(of_nodes)).clamp(max=1)[:, None]
            total = total + (of_operations * of_operations.new_tensor(rows)).sum()
            older_sides, sides = sides, smaller
        last = len(self.concat[cell.kind]) * channels
        return total + cost(f"classifier {last} {self.classes}", partial(nn.Linear, last, self.classes), (last,))

    def _edge_costs(
        self, cell: CellShape, sides: Sequence[int], smaller: Sequence[int], cost: BlockCost
    ) -> list[list[float]]:
        """By edge of a cell, whose inputs have these ``sides`` and its nodes the ``smaller`` ones, each operation's."""
        rows = []
        for (_, source), names in zip(cell_edges(self.steps), self.edge_operations[cell.kind], strict=True):
            stride = cell.stride(source)
            shape = (cell.channels, *(sides if stride == 2 else smaller))
            made = [partial(CELL_OPERATIONS[name], cell.channels, stride, True) for name in names]
            rows.append([cost(f"{name} {shape} {stride}", make, shape) for name, make in zip(names, made, strict=True)])
        return rows
