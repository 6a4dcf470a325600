"""Weights by what they are, so that each group can have a learning rate of its own.

The group is read off a weight's dimensions: the same rule for every space, for its supernet and for what is found.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

Group = Literal["convolution", "dense", "normalisation"]
GROUPS: tuple[Group, ...] = get_args(Group)
RATE_FACTORS = {group: f"rate_factor_{group}" for group in GROUPS}  # what the hyperparameters are called
OF_THE_STEP = frozenset({"learning_rate", "weight_decay", "momentum", *RATE_FACTORS.values()})  # not of its gradient


def group_of(weight: Tensor) -> Group:
    """``convolution``: kernels; ``dense``: matrices; ``normalisation``: vectors (scales, shifts and biases)."""
    return "convolution" if weight.dim() > 2 else "dense" if weight.dim() == 2 else "normalisation"


def rates(values: Mapping[str, Tensor | float]) -> dict[Group, Tensor | float]:
    """Every group's learning rate: the common one times the group's factor, where ``values`` have one."""
    common = values["learning_rate"]
    return {group: common * values[name] if name in values else common for group, name in RATE_FACTORS.items()}
