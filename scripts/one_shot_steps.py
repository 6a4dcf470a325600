"""What a step of each one-shot method costs against a first-order step of DARTS: a part of ``benchmark_step.py``.

Each case sets on the supernet, or on the two levels, what ``conf/experiment`` does, and nothing else.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nas.bilevel.architecture_optimiser import Adam, ArchitectureOptimiser
from nas.bilevel.exponentiated_gradient import ExponentiatedGradient
from nas.bilevel.perturbation import AdversarialPerturbation, Perturbation, RandomPerturbation
from nas.bilevel.regulariser import BetaDecay, Regulariser
from nas.relaxations.dirichlet import Dirichlet
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.simplex import Simplex
from nas.relaxations.softmax import Softmax

ADAM = Adam(3e-4, (0.5, 0.999), 1e-3)
EXPONENTIATED = ExponentiatedGradient(0.1, 0.1, 1e-5, "before", 0.0)
DARTS = "DARTS"


def softmax() -> Relaxation:
    return Softmax(Temperature())


def nothing() -> None:
    return None


@dataclass(frozen=True)
class Method:
    """What a method sets beside DARTS, and the most that its step may cost, as a share of that of DARTS.

    Every part is made anew for a case: some have noise or a temperature of their own.
    """

    space: Mapping[str, Any] = field(default_factory=dict)
    relaxation: Callable[[], Relaxation] = softmax
    rule: ArchitectureOptimiser = ADAM
    regulariser: Callable[[], Regulariser | None] = nothing
    perturbation: Callable[[], Perturbation | None] = nothing
    time: float | None = None
    memory: float | None = None

    def made_perturbation(self, noise: torch.Generator) -> Perturbation | None:
        """The perturbation, which draws from ``noise``."""
        perturbation = self.perturbation()
        if perturbation is not None:
            perturbation.generator = noise
        return perturbation


def gdas() -> Relaxation:
    return GumbelSoftmax(Temperature(10.0, 0.1, "linear"), hard=True, gradient="official", sampled=True)


METHODS: dict[str, Method] = {
    DARTS: Method(),
    "partial channels, k = 4": Method({"partial_channels": 4}, time=0.55, memory=0.5),
    "GDAS, sampled": Method(relaxation=gdas, time=0.35),
    "beta-DARTS": Method(regulariser=BetaDecay, time=1.05),
    "DrNAS": Method(relaxation=Dirichlet, time=1.05),
    "GAEA": Method(relaxation=Simplex, rule=EXPONENTIATED, time=1.05),
    "DARTS-": Method({"auxiliary_skip": True}, time=1.1),
    "SDARTS-RS": Method(perturbation=RandomPerturbation, time=1.05),
    "SDARTS-ADV": Method(perturbation=AdversarialPerturbation),
}


def targets_of(costs: Mapping[str, tuple[Sequence[float], float]], label: str) -> Iterator[tuple[str, float, float]]:
    """Text, figure and upper bound of every target, and a printed line per method.

    Args:
        costs: By method the seconds of its steps, in turns with those of DARTS, and the bytes at the peak.
        label: What the texts begin with.
    """
    seconds, memory = costs[DARTS]
    for name, (own, peak) in costs.items():
        if name == DARTS:
            continue
        ratio = statistics.median(one / base for one, base in zip(own, seconds, strict=True))
        print(f"{name}: {ratio:.2f} of a step of DARTS in time, {peak / memory:.2f} in memory")
        bounds = METHODS[name]
        if bounds.time is not None:
            yield f"{label}: {name}, time of a step, share of that of DARTS", ratio, bounds.time
        if bounds.memory is not None:
            yield f"{label}: {name}, peak memory, share of that of DARTS", peak / memory, bounds.memory
