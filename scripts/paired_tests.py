"""Paired comparisons over seeds: a permutation test, Holm's correction, and what a number of seeds can tell apart."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

SIGNIFICANT, POWER = 0.05, 0.8
CERTAIN = 100.0  # standard errors beyond which the power is 1, whatever the number of pairs
EXACT, DRAWS = 14, 20_000  # up to so many pairs all signs are tried; beyond, so many are drawn


@dataclass(frozen=True)
class Comparison:
    """The differences of two methods over the seeds that both have.

    Attributes:
        pairs: Their number.
        mean: The mean difference.
        p: Of a two-sided permutation test that flips signs; 1 with fewer than two pairs.
        detectable: The mean difference that so many pairs with this spread show with a probability of 80 % (t test, 5 %
            before any correction); not a number with fewer than two pairs.
        power: The probability that they show a difference as large as the one that was seen.
    """

    pairs: int
    mean: float
    p: float
    detectable: float
    power: float


def compared(differences: Sequence[float]) -> Comparison:
    count = len(differences)
    if count < 2:
        return Comparison(count, differences[0] if count else math.nan, 1.0, math.nan, math.nan)
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    error = deviation / math.sqrt(count)
    quantile = float(stats.t.ppf(1 - SIGNIFICANT / 2, count - 1))
    reach = (quantile + float(stats.t.ppf(POWER, count - 1))) * error
    return Comparison(count, mean, sign_flips(differences), reach, power(abs(mean), error, count))


def power(difference: float, error: float, count: int) -> float:
    """The power of a paired t test at 5 % where the true mean is ``difference`` and its standard error ``error``."""
    if error == 0 or difference / error > CERTAIN:
        return 1.0 if difference > 0 else SIGNIFICANT
    quantile = float(stats.t.ppf(1 - SIGNIFICANT / 2, count - 1))
    shifted = stats.nct(count - 1, difference / error)
    below = np.nan_to_num(shifted.cdf([quantile, -quantile]))  # SciPy has no number for some that are next to nothing
    return float(1 - below[0] + below[1])


def sign_flips(differences: Sequence[float]) -> float:
    """The share of sign flips whose mean is at least as far from 0: exact for few pairs, else of seeded draws."""
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count <= EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12)))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DRAWS, count))
    reached = np.sum(np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12))
    return float((reached + 1) / (DRAWS + 1))


def holm(values: Sequence[float]) -> list[float]:
    """The values corrected for their number (Holm, 1979): the smallest times n, the next times n - 1, never falling."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected
