"""A (mu + lambda) evolution strategy with self-adapting steps.

Beyer and Schwefel (2002), "Evolution Strategies: A Comprehensive Introduction". The mutation of steps is DEAP's.
"""

from collections.abc import Sequence

import torch

from nas.baselines.population import Member, PopulationStrategy, best_first, python_random
from nas.baselines.strategy import Vector, reflected
from nas.configuration import optional_module
from nas.errors import require
from nas.spaces.space import SearchSpace

LEAST_STEP, LARGEST_STEP = 1e-3, 0.5


class _Places(list[float]):
    """Places, with one step size for each in ``strategy``: the form that DEAP's self-adapting mutation changes."""

    strategy: list[float]


class MuPlusLambda(PopulationStrategy):
    """The best ``parents`` of parents and children together survive.

    Each hyperparameter carries its own step size. A child inherits the step, changes it log-normally and then uses it,
    so that steps that lead to good children spread. A choice takes another option with a probability of one over the
    number of choices. A child differs from its parent in at least one entry.

    Args:
        parents: mu; the search starts with as many random candidates.
        children: lambda.
        step: The first step size, in units of a hyperparameter's whole range on its scale.

    Raises:
        UnusableInput: DEAP is not installed.
    """

    def __init__(
        self,
        parents: int = 5,
        children: int = 10,
        step: float = 0.2,
        *,
        space: SearchSpace,
        generator: torch.Generator,
    ) -> None:
        require(parents >= 1, "parents", parents, "it must be at least 1")
        require(children >= 1, "children", children, "it must be at least 1")
        allowed = f"it must be from {LEAST_STEP} to {LARGEST_STEP}"
        require(LEAST_STEP <= step <= LARGEST_STEP, "step", step, allowed)
        super().__init__(space=space, generator=generator)
        self.parents, self.children, self.step = parents, children, step
        self.tools = optional_module("deap.tools", "hpo")
        self.variable_choices = [entry for entry in self.variable if entry < len(self.sizes)]

    def propose(self) -> list[Vector]:
        """Vectors, each followed by one step size per hyperparameter."""
        if not self.members:
            steps = [self.step] * len(self.continuous)
            return [self.random_vector() + steps for _ in range(self.parents)]
        return [self._mutated(self.members[self.whole(len(self.members))].vector) for _ in range(self.children)]

    def _mutated(self, vector: Vector) -> Vector:
        choices = vector[: len(self.sizes)]
        places = _Places(vector[len(self.sizes) : self.length])
        places.strategy = vector[self.length :]
        for entry in self.variable_choices:
            if self.uniform() < 1 / len(self.variable_choices):
                choices[entry] = self.other_option(entry, choices[entry])
        if places:
            with python_random(self.generator):
                self.tools.mutESLogNormal(places, c=1.0, indpb=1.0)
        elif choices == vector[: len(self.sizes)]:
            entry = self.variable_choices[self.whole(len(self.variable_choices))]
            choices[entry] = self.other_option(entry, choices[entry])
        steps = [min(max(step, LEAST_STEP), LARGEST_STEP) for step in places.strategy]
        return [*choices, *map(reflected, places), *steps]

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        self.members = best_first([*self.members, *map(Member, vectors, scores)])[: self.parents]

    def statistics(self) -> dict[str, float]:
        found = super().statistics()
        for position, name in enumerate(self.continuous):
            steps = [member.vector[self.length + position] for member in self.members]
            if steps:
                found[f"population/step/{name}"] = sum(steps) / len(steps)
        return found
