"""The decisions of a NAS-Bench-201 cell and how they are written down: one operation per edge.

Decisions are named after their edge: ``node2.from0``.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.candidate import Architecture, Choice, Domain
from nas.errors import InvalidValue, require
from nas.operations.edge_structure import Decay, EdgeStructure
from nas.signature import Signature
from nas.spaces.cell_supernet import AUXILIARY_SKIP
from nas.spaces.space import LayerDescription, SearchSpace
from nas.spaces.supernet import Implementation, checked_implementation

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((node, source) for node in range(1, 4) for source in range(node))
LARGEST = {"channels": 1024, "cells_per_stage": 100}
LONGEST_TEXT = 1000


class NasBench201Choices(SearchSpace):
    """One of five operations on each of six edges; see :class:`~nas.spaces.nasbench201.space.NasBench201`."""

    name: ClassVar[str] = "nasbench201"

    def __init__(
        self,
        channels: int = 16,
        cells_per_stage: int = 5,
        implementation: Implementation = "fast",
        partial_channels: int = 1,
        auxiliary_skip: bool = False,
        auxiliary_decay: Decay = "linear",
        *,
        signature: Signature,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(signature, ranges)
        for key, value in {"channels": channels, "cells_per_stage": cells_per_stage}.items():
            good = type(value) is int and 1 <= value <= LARGEST[key]
            require(good, key, value, f"it must be a whole number from 1 to {LARGEST[key]}")
        self.channels, self.cells_per_stage = channels, cells_per_stage
        self.implementation = checked_implementation(implementation)
        self.structure = EdgeStructure(partial_channels, False, auxiliary_skip, auxiliary_decay)
        self.structure.require_parts(channels)
        self._choices = tuple(Choice(edge_name(node, source), OPERATIONS) for node, source in EDGES)

    def settings(self) -> dict[str, Any]:
        return {"channels": self.channels, "cells_per_stage": self.cells_per_stage, **self.structure.settings()}

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        """One entry per node of the cell."""
        nodes = architecture_text(architecture).split("+")
        return [LayerDescription("conv", f"node {number}:", text) for number, text in enumerate(nodes, start=1)]

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        architecture.check(self.choices)
        weights = torch.zeros(len(EDGES), len(OPERATIONS))
        for row, choice in enumerate(self.choices):
            weights[row, choice.options.index(architecture[choice.name])] = 1
        skip = {AUXILIARY_SKIP: torch.zeros(())} if self.structure.auxiliary_skip else {}
        return {"cell": weights, **skip}


def edge_name(node: int, source: int) -> str:
    """The name of an edge's choice, which is that of its row of alpha."""
    return f"node{node}.from{source}"


def architecture_text(architecture: Architecture) -> str:
    """``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``: nodes joined by ``+``, each edge as operation ``~`` state."""
    nodes = []
    for node in range(1, 4):
        edges = [f"{architecture[edge_name(node, source)]}~{source}" for source in range(node)]
        nodes.append(f"|{'|'.join(edges)}|")
    return "+".join(nodes)


def parse_architecture(text: object) -> Architecture:
    """The inverse of :func:`architecture_text`.

    Raises:
        InvalidValue: ``text`` is anything else.
    """
    allowed = "it must read |operation~0|+|operation~0|operation~1|+|operation~0|operation~1|operation~2|"
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise InvalidValue("architecture", text, allowed)
    nodes = text.strip().split("+")
    require(len(nodes) == 3, "architecture", text, allowed)
    options = {}
    for node, written in enumerate(nodes, start=1):
        edges = written.split("|")
        require(len(edges) == node + 2 and edges[0] == edges[-1] == "", "architecture", text, allowed)
        for source, edge in enumerate(edges[1:-1]):
            operation, _, index = edge.partition("~")
            require(index == str(source), "architecture", text, allowed)
            known = f"the operation of {edge_name(node, source)} must be one of {', '.join(OPERATIONS)}"
            require(operation in OPERATIONS, "architecture", text, known)
            options[edge_name(node, source)] = operation
    return Architecture(NasBench201Choices.name, options)
