"""The decisions of a recurrent cell: which state a node reads, and through which activation.

Decisions are named after their node: ``node3.input`` (the number of a state), then ``node3.operation``. Node 1 can read
state 0 alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.candidate import Architecture, Choice, Domain
from nas.errors import require
from nas.signature import Head, Signature
from nas.spaces.recurrent.genotype import ACTIVATIONS, LARGEST_NODES, OPERATIONS, RecurrentGenotype, checked_concat
from nas.spaces.space import LayerDescription, Probabilities, Rivals, RunnerUp, SearchSpace
from nas.spaces.supernet import Implementation, checked_implementation

LARGEST_WIDTH = 4096


class RecurrentChoices(SearchSpace):
    """One input and one activation per node; see :class:`~nas.spaces.recurrent.space.Recurrent`."""

    name: ClassVar[str] = "recurrent"
    ranks: ClassVar[tuple[int, ...]] = (1,)
    reads_tokens: ClassVar[bool] = True
    heads: ClassVar[tuple[Head, ...]] = ("point", "sequence")
    never_chosen: ClassVar[frozenset[str]] = frozenset({"none"})

    def __init__(
        self,
        width: int = 300,
        final_width: int = 850,
        nodes: int = 8,
        concat: Sequence[int] | None = None,
        implementation: Implementation = "fast",
        *,
        signature: Signature,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(signature, ranges)
        for key, value in {"width": width, "final_width": final_width}.items():
            good = type(value) is int and 1 <= value <= LARGEST_WIDTH
            require(good, key, value, f"it must be a whole number from 1 to {LARGEST_WIDTH}")
        self.width, self.final_width = width, final_width
        good = type(nodes) is int and 1 <= nodes <= LARGEST_NODES
        require(good, "nodes", nodes, f"it must be a whole number from 1 to {LARGEST_NODES}")
        self.nodes = nodes
        self.concat = tuple(range(1, nodes + 1)) if concat is None else checked_concat(list(concat), nodes)
        self.implementation = checked_implementation(implementation)
        choices = []
        for node in range(1, nodes + 1):
            if node > 1:
                choices.append(Choice(f"node{node}.input", tuple(map(str, range(node)))))
            choices.append(Choice(f"node{node}.operation", ACTIVATIONS))
        self._choices = tuple(choices)

    def doubts(self, architecture: Architecture) -> list[str]:
        return []

    def settings(self) -> dict[str, Any]:
        whole = self.concat == tuple(range(1, self.nodes + 1))
        return {
            "width": self.width,
            "final_width": self.final_width,
            "nodes": self.nodes,
            "concat": None if whole else list(self.concat),
        }

    def genotype(self, architecture: Architecture) -> RecurrentGenotype:
        """``architecture`` in the form of the literature.

        Raises:
            InvalidValue: It is no architecture of this space.
        """
        architecture.check(self.choices)
        steps = []
        for node in range(1, self.nodes + 1):
            steps.append((architecture[f"node{node}.operation"], int(architecture.get(f"node{node}.input", 0))))
        return RecurrentGenotype(tuple(steps), self.concat)

    def architecture(self, genotype: RecurrentGenotype) -> Architecture:
        """The inverse of :meth:`genotype`.

        Raises:
            InvalidValue: The cells of this space have another number of nodes, or another output.
        """
        many = len(genotype.recurrent)
        require(many == self.nodes, "genotype.recurrent", f"{many} nodes", f"the cells of this space have {self.nodes}")
        allowed = f"this space averages {list(self.concat)}"
        require(genotype.concat == self.concat, "genotype.concat", list(genotype.concat), allowed)
        options = {}
        for node, (activation, source) in enumerate(genotype.recurrent, start=1):
            if node > 1:
                options[f"node{node}.input"] = str(source)
            options[f"node{node}.operation"] = activation
        return Architecture(self.name, options)

    def preferred(self, probabilities: Probabilities) -> Architecture:
        """Per node the input whose best activation is most probable, with that activation; ``none`` is left out.

        Among equals the one named earlier wins, as in the original.
        """
        steps = []
        for node in range(1, self.nodes + 1):
            best = [_strongest(probabilities[edge_name(node, source)]) for source in range(node)]
            source = max(range(node), key=lambda one: best[one][1])  # max keeps the first of equals
            steps.append((best[source][0], source))
        return self.architecture(RecurrentGenotype(tuple(steps), self.concat))

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        edges = cell_edges(self.nodes)
        weights = torch.zeros(len(edges), len(OPERATIONS))
        for node, (activation, source) in enumerate(self.genotype(architecture).recurrent, start=1):
            weights[edges.index((node, source)), OPERATIONS.index(activation)] = 1
        return {"recurrent": weights}

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        """One entry per node."""
        steps = enumerate(self.genotype(architecture).recurrent, start=1)
        return [LayerDescription("gated", f"node {node}:", f"{name}({source})") for node, (name, source) in steps]

    def rivals(self) -> list[Rivals]:
        """The edges that enter a node: one of them is kept."""
        nodes = range(1, self.nodes + 1)
        return [Rivals(tuple(edge_name(node, source) for source in range(node)), 1) for node in nodes]

    def runner_up(self, choice: str, architecture: Architecture, probabilities: Probabilities) -> RunnerUp | None:
        """The next activation on the edge, or the strongest edge that the node left out, with its activation."""
        place, _, kind = choice.rpartition(".")
        node = int(place.removeprefix("node"))
        source, activation = int(architecture.get(f"{place}.input", 0)), architecture[f"{place}.operation"]
        kept = probabilities[edge_name(node, source)]
        if kind == "operation":
            option, strength = _strongest(kept, without=activation)
            swapped = {choice: option}
        else:
            others = [one for one in range(node) if one != source]
            edges = {one: _strongest(probabilities[edge_name(node, one)]) for one in others}
            best = max(edges, key=lambda one: edges[one][1])
            name, strength = edges[best]
            option, swapped = f"{best} ({name})", {choice: str(best), f"{place}.operation": name}
        other = Architecture(self.name, {**architecture, **swapped})
        return RunnerUp(option, kept[activation] - strength, other)


def cell_edges(nodes: int) -> list[tuple[int, int]]:
    """The edges (node, the state it reads) of a cell in the order of alpha's rows."""
    return [(node, source) for node in range(1, nodes + 1) for source in range(node)]


def edge_name(node: int, source: int) -> str:
    """The row of alpha that holds an edge."""
    return f"node{node}.from{source}"


def _strongest(options: Mapping[str, float], without: str = "none") -> tuple[str, float]:
    """The most probable activation with its probability; among equals the one named earlier."""
    name = max((one for one in options if one not in ("none", without)), key=options.__getitem__)
    return name, options[name]
