"""The weights that a stand-alone network of DARTS cells takes over from the search network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.errors import require
from nas.spaces.darts.choices import DartsChoices, cell_edges
from nas.spaces.darts.genotype import Edge


@torch.no_grad()
def inherited_state(
    space: DartsChoices,
    architecture: Architecture,
    kinds: Sequence[str],
    own: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """A state dict for the stand-alone network, where it has the size of the search network.

    Its batch norms get a scale of 1 and a shift of 0, which is what the search network's without affine parameters
    compute.

    Args:
        space: The space of both.
        architecture: That of the stand-alone network.
        kinds: The kind of each cell of the search network.
        own: The search network's state dict.
        fresh: The stand-alone network's.

    Raises:
        InvalidValue: The stand-alone network is larger, has other parts, or pools: its pooling operations have no
            batch norm. ``architecture_weights`` computes such an architecture in the search network itself.
    """
    genotype = space.genotype(architecture)
    allowed = "weights can be inherited only where the stand-alone network has the search network's size and parts"
    require(space.final_channels == space.channels, "final_channels", space.final_channels, allowed)
    require(space.final_cells == space.cells, "final_cells", space.final_cells, allowed)
    require(space.final_network == "cifar", "final_network", space.final_network, allowed)
    require(not space.auxiliary, "auxiliary", space.auxiliary, allowed)
    parts_mixed = space.structure.partial_channels
    require(parts_mixed == 1, "partial_channels", parts_mixed, "its operations see all channels, the search's a part")
    pools = [operation for operation in genotype.operations() if "pool" in operation]
    require(not pools, "architecture", pools, "a stand-alone pooling operation has no batch norm to inherit")
    rows = {edge: row for row, edge in enumerate(cell_edges(space.steps))}
    state: dict[str, Tensor] = {}
    for name, tensor in fresh.items():
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "edges":
            kind = kinds[int(parts[1])]
            edges: tuple[Edge, ...] = getattr(genotype, kind)
            operation, source = edges[int(parts[3])]
            row = rows[int(parts[3]) // 2 + 2, source]
            parts[3:4] = [str(row), "operations", str(space.edge_operations[kind][row].index(operation))]
        # Affine parameters that the search network has not are 1 and 0, as freshly made.
        state[name] = own.get(".".join(parts), tensor).detach().clone()
    return state
