"""Tiny spaces, supernets, batches, bilevel problems and searches, the same at every call."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.bilevel.architecture_optimiser import Adam
from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.problem import BilevelProblem
from nas.data.augmentation import Augmentation
from nas.data.batches import Batch
from nas.data.data_splits import DataSplits
from nas.data.pictures.embedded import Digits
from nas.data.stratified_split import SplitSettings
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import (
    GROUPS,
    Cutout,
    DropoutRate,
    DropPathRate,
    Hyperparameter,
    LabelSmoothing,
    LayerDropoutRate,
    LearningRate,
    Mixing,
    Momentum,
    RateFactor,
    WeightDecay,
)
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.stochastic import set_noise_generator
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature
from nas.relaxations.softmax import Softmax
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.search.guard import GuardSettings
from nas.search.parts import SearchParts, SearchSettings
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Implementation, Supernet
from nas.tasks import Classification
from nas.training.retraining import FinalSettings, Retraining
from nas.training.settings import TrainingSettings
from nas.training.sgd import grouped

INPUT_SHAPE, CLASSES, BATCH_SIZE = (1, 6, 6), 3, 8
ADAM = Adam(rate=0.03, betas=(0.5, 0.999), weight_decay=1e-3)
QUIET = TrackingSettings(tensorboard=False, console="quiet")

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
SEARCHED_LAYERS: Sequence[Mapping[str, Any]] = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"type": "dense", "units": [8, 16]},
]
SMOOTH_CONVOLUTION = {"type": "conv", "filters": [2, 3], "kernel_size": [1, 3], "dilation": [1, 2]}
MIXED_POOLS = {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]}
DENSE_LAYERS: Sequence[Mapping[str, Any]] = [
    {"type": "dense", "units": [3, 5], "activations": ["softplus", "tanh"]},
    {"type": "dense", "units": [2, 4], "optional": True},
]
MAP_LAYERS: Sequence[Mapping[str, Any]] = [
    {**SMOOTH_CONVOLUTION, "activations": ["softplus", "tanh"]},
    {**MIXED_POOLS, "pool_size": [3, 5], "stride": 1},
    {**SMOOTH_CONVOLUTION, "dilation": 2, "optional": True},
]
RANKS: dict[str, tuple[Sequence[Mapping[str, Any]], Signature]] = {  # layers and data of every rank and head
    "rows": ([{**one, "optional": True} for one in DENSE_LAYERS], Signature((4,), 3)),
    "rows with categories": (DENSE_LAYERS, Signature((5,), 3, categories=(4, 7))),
    "series": ([SMOOTH_CONVOLUTION, MIXED_POOLS, *DENSE_LAYERS], Signature((2, 9), 3)),
    "series pooled over all": (
        [SMOOTH_CONVOLUTION, {"type": "global_pool", "kind": ["max", "average"]}, *DENSE_LAYERS],
        Signature((2, 7), 3),
    ),
    "maps of series": (MAP_LAYERS, Signature((2, 8), 3, "dense")),
    "maps of images": (MAP_LAYERS, Signature((1, 5, 4), 3, "dense")),
}


def space_of_rank(name: str, implementation: Implementation = "fast") -> Macro:
    layers, signature = RANKS[name]
    return Macro(layers, ["softplus"], implementation, signature=signature)


CELL_SPACES: dict[str, Callable[..., SearchSpace]] = {  # input_shape, classes and implementation are to be given
    "darts": partial(Darts, channels=2, cells=3, steps=2, multiplier=2, stem_multiplier=1),
    "nasbench201": partial(NasBench201, channels=2, cells_per_stage=1),
}

STRUCTURED_SPACES: dict[str, Callable[..., SearchSpace]] = {  # the same with all that an edge may have besides
    "structured darts": partial(CELL_SPACES["darts"], partial_channels=2, edge_normalisation=True, auxiliary_skip=True),
    "structured nasbench201": partial(CELL_SPACES["nasbench201"], partial_channels=2, auxiliary_skip=True),
}


def relaxation_called(name: str) -> Relaxation:
    temperature = Temperature(0.9, 0.9)
    return {
        "softmax": lambda: Softmax(temperature),
        "gumbel": lambda: GumbelSoftmax(temperature),
        "hard gumbel": lambda: GumbelSoftmax(temperature, hard=True),
    }[name]()


def seeded_supernet(
    space: SearchSpace, relaxation: str = "softmax", dtype: torch.dtype = torch.float64
) -> tuple[Supernet, list[torch.Generator]]:
    """A supernet in training mode whose alphas are well apart, and its sources of noise: dropout's, relaxation's."""
    torch.manual_seed(1)
    generators = [torch.Generator().manual_seed(seed) for seed in (2, 3)]
    rule = relaxation_called(relaxation)
    rule.generator = generators[1]
    supernet = space.supernet(rule).to(dtype)
    set_noise_generator(supernet, generators[0])
    for alpha in supernet.architecture_parameters():
        nn.init.normal_(alpha, std=0.5)
    return supernet.train(), generators


def supernet_for(relaxation: str, dtype: torch.dtype, smooth: bool) -> tuple[Supernet, list[torch.Generator]]:
    """:func:`seeded_supernet` of a macro space: softplus, tanh and average pooling, or ReLU and max pooling."""
    layers, activation = (SMOOTH_LAYERS, "softplus") if smooth else (KINKED_LAYERS, "relu")
    space = Macro(layers, [activation], signature=Signature(INPUT_SHAPE, CLASSES))
    return seeded_supernet(space, relaxation, dtype)


def entries(learned: Sequence[str]) -> dict[str, Hyperparameter]:
    return {
        "learning_rate": LearningRate(0.05, 1e-4, 1.0, "log", "learning_rate" in learned, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(0.03, 1e-4, 1.0, "log", "weight_decay" in learned, AdamUpdate(0.03)),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", "dropout" in learned, AdamUpdate(0.1)),
    }


def every_entry(
    weight_decay: float = 0.03,
    groups: Sequence[str] = GROUPS,
    drop_path: bool = False,
    layers: Mapping[str, float] | None = None,
) -> dict[str, Hyperparameter]:
    """A learned hyperparameter of every kind.

    Args:
        groups: The weights that have a rate factor.
        layers: Dropout rates of layers by their names.
    """
    found: dict[str, Hyperparameter] = {
        "learning_rate": LearningRate(0.05, 1e-4, 1.0, "log", True, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(weight_decay, 1e-5, 1.0, "log", True, AdamUpdate(0.1)),
        "momentum": Momentum(0.8, 0.0, 0.99, "logit", True, AdamUpdate(0.03)),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", True, AdamUpdate(0.1)),
        "label_smoothing": LabelSmoothing(0.1, 0.0, 0.4, "linear", True, AdamUpdate(0.005)),
        "cutout": Cutout(0.4, 0.0, 0.9, "logit", True, AdamUpdate(0.1)),
        "mixing": Mixing(0.3, 0.0, 1.0, "linear", True, AdamUpdate(0.02)),
    }
    factors = {"convolution": 0.7, "dense": 2.0, "normalisation": 1.5}
    for group in groups:
        found[f"rate_factor_{group}"] = RateFactor(factors[group], 0.1, 10.0, "log", True, CosineNormalised(0.3))
    if drop_path:
        found["drop_path"] = DropPathRate(0.2, 0.0, 0.6, "logit", True, AdamUpdate(0.1))
    for layer, rate in (layers or {}).items():
        found[f"dropout_{layer}"] = LayerDropoutRate(rate, 0.0, 0.9, "logit", True, AdamUpdate(0.1), layer=layer)
    return found


def problem_over(
    supernet: Supernet,
    hyperparameters: HyperparameterSet | Mapping[str, Hyperparameter],
    clip: float | None = None,
    generators: Sequence[torch.Generator] = (),
    momentum: float = 0.9,
    **settings: Any,
) -> BilevelProblem:
    """The problem of ``supernet`` with SGD as a search has it; ``settings`` as those of :class:`BilevelProblem`."""
    optimiser = torch.optim.SGD(grouped(supernet.weight_parameters()), lr=0.0, momentum=momentum)
    if not isinstance(hyperparameters, HyperparameterSet):
        hyperparameters = HyperparameterSet(hyperparameters)
    return BilevelProblem(supernet, optimiser, hyperparameters, clip, tuple(generators), **settings)


def problem_for(
    *,
    relaxation: str = "softmax",
    dtype: torch.dtype = torch.float64,
    smooth: bool = True,
    clip: float | None = None,
    momentum: float = 0.9,
    filled: bool = False,
    learned: Sequence[str] = ("learning_rate", "weight_decay", "dropout"),
    **settings: Any,
) -> BilevelProblem:
    """A problem of a macro space, equal at every call.

    Args:
        smooth: Softplus, tanh and average pooling; otherwise ReLU and max pooling. Batch norm either way.
        filled: Whether SGD's momentum buffers hold something.
        learned: The hyperparameters with a raw parameter.
        **settings: As those of :class:`BilevelProblem`; ``hyperparameters`` other than :func:`entries`.
    """
    supernet, generators = supernet_for(relaxation, dtype, smooth)
    hyperparameters = settings.pop("hyperparameters", None) or entries(learned)
    problem = problem_over(supernet, hyperparameters, clip, generators, momentum, **settings)
    if filled:
        for weight in supernet.weight_parameters():
            problem.optimiser.state[weight]["momentum_buffer"] = 0.1 * torch.randn_like(weight)
    return problem


def momentum_buffers(problem: BilevelProblem) -> dict[str, Tensor]:
    """Copies of the optimiser's buffers by the names of their weights; none at the first step."""
    found = {name: problem.optimiser.state.get(weight, {}) for name, weight in problem.weights().items()}
    return {name: state["momentum_buffer"].clone() for name, state in found.items() if "momentum_buffer" in state}


