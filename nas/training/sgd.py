"""Weights by what they are, so that each group can have a learning rate of its own.

The group is read off a weight's dimensions: the same rule for every space, for its supernet and for what is found.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.hyperparameters.groups import GROUPS, Group, group_of, rates


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
