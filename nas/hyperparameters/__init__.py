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
from nas.hyperparameters.relations import EffectiveRate, MeanFactor, Relation
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised, GradientDescent, Update

__all__ = [
    "AdamUpdate",
    "CosineNormalised",
    "Cutout",
    "DropPathRate",
    "DropoutRate",
    "EffectiveRate",
    "GradientDescent",
    "Hyperparameter",
    "HyperparameterSet",
    "LabelSmoothing",
    "LayerDropoutRate",
    "LearningRate",
    "MeanFactor",
    "MemoryPenalty",
    "Mixing",
    "Momentum",
    "RateFactor",
    "Relation",
    "Update",
    "WeightDecay",
]
