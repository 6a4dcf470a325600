"""What a network's size takes off its score, as a number of a candidate and as an expectation over a supernet."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.configuration import require
from nas.evaluation.network_cost import NETWORK_COSTS, BlockCosts
from nas.spaces.space import SearchSpace


class CostPenalty:
    """``weight * sum over costs of share * cost / reference``.

    The reference of a cost is its mean over the space, all options equally likely: a network of mean size loses
    ``weight``, one of half that size half of it.

    Args:
        weight: 0 makes every cost free.
        shares: Of each cost: ``parameters``, ``multiply_adds``, ``latency`` (the sum over the network's parts, each
            measured once per search).
        space: Whose networks have these costs.

    Raises:
        InvalidValue: The weight is negative, or a cost is unknown.
    """

    def __init__(self, weight: float, shares: Mapping[str, float], space: SearchSpace) -> None:
        require(0 <= weight < math.inf, "cost_weight", weight, "it must be at least 0")
        for name, share in shares.items():
            known = f"a cost must be one of {', '.join(NETWORK_COSTS)}"
            require(name in NETWORK_COSTS, f"costs.{name}", share, known)
            require(0 <= share < math.inf, f"costs.{name}", share, "it must be at least 0")
        self.weight, self.space = weight, space
        self.shares = {name: share for name, share in shares.items() if share > 0 and weight > 0}
        self.blocks = {name: BlockCosts(name) for name in self.shares}
        self._references: dict[str, float] = {}

    def reference(self, name: str) -> float:
        """The mean over the space."""
        if name not in self._references:
            uniform = {}
            weights = self.space.architecture_weights(self.space.sample(torch.Generator().manual_seed(0)).architecture)
            for key, weight in weights.items():
                uniform[key] = torch.full_like(weight, 1.0) / weight.shape[-1]
            self._references[name] = float(self.space.expected_cost(uniform, self.blocks[name]))
        return self._references[name]

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """0-dim, differentiable; None where nothing is penalised."""
        total: Tensor | None = None
        for name, share in self.shares.items():
            expected = self.space.expected_cost(weights, self.blocks[name])
            term = self.weight * share / self.reference(name) * expected
            total = term if total is None else total + term
        return total

    def of(self, architecture: Architecture) -> float:
        """The penalty of one architecture."""
        found = self.expected(self.space.architecture_weights(architecture)) if self.shares else None
        return 0.0 if found is None else float(found)

    def state_dict(self) -> dict[str, Any]:
        return {name: dict(blocks.known) for name, blocks in self.blocks.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, blocks in self.blocks.items():
            blocks.known = dict(state[name])
        self._references.clear()
