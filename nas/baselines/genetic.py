"""A genetic algorithm in generations: binary-coded choices, real-coded hyperparameters, elitism."""

import random
from collections.abc import Sequence
from typing import Any, Literal

import torch

from nas.baselines.encoded_strategy import EncodedStrategy, Vector
from nas.baselines.genetic_operators import BinaryCode, Chromosome, GeneticOperators, python_random
from nas.baselines.population import Member, best_first, members_from_state, members_state, population_statistics
from nas.configuration import require
from nas.spaces.space import SearchSpace

ATTEMPTS = 100  # at a child that is new to its population: a small space may have none left


class Genetic(EncodedStrategy):
    """Each generation: the elite survives, the rest are children of selected parents.

    Args:
        population: Members of a generation.
        elite: How many of the best go over into the next generation unchanged, without a new evaluation.
        selection: How parents are chosen: with probabilities proportional to their fitness, or in tournaments.
        tournament_size: Contestants of a tournament.
        crossover: Where two parents' genes are exchanged.
        crossover_points: Of the multi-point crossover.
        crossover_rate: The probability that two parents are crossed at all; their copies are mutated otherwise.
        gene_mutation: The probability of each gene to change; null: one over the number of genes.
        step: Standard deviation by which a hyperparameter's gene changes, in units of its whole range on its scale.
        random_mutation: The probability that a child is replaced by a random candidate.
        distinct: Whether a child that equals a member or another child is mutated until it does not.

    Raises:
        UnusableInput: DEAP is not installed.
    """

    def __init__(
        self,
        population: int = 20,
        elite: int = 2,
        selection: Literal["roulette", "tournament"] = "tournament",
        tournament_size: int = 3,
        crossover: Literal["single_point", "multi_point", "uniform"] = "uniform",
        crossover_points: int = 2,
        crossover_rate: float = 0.9,
        gene_mutation: float | None = None,
        step: float = 0.2,
        random_mutation: float = 0.05,
        distinct: bool = True,
        *,
        space: SearchSpace,
        generator: torch.Generator,
    ) -> None:
        require(population >= 2, "population", population, "it must be at least 2")
        require(0 <= elite < population, "elite", elite, f"it must be from 0 to below population={population}")
        require(tournament_size >= 1, "tournament_size", tournament_size, "it must be at least 1")
        require(crossover_points >= 1, "crossover_points", crossover_points, "it must be at least 1")
        rates = {"crossover_rate": crossover_rate, "gene_mutation": gene_mutation, "random_mutation": random_mutation}
        for key, rate in rates.items():
            require(rate is None or 0 <= rate <= 1, key, rate, "it must be a number from 0 to 1")
        require(0 < step <= 1, "step", step, "it must be above 0 and at most 1")
        super().__init__(space=space, generator=generator)
        self.size, self.elite = population, elite
        self.selection, self.tournament_size = selection, tournament_size
        self.crossover, self.crossover_points, self.crossover_rate = crossover, crossover_points, crossover_rate
        self.code = BinaryCode(self.sizes)
        genes = self.code.bits + len(self.continuous)
        self.gene_mutation = 1 / genes if gene_mutation is None else gene_mutation
        self.step, self.random_mutation, self.distinct = step, random_mutation, distinct
        self.operators = GeneticOperators()
        self.members: list[Member] = []
        self.generation = 0

    def propose(self) -> list[Vector]:
        if not self.members:
            return [self.random_vector() for _ in range(self.size)]
        taken = {tuple(member.vector) for member in self.members} if self.distinct else set()
        children: list[Vector] = []
        with python_random(self.generator):
            while len(children) < self.size - self.elite:
                for genes in self._crossed(*self._selected(2)):
                    child = self._mutated(genes, taken)
                    if self.distinct:
                        taken.add(tuple(child))
                    children.append(child)
        return children[: self.size - self.elite]

    def _selected(self, count: int) -> list[Chromosome]:
        """Copies of ``count`` parents."""
        chromosomes = [self.code.genes(member.vector) for member in self.members]
        scores = [member.score for member in self.members]
        if self.selection == "roulette":
            selected = self.operators.roulette(chromosomes, count, scores)
        else:
            selected = self.operators.tournament(chromosomes, count, scores, self.tournament_size)
        return [Chromosome(genes) for genes in selected]

    def _crossed(self, one: Chromosome, other: Chromosome) -> tuple[Chromosome, Chromosome]:
        if random.random() < self.crossover_rate:
            if self.crossover == "multi_point":
                self.operators.multi_point(one, other, self.crossover_points)
            else:
                getattr(self.operators, self.crossover)(one, other)
        return one, other

    def _mutated(self, genes: Chromosome, taken: set[tuple[float, ...]]) -> Vector:
        if random.random() < self.random_mutation:
            return self.random_vector()
        for _ in range(ATTEMPTS):
            self.operators.mutate_genes(genes, self.code.bits, self.gene_mutation, self.step)
            vector = self.repaired(self.code.vector(genes))
            if tuple(vector) not in taken:
                break
        return vector

    def learn(self, vectors: Sequence[Vector], scores: Sequence[float]) -> None:
        survivors = best_first(self.members)[: self.elite] if self.members else []
        self.members = survivors + [Member(vector, score) for vector, score in zip(vectors, scores, strict=True)]
        self.generation += 1

    def statistics(self) -> dict[str, float]:
        found = population_statistics(self.members, len(self.sizes))
        return found | {"population/generation": float(self.generation)}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "members": members_state(self.members), "generation": self.generation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.members = members_from_state(state["members"])
        self.generation = state["generation"]
