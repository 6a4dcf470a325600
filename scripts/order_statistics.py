"""What random search would have found, exactly, from a sample of random candidates.

``rank`` orders the candidates as the search would, lower is better; ``value`` is what its winner is then worth. Of all
subsets of N candidates, the one with rank r (1 is the best of n) wins in ``C(n - r, N - 1)`` of ``C(n, N)``. The mean
over these is unbiased for a search that draws N candidates anew, up to N = n.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln


def winning_probabilities(count: int, draws: float) -> np.ndarray:
    """The probability that each of ``count`` candidates, best first, is the best of ``draws`` drawn without repetition.

    Args:
        draws: From 1 to ``count``. Between two whole numbers the binomials are those of the gamma function.

    Returns:
        (count,), which add up to 1.

    Raises:
        ValueError: ``draws`` is out of bounds.
    """
    if not 1 <= draws <= count:
        raise ValueError(f"{draws} draws of {count} candidates")
    behind = count - np.arange(1, count + 1, dtype=float)  # candidates that are worse
    possible = behind >= draws - 1
    logarithms = np.full(count, -math.inf)
    fits = behind[possible]
    logarithms[possible] = gammaln(fits + 1) - gammaln(draws) - gammaln(fits - draws + 2)
    weights = np.exp(logarithms - logarithms.max())
    return weights / weights.sum()


def random_search(rank: Sequence[float], value: Sequence[float], draws: float) -> tuple[float, float]:
    """Mean and standard deviation of the winner's value over all searches of ``draws`` candidates.

    Args:
        rank: What the search compares, lower is better; of equal ones each is as likely to be met first.
        value: What the winner is worth.
        draws: The number of candidates; a number that is not whole lies between its neighbours.
    """
    order = np.argsort(np.asarray(rank, dtype=float), kind="stable")
    ranks, values = np.asarray(rank, dtype=float)[order], np.asarray(value, dtype=float)[order]
    _, groups = np.unique(ranks, return_inverse=True)
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    squares = np.bincount(groups, weights=values**2) / np.bincount(groups)
    weights = winning_probabilities(len(values), draws)
    mean = float(weights @ means[groups])
    return mean, math.sqrt(max(float(weights @ squares[groups]) - mean**2, 0.0))


def worth(rank: Sequence[float], value: Sequence[float], reached: float, higher_is_better: bool = True) -> float:
    """How many random candidates it takes until their winner's mean value is ``reached``.

    Returns:
        From 1 (one random candidate is as good) to the number of candidates; infinite where not even all reach it.
    """
    sign = 1.0 if higher_is_better else -1.0
    count = len(value)

    def behind(draws: float) -> bool:
        return sign * random_search(rank, value, draws)[0] < sign * reached

    if behind(count):
        return math.inf
    low, high = 1.0, float(count)
    if not behind(low):
        return low
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if behind(middle) else (low, middle)
    return high


def percentile(value: float, others: Sequence[float], higher_is_better: bool = True) -> float:
    """How many per cent of ``others`` ``value`` beats, ties counting half."""
    array = np.asarray(others, dtype=float)
    better = (array < value) if higher_is_better else (array > value)
    return float(100 * (better.mean() + 0.5 * (array == value).mean()))
