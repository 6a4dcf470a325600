"""Continuous hyperparameters that the hypergradient learns, and the rules that move them."""

from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import (
    Cutout,
    DropoutRate,
    DropPathRate,
    Hyperparameter,
    LabelSmoothing,
    LayerDropoutRate,
    LearningRate,
    MemoryPenalty,
    Mixing,
    Momentum,
    RateFactor,
    WeightDecay,
)
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised, GradientDescent, Update

__all__ = [
    "AdamUpdate",
    "CosineNormalised",
    "Cutout",
    "DropPathRate",
    "DropoutRate",
    "GradientDescent",
    "Hyperparameter",
    "HyperparameterSet",
    "LabelSmoothing",
    "LayerDropoutRate",
    "LearningRate",
    "MemoryPenalty",
    "Mixing",
    "Momentum",
    "RateFactor",
    "Update",
    "WeightDecay",
]
