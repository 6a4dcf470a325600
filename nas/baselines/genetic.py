"""A genetic algorithm in generations: binary-coded choices, real-coded hyperparameters, elitism.

A chromosome is a list of genes: the bits of every choice's option, then one real number from 0 to 1 per hyperparameter.
The operators are DEAP's where DEAP has them. Mitchell (1996), "An Introduction to Genetic Algorithms".
"""

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from nas.baselines.population import Member, PopulationStrategy, best_first, python_random
from nas.baselines.strategy import Vector, reflected
from nas.configuration import optional_module
from nas.errors import require
from nas.spaces.space import SearchSpace

ATTEMPTS = 100  # to make a child that is new to its population: a small space may have none left
LEAST_SHARE = 0.1  # the worst member's chance of selection, as a share of an average member's


class Fitness(NamedTuple):
    """A fitness in the form that DEAP's selections compare and add up."""

    values: tuple[float]


class Chromosome(list[float]):
    """Genes with the fitness that DEAP's selections look at."""

    fitness: Fitness


class Genetic(PopulationStrategy):
    """In each generation the elite survives, and the rest are children of selected parents.

    Args:
        population: The number of members of a generation.
        elite: The number of best members that enter the next generation unchanged, without a new evaluation.
        selection: How parents are chosen: with probabilities proportional to their fitness, or in tournaments.
        tournament_size: Contestants of a tournament.
        crossover: How two parents' genes are exchanged.
        crossover_points: The number of points of the multi-point crossover.
        crossover_rate: The probability that two parents are crossed; otherwise their copies are mutated.
        gene_mutation: The probability that a gene changes; null is one over the number of genes.
        step: Standard deviation of a hyperparameter's change, in units of its whole range on its scale.
        random_mutation: The probability that a child is replaced by a random candidate.
        distinct: Whether a child that equals a member or another child is mutated until it differs.

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
        return super().statistics() | {"population/generation": float(self.generation)}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "generation": self.generation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.generation = state["generation"]


class GeneticOperators:
    """Selection, crossover and mutation. They draw from Python's ``random``: call them within ``python_random``.

    Raises:
        UnusableInput: DEAP is not installed.
    """

    def __init__(self) -> None:
        self.tools = optional_module("deap.tools", "hpo")

    def roulette(self, members: Sequence[Chromosome], count: int, scores: Sequence[float]) -> list[Chromosome]:
        """``count`` members, each with a probability proportional to its :func:`sigma_scaled` score."""
        return self.tools.selRoulette(_with_fitness(members, sigma_scaled(scores)), count)

    def tournament(
        self, members: Sequence[Chromosome], count: int, scores: Sequence[float], size: int
    ) -> list[Chromosome]:
        """``count`` times the best of ``size`` members drawn with replacement."""
        return self.tools.selTournament(_with_fitness(members, scores), count, size)

    def single_point(self, one: Chromosome, other: Chromosome) -> None:
        """Swap all genes behind one point, in place."""
        if len(one) > 1:
            self.tools.cxOnePoint(one, other)

    def multi_point(self, one: Chromosome, other: Chromosome, points: int) -> None:
        """Swap every other segment between ``points`` different points, in place. DEAP has two points only."""
        if points == 2 and len(one) > 1:
            self.tools.cxTwoPoint(one, other)
            return
        for point in random.sample(range(1, len(one)), min(points, len(one) - 1)):
            one[point:], other[point:] = other[point:], one[point:]

    def uniform(self, one: Chromosome, other: Chromosome) -> None:
        """Swap each gene with probability one half, in place."""
        self.tools.cxUniform(one, other, 0.5)

    def mutate_genes(self, genes: Chromosome, bits: int, rate: float, step: float) -> None:
        """Change each gene with probability ``rate``, in place: flip a bit, move a place by a Gaussian ``step``."""
        (flipped,) = self.tools.mutFlipBit(genes[:bits], rate)
        (moved,) = self.tools.mutGaussian(genes[bits:], 0.0, step, rate)
        genes[:] = flipped + [reflected(place) for place in moved]


def _with_fitness(members: Sequence[Chromosome], values: Sequence[float]) -> list[Chromosome]:
    for member, value in zip(members, values, strict=True):
        member.fitness = Fitness((value,))
    return list(members)


def sigma_scaled(scores: Sequence[float]) -> list[float]:
    """Scores as fitness for the roulette wheel: ``1 + (score - mean) / (2 * deviation)``, at least 0.1.

    So the shares depend neither on the unit nor on the offset of the objective (Mitchell, 1996, section 5.4). A score
    that is not finite gets the least share.
    """
    finite = [score for score in scores if math.isfinite(score)]
    deviation = statistics.pstdev(finite) if finite else 0.0
    if deviation == 0:
        return [1.0 if math.isfinite(score) else LEAST_SHARE for score in scores]
    mean = statistics.fmean(finite)
    return [
        max(LEAST_SHARE, 1 + (score - mean) / (2 * deviation)) if math.isfinite(score) else LEAST_SHARE
        for score in scores
    ]


class BinaryCode:
    """Codes options as bits, the most significant first. A code beyond the last option stands for itself modulo their
    number.

    Args:
        sizes: The number of options of each choice.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.widths = [(size - 1).bit_length() for size in sizes]
        self.bits = sum(self.widths)

    def genes(self, vector: Sequence[float]) -> Chromosome:
        """The chromosome of an encoded candidate."""
        chromosome = Chromosome()
        for index, width in zip(vector, self.widths, strict=False):  # the places come after the choices
            chromosome.extend((int(index) >> shift) & 1 for shift in reversed(range(width)))
        chromosome.extend(vector[len(self.sizes) :])
        return chromosome

    def vector(self, genes: Sequence[float]) -> Vector:
        """The inverse of :meth:`genes`."""
        vector, start = [], 0
        for size, width in zip(self.sizes, self.widths, strict=True):
            code = 0
            for bit in genes[start : start + width]:
                code = 2 * code + int(bit)
            vector.append(float(code % size))
            start += width
        return vector + list(genes[start:])
