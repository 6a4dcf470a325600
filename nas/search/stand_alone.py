"""The bilevel problem of one architecture: its stand-alone network from fresh weights, hyperparameters alone above."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate, Choice
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import Hyperparameter
from nas.operations.stochastic import Dropout, LayerDropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import BlockCost, SearchSpace
from nas.spaces.supernet import Supernet


class StandAlone(Supernet):
    """A supernet of one architecture: its stand-alone network, whose dropout can be learned."""

    def __init__(self, space: SearchSpace, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        self.architecture = architecture
        self.network = space.network(architecture)
        for module in list(self.network.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Dropout:
                    setattr(module, name, Dropout())  # PyTorch's has a rate without a gradient
        chain = self.network.children() if isinstance(self.network, nn.Sequential) else ()
        for layer in chain:
            if isinstance(layer, nn.Sequential):
                layer.add_module("dropout", LayerDropout())  # as in the chain's supernet

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images (batch, channels, H, W) to logits (batch, classes); neither an auxiliary head nor ``weights`` act."""
        output = self.network(x)
        logits: Tensor = output[0] if isinstance(output, tuple) else output
        return logits

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        return []

    def discretise(self) -> Architecture:
        return self.architecture

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        return {name: entry.clone() for name, entry in self.network.state_dict().items()}


class Discretised(SearchSpace):
    """The space ``whole`` with every choice made."""

    def __init__(self, whole: SearchSpace, architecture: Architecture) -> None:
        super().__init__(whole.input_shape, whole.classes, whole.ranges)
        self.whole, self.architecture = whole, architecture

    @property
    def choices(self) -> tuple[Choice, ...]:
        return ()

    def settings(self) -> dict[str, Any]:
        return self.whole.settings()

    def supernet(self, relaxation: Relaxation) -> StandAlone:
        return StandAlone(self.whole, self.architecture, copy.copy(relaxation))

    def network(self, architecture: Architecture) -> nn.Module:
        return self.whole.network(architecture)

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        return {}

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        return self.whole.expected_cost(self.whole.architecture_weights(self.architecture), cost)


def refined_from(
    hyperparameters: HyperparameterSet, found: Candidate, relaxation: Relaxation, space: SearchSpace
) -> HyperparameterSet:
    """``hyperparameters`` starting at what ``found`` carries; what its network has no layer for is learned no more."""
    with torch.random.fork_rng([]):  # a network to look at, which leaves no trace
        network = StandAlone(space, found.architecture, relaxation)
    entries: dict[str, Hyperparameter] = {}
    for name, entry in hyperparameters.entries.items():
        start = found.hyperparameters.get(name, entry.initial)
        update = copy.copy(entry.update)
        if update is not None:
            update.load_state_dict({})  # its memory was of another raw parameter
        fresh = replace(entry, initial=entry.nearest(start) if entry.learn else start, update=update)
        entries[name] = fresh if fresh.acts_on(network) else replace(fresh, learn=False)
    return HyperparameterSet(entries)
