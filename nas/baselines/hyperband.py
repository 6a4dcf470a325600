"""Hyperband (Li et al., 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization")."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nas.baselines.strategy import EncodedStrategy, Scored, Vector
from nas.errors import require
from nas.evaluation.evaluator import best_of
from nas.spaces.space import SearchSpace


class Hyperband(EncodedStrategy):
    """Random candidates in brackets of successive halving: from many short trainings to a few full ones, and again.

    A training can end after ``r_0 < ... < r_K`` epochs: the ``rungs``, and ``r_K = epochs``. Bracket s, from K down to
    0, asks for n_s candidates. All of them train up to ``r_(K-s)``; there and at each later rung the best go on, one in
    ``reduction``.

    In Algorithm 1 of the paper, ``n_s = ceil((K + 1) r_K / ((s + 1) r_(K-s)))``: every bracket costs about as much as
    K + 1 full trainings, if rungs grow by the factor ``reduction``. Here they may lie anywhere. So the denominator is
    what a bracket costs per candidate, ``sum over i = 0 .. s of r_(K-s+i) / reduction^i`` epochs, which is the same for
    the paper's rungs. Weights are kept from rung to rung: a bracket costs less than the paper counts.

    Args:
        rungs: Epochs after which candidates are compared: the evaluation's.
        epochs: Epochs of a full training: the evaluation's.
        reduction: The paper's eta.

    Raises:
        InvalidValue: There is no rung.
    """

    takes_a_part = True

    def __init__(
        self,
        rungs: Sequence[int],
        epochs: int,
        reduction: int = 3,
        *,
        space: SearchSpace,
        generator: torch.Generator,
    ) -> None:
        example = "evaluation.epochs=9 'evaluation.rungs=[1,3]'"
        require(
            len(rungs) > 0, "rungs", list(rungs), f"evaluation.rungs must have an epoch to compare at: {example}, say"
        )
        require(reduction >= 2, "reduction", reduction, "it must be at least 2")
        super().__init__(space=space, generator=generator)
        self.levels, self.reduction = (*rungs, epochs), reduction
        self.bracket = len(rungs)

    @property
    def pruner(self) -> "Hyperband":
        return self

    def size(self, bracket: int) -> int:
        """The number of candidates of ``bracket``."""
        levels = self.levels[-1 - bracket :]
        # both times reduction^bracket: whole numbers, and no rounding before the last one
        each = sum(level * self.reduction ** (bracket - place) for place, level in enumerate(levels))
        return -(-len(self.levels) * self.levels[-1] * self.reduction**bracket // each)

    def propose(self) -> list[Vector]:
        return [self.random_vector() for _ in range(self.size(self.bracket))]

    def survivors(self, rung: int, scores: Mapping[int, float]) -> list[int]:
        """The best of the candidates, one in ``reduction`` and at least one; all before the bracket's first rung."""
        if rung < len(self.levels) - 1 - self.bracket:
            return list(scores)
        return best_of(scores, len(scores) // self.reduction)

    def tell(self, scored: Sequence[Scored]) -> None:
        if scored:
            del self._pending[len(scored) :]  # which the budget does not pay for
        super().tell(scored)

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        self.bracket = self.bracket - 1 if self.bracket > 0 else len(self.levels) - 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "bracket": self.bracket}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.bracket = state["bracket"]
