"""Aging evolution (Real et al., 2019, "Regularized Evolution for Image Classifier Architecture Search")."""

from collections.abc import Sequence

import torch

from nas.baselines.population import Member, PopulationStrategy
from nas.baselines.strategy import Vector, reflected
from nas.errors import require
from nas.spaces.space import SearchSpace


class AgingEvolution(PopulationStrategy):
    """The best of a random sample of the population gets a mutated child, and the oldest member dies.

    Args:
        population: The number of members; the search starts with as many random candidates.
        sample: The number of members that compete to be the parent, drawn with replacement.
        mutations: The number of entries that change: a choice takes another option, a hyperparameter makes a step.
        step: Standard deviation of that step, in units of the hyperparameter's whole range on its scale.
        batch: Children per ask, which can be evaluated in parallel; the paper's algorithm has one.
    """

    def __init__(
        self,
        population: int = 10,
        sample: int = 3,
        mutations: int = 1,
        step: float = 0.2,
        batch: int = 1,
        *,
        space: SearchSpace,
        generator: torch.Generator,
    ) -> None:
        require(population >= 2, "population", population, "it must be at least 2")
        require(sample >= 1, "sample", sample, "it must be at least 1")
        require(mutations >= 1, "mutations", mutations, "it must be at least 1")
        require(0 < step <= 1, "step", step, "it must be above 0 and at most 1")
        require(batch >= 1, "batch", batch, "it must be at least 1")
        super().__init__(space=space, generator=generator)
        self.size, self.sample, self.mutations, self.step, self.batch = population, sample, mutations, step, batch

    def propose(self) -> list[Vector]:
        missing = self.size - len(self.members)
        if missing > 0:
            return [self.random_vector() for _ in range(missing)]
        return [self.mutated(self.parent().vector) for _ in range(self.batch)]

    def parent(self) -> Member:
        """The best of ``sample`` random members."""
        contestants = [self.members[self.whole(len(self.members))] for _ in range(self.sample)]
        return max(contestants, key=lambda member: member.score)

    def mutated(self, vector: Vector) -> Vector:
        """A copy with ``mutations`` changes, each at a random entry."""
        child = list(vector)
        for _ in range(self.mutations):
            entry = self.variable[self.whole(len(self.variable))]
            if entry < len(self.sizes):
                child[entry] = self.other_option(entry, child[entry])
            else:
                child[entry] = reflected(child[entry] + self.step * self.normal())
        return child

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        self.members = [*self.members, *map(Member, vectors, scores)][-self.size :]  # the oldest are the first to go
