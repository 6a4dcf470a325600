"""The weight step, SGD with momentum: as a pure function, and as ``torch.optim.SGD``, which is equal to it by test.

Exact hypergradients differentiate the function; forward accumulation is its Jacobian-vector product.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.hyperparameters.kinds import GROUPS, Group, group_of, learning_rates

Weights = dict[str, Tensor]


def sgd(
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    values: Mapping[str, Tensor | float],
    max_norm: float | None = None,
) -> tuple[Weights, Weights]:
    """One step, differentiable in all that it takes, by the names of the weights.

    ``b' = momentum * b + clipped(g) + weight_decay * w`` and ``w' = w - rate * b'``.

    Args:
        gradients: A weight without one stays as it is, as in ``torch.optim.SGD``.
        buffers: The momentum buffers; a weight without one has no momentum yet, as at PyTorch's first step.
        values: ``learning_rate``, ``weight_decay``, rate factors, and ``momentum`` where there are buffers.
        max_norm: The norm to which the gradients are clipped together; None leaves them.

    Returns:
        ``w'`` and ``b'``.
    """
    gradients = clipped(gradients, max_norm)
    rate = learning_rates(values)
    moved, directions = dict(weights), dict(buffers)
    for name, gradient in gradients.items():
        weight = weights[name]
        direction = gradient + values["weight_decay"] * weight
        if name in buffers:
            direction = direction + values["momentum"] * buffers[name]
        directions[name] = direction.to(weight.dtype)
        moved[name] = (weight - rate[group_of(weight)] * directions[name]).to(weight.dtype)
    return moved, directions


def clipped(gradients: Mapping[str, Tensor], max_norm: float | None) -> Mapping[str, Tensor]:
    """``gradients`` scaled down to the norm ``max_norm``, differentiably."""
    if max_norm is None:
        return gradients
    scale = (max_norm / (global_norm(gradients) + 1e-6)).clamp(max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}


def global_norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norm of all ``tensors`` together, 0-dim, differentiable."""
    # Unlike sqrt(sum of squares), a vector norm has a derivative at zero, and a dead network is no NaN.
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors.values()]))


def set_step(optimiser: torch.optim.Optimizer, values: Mapping[str, float]) -> None:
    """Give the next step of ``optimiser`` the learning rates, weight decay and momentum of ``values``."""
    own = learning_rates(values)
    for group in optimiser.param_groups:
        group["lr"] = own[group["name"]] if "name" in group else values["learning_rate"]
        group["weight_decay"] = values.get("weight_decay", 0.0)
        if "momentum" in group:
            group["momentum"] = values.get("momentum", group["momentum"])


def take_step(
    optimiser: torch.optim.Optimizer,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    max_norm: float | None,
) -> Tensor:
    """Take one step of ``optimiser`` along ``gradients``, which are clipped in place to the norm ``max_norm``.

    Returns:
        Their norm before clipping, 0-dim, on their device.
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    norm = nn.utils.get_total_norm([one for one in gradients if one is not None], foreach=True)
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(weights, max_norm, norm, foreach=True)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm


def grouped(weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser; :func:`set_step` knows them by their ``name``."""
    members: dict[Group, list[nn.Parameter]] = {group: [] for group in GROUPS}
    for weight in weights:
        members[group_of(weight)].append(weight)
    return [{"params": found, "name": group} for group, found in members.items() if found]
