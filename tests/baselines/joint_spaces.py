"""Small joint spaces of each kind, and what makes each strategy."""

from collections.abc import Callable
from typing import Any

import torch

from nas.baselines.evolution import AgingEvolution
from nas.baselines.genetic import Genetic
from nas.baselines.hyperband import Hyperband
from nas.baselines.mu_plus_lambda import MuPlusLambda
from nas.baselines.policy import Factorised, LSTMController
from nas.baselines.reinforce import Reinforce
from nas.baselines.strategy import EncodedStrategy, RandomSearch
from nas.baselines.tpe import TPE
from nas.candidate import Categorical, Domain, Range
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace

RANGES: dict[str, Domain] = {
    "learning_rate": Range(1e-4, 0.1, "log"),
    "batch_size": Categorical(32, (16, 32, 64)),  # between continuous ones, as a configuration may have it
    "dropout": Range(0.0, 0.8),
}
LAYERS = [
    {"type": "conv", "filters": [8, 16, 32], "kernel_size": [3, 5]},
    {"choose": [{"type": "conv", "filters": [8, 16], "kernel_size": 3, "stride": 2}, {"type": "pool", "pool_size": 2}]},
    {"type": "conv", "filters": [8, 16], "kernel_size": 3, "optional": True},
    {"type": "dense", "units": 32},
]
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "macro": lambda: Macro(LAYERS, ["relu", "sigmoid"], signature=Signature((1, 8, 8), 10), ranges=RANGES),
    "darts": lambda: Darts(steps=3, multiplier=3, signature=Signature((3, 8, 8), 10), ranges=RANGES),
    "nasbench201": lambda: NasBench201(signature=Signature((3, 8, 8), 10)),
}
STRATEGIES: dict[str, Callable[..., EncodedStrategy]] = {
    "random": RandomSearch,
    "hyperband": lambda **given: Hyperband([1, 3], 9, **given),
    "genetic": Genetic,
    "genetic, roulette, multi-point": lambda **given: Genetic(selection="roulette", crossover="multi_point", **given),
    "genetic, single-point": lambda **given: Genetic(crossover="single_point", population=7, elite=1, **given),
    "aging evolution": AgingEvolution,
    "aging evolution, parallel": lambda **given: AgingEvolution(mutations=2, batch=3, **given),
    "mu + lambda": MuPlusLambda,
    "reinforce": lambda **given: Reinforce(Factorised(), **given),
    "reinforce, lstm": lambda **given: Reinforce(LSTMController(hidden=8), batch=3, entropy_weight=0.1, **given),
    "tpe": lambda **given: TPE(startup=5, **given),
    "tpe, parallel": lambda **given: TPE(startup=5, batch=3, **given),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_space(options: list[int], ranges: dict[str, Domain] | None = None) -> Any:
    """A macro space with a dense layer per entry of ``options``, which chooses among so many widths."""
    layers = [{"type": "dense", "units": [8 * (unit + 1) for unit in range(count)]} for count in options]
    return Macro(layers, ["relu"], signature=Signature((1, 4, 4), 2), ranges=ranges)
