"""The NAS-Bench-201 space (Dong and Yang, 2020): one cell of four states and six edges with five operations each.

The network has three stages of ``cells_per_stage`` cells with a residual block of stride 2 between them.
State 0 is the cell's input, state ``n`` the sum of one edge from every state before it, state 3 the output.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from nas.candidate import Architecture
from nas.operations.cell_operations import CELL_OPERATIONS
from nas.operations.edge_structure import EdgeStructure
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.nasbench201.choices import EDGES, LARGEST, OPERATIONS, NasBench201Choices
from nas.spaces.nasbench201.network import NasBench201Network, ResidualBlock, last_activation, stem
from nas.spaces.nasbench201.supernet import NasBench201Supernet
from nas.spaces.space import BlockCost, require_settings


class NasBench201(NasBench201Choices):
    """The cells of NAS-Bench-201; the search network and the stand-alone network have one size.

    Args:
        channels: Channels of the first stage.
        cells_per_stage: The number of cells of each of the three stages.
        implementation: How the supernet computes: ``plain``, one operation after the other, or ``fast``, with the work
            that edges share done once. Both have the same parameters and give the same numbers.
        partial_channels, auxiliary_skip, auxiliary_decay: What an edge of the search network has besides
            (:class:`~nas.operations.edge_structure.EdgeStructure`). Edges have no weights of their own here: every one
            is kept, so that a weight would be learned and lost.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds.
    """

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], signature: Signature) -> "NasBench201":
        unusual = {one.name for one in fields(EdgeStructure)}  # written where they are not as usual
        require_settings(set(settings) - unusual, LARGEST)
        return cls(**settings, signature=signature)

    def supernet(self, relaxation: Relaxation) -> "NasBench201Supernet":
        return NasBench201Supernet(self, relaxation)

    def network(self, architecture: Architecture) -> "NasBench201Network":
        architecture.check(self.choices)
        operations = [architecture[choice.name] for choice in self.choices]
        return NasBench201Network(self, operations)

    def reduction(self, architecture: Architecture) -> int:
        return 4

    def doubts(self, architecture: Architecture) -> list[str]:
        reached = {0}  # the states of the cell that depend on its input
        for (node, source), choice in zip(EDGES, self.choices, strict=True):
            if source in reached and architecture[choice.name] != "none":
                reached.add(node)
        found = super().doubts(architecture)
        if 3 not in reached:
            found.append("every way through its cell has a none, so that its logits are the same for every image")
        return found

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        bound = {"input_shape": self.input_shape, "classes": self.classes}
        operations = tuple(architecture[choice.name] for choice in self.choices)
        size = {"channels": self.channels, "cells_per_stage": self.cells_per_stage}
        return {"space": SimpleNamespace(**bound, **size), "operations": operations}

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        fixed = cost(f"stem {self.channels} {self.input_shape}", partial(stem, self), self.input_shape)
        of_operations = dict.fromkeys(OPERATIONS, 0.0)
        _, *sides = self.input_shape
        for stage in range(3):
            width = 2**stage * self.channels
            if stage > 0:
                shape = (width // 2, *sides)
                fixed += cost(f"residual {shape}", partial(ResidualBlock, width // 2, width), shape)
                sides = [-(-side // 2) for side in sides]
            for name in OPERATIONS:
                make = partial(CELL_OPERATIONS[name], width, 1, True)
                of_operations[name] += self.cells_per_stage * cost(f"{name} {width} {sides}", make, (width, *sides))
        fixed += cost(f"last {self.channels} {sides}", partial(last_activation, self), (width, *sides))
        fixed += cost(f"classifier {width} {self.classes}", partial(nn.Linear, width, self.classes), (width,))
        return fixed + weights["cell"].sum(0) @ weights["cell"].new_tensor(list(of_operations.values()))
