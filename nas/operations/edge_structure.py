"""What a mixed edge of a cell may have besides the weighted sum of its operations.

Partial channels and edge weights are those of PC-DARTS (Xu et al., 2020, "PC-DARTS: Partial Channel Connections for
Memory-Efficient Architecture Search", section 3), the auxiliary skip is that of DARTS- (Chu et al., 2021, "DARTS-:
Robustly Stepping out of Performance Collapse Without Indicators", section 3.3).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.errors import require
from nas.operations.cell_operations import MixedEdge

Decay = Literal["linear", "cosine", "slow_cosine"]
DECAYS = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "slow_cosine": lambda progress: math.cos(math.pi / 2 * progress),
}
SKIP = "skip_connect"


@dataclass(frozen=True)
class EdgeStructure:
    """The settings of all edges of a space.

    Args:
        partial_channels: The k of PC-DARTS: the operations see the first of k equal parts of the channels, the others
            pass; 1 lets them see all.
        edge_normalisation: Whether a node weighs its edges by relaxed parameters of its own, which sum to 1.
        auxiliary_skip: Whether every edge has a skip connection more, with a weight that goes from 1 to 0.
        auxiliary_decay: The way of that weight over the search; the paper's is linear.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds.
    """

    partial_channels: int = 1
    edge_normalisation: bool = False
    auxiliary_skip: bool = False
    auxiliary_decay: Decay = "linear"

    def __post_init__(self) -> None:
        parts = self.partial_channels
        require(type(parts) is int and parts >= 1, "partial_channels", parts, "it must be a whole number from 1")
        for key in ("edge_normalisation", "auxiliary_skip"):
            value = getattr(self, key)
            require(isinstance(value, bool), key, value, "it must be true or false")
        decay = self.auxiliary_decay
        require(decay in DECAYS, "auxiliary_decay", decay, f"it must be one of {', '.join(DECAYS)}")

    def require_parts(self, channels: int) -> None:
        """Raise ``InvalidValue`` unless ``channels`` fall into equal parts."""
        even = channels % self.partial_channels == 0
        allowed = f"it must divide the {channels} channels of the first cells"
        require(even, "partial_channels", self.partial_channels, allowed)

    def settings(self) -> dict[str, Any]:
        """The settings that are not those of a plain edge, as JSON values."""
        plain = asdict(EdgeStructure())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    def auxiliary_weight(self, progress: float) -> float:
        """The weight of the auxiliary skip when the share ``progress`` (0 to 1) of the search is done."""
        return max(0.0, DECAYS[self.auxiliary_decay](progress))

    def edge(self, names: Sequence[str], channels: int, stride: int, normalise_pooling: bool) -> MixedEdge:
        """The edge with the operations ``names``; the arguments are those of a ``MixedEdge``."""
        names = [*names, SKIP] if self.auxiliary_skip else names
        if self.partial_channels == 1:
            return MixedEdge(names, channels, stride, normalise_pooling)
        return PartialEdge(names, channels, stride, normalise_pooling, self.partial_channels)

    def weights(self, operations: Tensor, edges: Tensor | None, auxiliary: Tensor | None) -> Tensor:
        """The weights of everything on the edges of a cell, (edges, columns).

        Args:
            operations: Those of the operations, (edges, operations).
            edges: Those of the edges, (edges,), where they have any.
            auxiliary: That of the auxiliary skip, 0-dim, where there is one.
        """
        columns = [operations]
        if self.auxiliary_skip:
            assert auxiliary is not None
            columns.append(auxiliary.to(operations).expand(len(operations), 1))
        if self.partial_channels > 1:
            columns.append(torch.ones_like(operations[:, :1]))
        whole = torch.cat(columns, dim=1) if len(columns) > 1 else operations
        return whole if edges is None else whole * edges[:, None]


class PartialEdge(MixedEdge):
    """A mixed operation on the first of ``parts`` equal parts of the channels; the others pass.

    At stride 2 those are pooled, the largest of 2x2. The channels are shuffled, so that the next edge mixes others too.
    The channels of the input must be a multiple of ``parts``.
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int, normalise_pooling: bool, parts: int) -> None:
        super().__init__(names, channels // parts, stride, normalise_pooling)
        self.parts, self.mixed = parts, channels // parts
        self.passing = nn.MaxPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``x`` (batch, channels, H, W), ``weights`` (operations + 1,): the last one is that of what passes."""
        mixed, rest = x.tensor_split((self.mixed,), dim=1)
        together = torch.cat([super().forward(mixed, weights[:-1]), weights[-1] * self.passing(rest)], dim=1)
        return shuffled(together, self.parts)


def shuffled(x: Tensor, parts: int) -> Tensor:
    """The channels of ``x`` (batch, channels, H, W), those of its ``parts`` in turn (Zhang et al., 2018)."""
    return x.unflatten(1, (parts, -1)).transpose(1, 2).flatten(1, 2)
