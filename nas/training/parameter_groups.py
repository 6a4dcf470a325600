"""Weights by what they are, so that each group can have a learning rate of its own.

The group is read off a weight's dimensions: the same rule for every space, for its supernet and for what is found.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

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


def set_step(optimiser: torch.optim.SGD, values: Mapping[str, float]) -> None:
    """Let the next step of ``optimiser`` have the learning rates, weight decay and momentum of ``values``."""
    own = rates(values)
    for group in optimiser.param_groups:
        group["lr"] = own[group["name"]] if "name" in group else values["learning_rate"]
        group["weight_decay"] = values.get("weight_decay", 0.0)
        group["momentum"] = values.get("momentum", group["momentum"])


def take_step(
    optimiser: torch.optim.SGD, weights: Sequence[Tensor], gradients: Sequence[Tensor], largest: float | None
) -> Tensor:
    """One step of ``optimiser`` along ``gradients``, scaled down to the norm ``largest`` if there is one.

    Returns:
        Their norm before, 0-dim, on their device.
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if largest is not None:
        nn.utils.clip_grads_with_norm_(weights, largest, norm, foreach=True)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm


def grouped(weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser; :func:`set_step` knows them by their ``name``."""
    members: dict[Group, list[nn.Parameter]] = {group: [] for group in GROUPS}
    for weight in weights:
        members[group_of(weight)].append(weight)
    return [{"params": found, "name": group} for group, found in members.items() if found]
