"""The genetic algorithm's coding and operators, DEAP's where it has them.

A chromosome is a list of genes: the bits of every choice's option, then one real number from 0 to 1 per hyperparameter.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from nas.baselines.encoded_strategy import Vector, reflected
from nas.configuration import optional_module

Crossover = Callable[["Chromosome", "Chromosome"], Any]

LEAST_SHARE = 0.1  # of an average member's chance, for the worst one


class Fitness(NamedTuple):
    """What DEAP's selections compare and add up."""

    values: tuple[float]


class Chromosome(list[float]):
    """Genes, and the fitness with which DEAP's selections see them."""

    fitness: Fitness


@contextmanager
def python_random(generator: torch.Generator) -> Iterator[None]:
    """Let Python's ``random``, from which DEAP draws, follow from ``generator``; afterwards it is as it was before."""
    before = random.getstate()
    random.seed(int(torch.randint(2**62, (), generator=generator)))
    try:
        yield
    finally:
        random.setstate(before)


class BinaryCode:
    """Options as bits, most significant first; a code without an option stands for itself minus their number.

    Args:
        sizes: How many options each choice has.
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


def sigma_scaled(scores: Sequence[float]) -> list[float]:
    """Scores as fitness for the roulette wheel: ``1 + (score - mean) / (2 * deviation)``, at least 0.1.

    The shares then depend neither on the unit nor on the offset of the objective (Mitchell, 1996, "An Introduction to
    Genetic Algorithms", section 5.4). A score that is not finite gets the least share.
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


class GeneticOperators:
    """Selection, crossover and mutation, drawing from Python's ``random``: call them inside :func:`python_random`.

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
        """Swap, in place, all genes behind one point."""
        if len(one) > 1:
            self.tools.cxOnePoint(one, other)

    def multi_point(self, one: Chromosome, other: Chromosome, points: int) -> None:
        """Swap, in place, every other one of the segments between ``points`` different points; DEAP has it for two."""
        if points == 2 and len(one) > 1:
            self.tools.cxTwoPoint(one, other)
            return
        for point in random.sample(range(1, len(one)), min(points, len(one) - 1)):
            one[point:], other[point:] = other[point:], one[point:]

    def uniform(self, one: Chromosome, other: Chromosome) -> None:
        """Swap, in place, each gene with probability one half."""
        self.tools.cxUniform(one, other, 0.5)

    def mutate_genes(self, genes: Chromosome, bits: int, rate: float, step: float) -> None:
        """Change, in place, each gene with probability ``rate``: flip a bit, move a place by a Gaussian ``step``."""
        (flipped,) = self.tools.mutFlipBit(genes[:bits], rate)
        (moved,) = self.tools.mutGaussian(genes[bits:], 0.0, step, rate)
        genes[:] = flipped + [reflected(place) for place in moved]


def _with_fitness(members: Sequence[Chromosome], values: Sequence[float]) -> list[Chromosome]:
    for member, value in zip(members, values, strict=True):
        member.fitness = Fitness((value,))
    return list(members)
