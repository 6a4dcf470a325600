"""What the supernets of cell spaces share: the weights of everything on their edges."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nas.errors import require
from nas.operations.edge_structure import EdgeStructure
from nas.relaxations.relaxation import Relaxation
from nas.spaces.supernet import Supernet

AUXILIARY_SKIP = "auxiliary_skip"


class CellSupernet(Supernet):
    """A supernet of cells whose edges have the given structure.

    The weight of the auxiliary skip is a buffer: the search moves it, no gradient does.

    Raises:
        InvalidValue: The structure and the relaxation do not go together.
    """

    auxiliary_skip: Tensor | None

    def __init__(self, relaxation: Relaxation, structure: EdgeStructure) -> None:
        whole = relaxation.on_simplex or not structure.edge_normalisation
        allowed = "the weights of a node's edges must sum to 1, and those of this relaxation do not"
        require(whole, "space.edge_normalisation", True, allowed)
        for key in ("edge_normalisation", "auxiliary_skip"):
            more = relaxation.sampled and getattr(structure, key)
            require(not more, f"space.{key}", True, "a sampled relaxation computes one operation of every edge alone")
        super().__init__(relaxation)
        self.structure = structure
        self.register_buffer(AUXILIARY_SKIP, torch.ones(()) if structure.auxiliary_skip else None)

    def advance(self, progress: float) -> None:
        super().advance(progress)
        if self.auxiliary_skip is not None:
            self.auxiliary_skip.fill_(self.structure.auxiliary_weight(progress))

    def scheduled(self) -> dict[str, float]:
        return {} if self.auxiliary_skip is None else {AUXILIARY_SKIP: float(self.auxiliary_skip)}

    def edge_weights(self, kind: str, weights: Mapping[str, Tensor]) -> Tensor:
        """The weights of everything on the edges of a cell, (edges, columns), as ``EdgeStructure.weights`` has them.

        Args:
            kind: The name of the cell's alpha; those of its edges are ``<kind>_node<number>_edges``.
            weights: The relaxed alphas, or the weights of an architecture, which has no auxiliary skip.
        """
        nodes = [weights[name] for name in self.alpha if name.startswith(f"{kind}_node")]
        auxiliary = weights.get(AUXILIARY_SKIP, self.auxiliary_skip)
        return self.structure.weights(weights[kind], torch.cat(nodes) if nodes else None, auxiliary)
