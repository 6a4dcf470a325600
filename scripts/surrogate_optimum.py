"""Where the surrogate of a truth has its optimum, and what it expects of candidates."""

from collections.abc import Sequence

import numpy as np
import torch

from nas.candidate import Candidate, Hyperparameters, Range
from nas.evaluation.surrogate import Surrogate, with_option

DRAWN, ROUNDS, CHILDREN = 4000, 40, 10  # random candidates first, then so many changed copies of each of the best
STEP = 0.1  # of a hyperparameter's change, in units of its range


def expected_test_losses(surrogate: Surrogate, candidates: Sequence[Candidate]) -> np.ndarray:
    """The median test loss of a training of each candidate, (candidates,)."""
    column = [name for name, _ in surrogate.targets].index("test_loss")
    return np.asarray(np.exp(surrogate.means(candidates)[:, column]))


def predicted(surrogate: Surrogate, candidates: Sequence[Candidate]) -> np.ndarray:
    """The logarithm of the validation loss after the whole training, (candidates,)."""
    column = surrogate.targets.index(("validation_loss", surrogate.epochs[-1]))
    return np.asarray(surrogate.means(candidates)[:, column])


def proposals(surrogate: Surrogate, count: int) -> list[Candidate]:
    """``count`` different candidates whose predicted validation loss is lowest: random ones, improved by small changes.

    The same surrogate gives the same candidates, best first.
    """
    space = surrogate.truth.space
    generator = torch.Generator().manual_seed(0)
    pool = [space.sample(generator) for _ in range(DRAWN)]
    for _ in range(ROUNDS):
        distinct = list({one.fingerprint(): one for one in pool}.values())
        best_first = np.argsort(predicted(surrogate, distinct), kind="stable")
        best = [distinct[place] for place in best_first[:count]]
        pool = best + [changed(surrogate, one, generator) for one in best for _ in range(CHILDREN)]
    return best


def changed(surrogate: Surrogate, candidate: Candidate, generator: torch.Generator) -> Candidate:
    """A copy that differs in one choice or hyperparameter."""
    space = surrogate.truth.space
    choices = [choice for choice in space.choices if len(choice.options) > 1]
    place = int(torch.randint(len(choices) + len(space.ranges), (), generator=generator))
    if place < len(choices):
        choice = choices[place]
        option = choice.options[int(torch.randint(len(choice.options), (), generator=generator))]
        return with_option(candidate, choice.name, option)
    name = list(space.ranges)[place - len(choices)]
    domain, step = space.ranges[name], float(torch.randn((), generator=generator, dtype=torch.float64))
    unit = domain.to_unit(candidate.hyperparameters[name]) + (STEP if isinstance(domain, Range) else 1.0) * step
    values = {**candidate.hyperparameters, name: domain.from_unit(unit)}
    return Candidate(candidate.architecture, Hyperparameters(values))
