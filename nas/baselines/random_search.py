"""Random search: every candidate drawn anew, the yardstick of all others."""

from collections.abc import Sequence

import torch

from nas.baselines.encoded_strategy import EncodedStrategy, Vector
from nas.configuration import require
from nas.spaces.space import SearchSpace


class RandomSearch(EncodedStrategy):
    """Options equally likely, hyperparameters uniform on their scale.

    Args:
        batch: Candidates per ask, which can be evaluated at the same time; has no influence on what is drawn.
    """

    def __init__(self, batch: int = 8, *, space: SearchSpace, generator: torch.Generator) -> None:
        require(batch >= 1, "batch", batch, "it must be at least 1")
        super().__init__(space=space, generator=generator)
        self.batch = batch

    def propose(self) -> list[Vector]:
        return [self.random_vector() for _ in range(self.batch)]

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        """Nothing: the next candidate does not depend on the last."""

    def statistics(self) -> dict[str, float]:
        return {}