def batch_for(
    seed: int,
    dtype: torch.dtype = torch.float64,
    *,
    shape: tuple[int, int, int] = INPUT_SHAPE,
    classes: int = CLASSES,
    size: int = BATCH_SIZE,
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return Batch(images, torch.randint(classes, (size,), generator=generator))


def batch_of(signature: Signature, seed: int, size: int = BATCH_SIZE) -> Batch:
    """Normal numbers, categories at random, and a class for every prediction; in float64."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, *signature.input_shape, generator=generator, dtype=torch.float64)
    for place, codes in enumerate(reversed(signature.categories), start=1):
        inputs[:, -place] = torch.randint(codes, (size,), generator=generator).double()
    places = signature.input_shape[1:] if signature.head == "dense" else ()
    return Batch(inputs, torch.randint(signature.outputs, (size, *places), generator=generator))


def digits(train: int = 64, validation: int = 48) -> DataSplits:
    """The first digits, 8x8 pixels of one channel in ten classes."""
    return Digits(SplitSettings(train, validation, 100), Augmentation()).load()


def search_parts(folder: Path, **settings: Any) -> SearchParts:
    """The parts of a search of two epochs of four steps on the digits.

    Args:
        **settings: Instead of the parts of the same names; of ``search``, a mapping of what differs.
    """
    splits = settings.pop("splits", None) or digits()
    space = settings.pop("space", None) or Macro(SEARCHED_LAYERS, ["relu"], signature=splits.signature)
    usual = {
        "epochs": 2,
        "warmup_epochs": 0,
        "hyperparameter_every": 1,
        "stop": "epochs",
        "settled_epochs": 2,
        "settled_ratio": 1.5,
        "checkpoint_every": 3,
        "architecture": Adam(0.1, (0.5, 0.999), 1e-3),
        "guard": GuardSettings(),
    }
    hyperparameters = {
        "learning_rate": LearningRate(0.01, 1e-5, 0.5, "log", True, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", True, AdamUpdate(0.1)),
    }
    parts: dict[str, Any] = {
        "space": space,
        "splits": splits,
        "task": settings.get("task") or Classification().fitted(splits)[0],
        "augmentation": Augmentation(),
        "relaxation": Softmax(Temperature(1.0, 1.0)),
        "architecture_gradient": FirstOrder(),
        "hyperparameter_gradient": Exact(),
        "hyperparameters": HyperparameterSet(hyperparameters),
        "search": SearchSettings(**{**usual, **settings.pop("search", {})}),
        "training": TrainingSettings(16, 0.9, 5.0, "cosine"),
        "tracking": QUIET,
        "randomness": Randomness(0),
        "folder": RunFolder(folder),
    }
    return SearchParts(**{**parts, **settings})


def retraining_of(
    network: nn.Module, folder: Path, hyperparameters: Mapping[str, float], **settings: Any
) -> Retraining:
    """An epoch of ``network`` on the digits at a constant learning rate.

    Args:
        **settings: Instead of the arguments of :class:`Retraining`; also ``splits``.
    """
    splits = settings.pop("splits", None) or digits()
    randomness = settings.pop("randomness", None) or Randomness(0)
    usual: dict[str, Any] = {
        "task": Classification().fitted(splits)[0],
        "stream": splits.train.stream(16, splits.mean, splits.std, randomness.on_cpu("training order")),
        "schedule": "constant",
        "final": FinalSettings(1, "learned", None, None, 0.4, "constant", 100),
        "training": TrainingSettings(16, 0.9, None, "constant"),
        "tracking": QUIET,
        "folder": RunFolder(folder),
    }
    return Retraining(network=network, hyperparameters=hyperparameters, randomness=randomness, **{**usual, **settings})
