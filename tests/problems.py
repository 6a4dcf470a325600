"""Tiny bilevel problems, the same at every call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, Hyperparameter, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.stochastic import set_noise_generator
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.spaces.macro.space import Macro
from nas.spaces.macro.supernet import MacroSupernet

INPUT_SHAPE, CLASSES, BATCH_SIZE = (1, 6, 6), 3, 8

SMOOTH_LAYERS: Sequence[Mapping[str, Any]] = [
    {"type": "conv", "filters": [2, 3], "kernel_size": [1, 3], "activations": ["softplus", "tanh"]},
    {"type": "pool", "pool_size": [2, 3], "kind": "average"},
    {"type": "conv", "filters": 3, "kernel_size": 3, "optional": True},
    {"type": "dense", "units": [4, 6]},
]
KINKED_LAYERS: Sequence[Mapping[str, Any]] = [
    {"type": "conv", "filters": [2, 3], "kernel_size": [1, 3]},
    {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]},
    {"type": "dense", "units": [4, 6]},
]


def relaxation_called(name: str) -> Any:
    temperature = Temperature(0.9, 0.9)
    return {
        "softmax": lambda: Softmax(temperature),
        "gumbel": lambda: GumbelSoftmax(temperature),
        "hard gumbel": lambda: GumbelSoftmax(temperature, hard=True),
    }[name]()


def supernet_for(relaxation: str, dtype: torch.dtype, smooth: bool) -> tuple[MacroSupernet, list[torch.Generator]]:
    """A supernet in training mode whose alphas are well apart, and its sources of noise: dropout's, relaxation's."""
    torch.manual_seed(1)
    generators = [torch.Generator().manual_seed(seed) for seed in (2, 3)]
    rule = relaxation_called(relaxation)
    rule.generator = generators[1]
    layers, activation = (SMOOTH_LAYERS, "softplus") if smooth else (KINKED_LAYERS, "relu")
    supernet = Macro(layers, [activation], input_shape=INPUT_SHAPE, classes=CLASSES).supernet(rule).to(dtype)
    set_noise_generator(supernet, generators[0])
    for alpha in supernet.architecture_parameters():
        nn.init.normal_(alpha, std=0.5)
    return supernet.train(), generators


def entries(learned: Sequence[str]) -> dict[str, Hyperparameter]:
    return {
        "learning_rate": LearningRate(0.05, 1e-4, 1.0, "log", "learning_rate" in learned, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(0.03, 1e-4, 1.0, "log", "weight_decay" in learned, AdamUpdate(0.03)),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", "dropout" in learned, AdamUpdate(0.1)),
    }


def problem_for(
    *,
    relaxation: str = "softmax",
    dtype: torch.dtype = torch.float64,
    smooth: bool = True,
    clip: float | None = None,
    momentum: float = 0.9,
    filled: bool = False,
    learned: Sequence[str] = ("learning_rate", "weight_decay", "dropout"),
) -> BilevelProblem:
    """A problem, equal at every call.

    Args:
        smooth: Softplus, tanh and average pooling; otherwise ReLU and max pooling. Batch norm either way.
        filled: Whether SGD's momentum buffers hold something.
        learned: The hyperparameters with a raw parameter.
    """
    supernet, generators = supernet_for(relaxation, dtype, smooth)
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.0, momentum=momentum)
    if filled:
        for weight in supernet.weight_parameters():
            optimiser.state[weight]["momentum_buffer"] = 0.1 * torch.randn_like(weight)
    hyperparameters = HyperparameterSet(entries(learned))
    return BilevelProblem(supernet, optimiser, hyperparameters, clip, tuple(generators))


def batch_for(seed: int, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH_SIZE, *INPUT_SHAPE, generator=generator, dtype=torch.float64).to(dtype)
    return Batch(images, torch.randint(CLASSES, (BATCH_SIZE,), generator=generator))
