"""The recurrent space of DARTS (Liu et al., 2019, section 3.1): one cell, around it embedding and output layer.

A language model predicts every token from the earlier ones; a text or a series as a whole gets one prediction, of the
mean of the cell's states.
"""

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from nas.candidate import Architecture
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.recurrent.choices import RecurrentChoices
from nas.spaces.recurrent.genotype import RecurrentGenotype
from nas.spaces.recurrent.network import CellNetwork, CellReader
from nas.spaces.recurrent.supernet import ReaderSupernet, RecurrentSupernet
from nas.spaces.space import BlockCost, namespace_of, require_settings


class Recurrent(RecurrentChoices):
    """A language model, or a reader of texts or series, around a cell that is searched.

    The search network has a width of its own.

    Args:
        width: That of embedding and states in the search network.
        final_width: The same of the stand-alone network.
        nodes: The number of nodes of the cell.
        concat: The nodes whose mean is the cell's output; null takes all.
        implementation: How the supernet computes: ``plain``, one candidate state after the other, or ``fast``, one
            product per state for all nodes that read it. Both have the same parameters and give the same numbers.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds, or the data are neither texts nor series.
    """

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], signature: Signature) -> "Recurrent":
        require_settings(settings, ("concat", "final_width", "nodes", "width"))
        return cls(**settings, signature=signature)

    def supernet(self, relaxation: Relaxation) -> RecurrentSupernet | ReaderSupernet:
        made = RecurrentSupernet if self.signature.head == "sequence" else ReaderSupernet
        return made(self, relaxation)

    def network(self, architecture: Architecture) -> CellNetwork | CellReader:
        genotype = self.genotype(architecture)
        if self.signature.head == "sequence":
            return CellNetwork(self.outputs, self.final_width, genotype)
        return CellReader(self.signature, self.final_width, genotype)

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        cell = {"width": self.final_width, "genotype": SimpleNamespace(**vars(self.genotype(architecture)))}
        if self.signature.head == "sequence":
            return {"vocabulary": self.outputs} | cell
        return {"signature": namespace_of(self.signature)} | cell

    def for_genotype(self, genotype: RecurrentGenotype) -> "Recurrent":
        """This space if it can express ``genotype``, else one of these widths with the genotype's nodes and output."""
        if (len(genotype.recurrent), genotype.concat) == (self.nodes, self.concat):
            return self
        own = {"nodes": len(genotype.recurrent), "concat": genotype.concat, "implementation": self.implementation}
        return Recurrent(**self.settings() | own, signature=self.signature, ranges=self.ranges)

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        """The same for all cells: each of their nodes has one product, whatever it reads."""
        first = Architecture(self.name, {choice.name: choice.options[0] for choice in self.choices})
        key = f"recurrent {self.final_width} {self.nodes} {self.signature}"
        found = cost(key, partial(self.network, first), self.signature)
        return weights["recurrent"].new_tensor(found)
