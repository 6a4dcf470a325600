"""What a weight step returns, and the weight step in the graph of what it depends on (``w'`` of DARTS, eq. 6)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nas.hyperparameters.kinds import group_of, learning_rates
from nas.operations.memory import Outputs
from nas.tasks.task import Values
from nas.training.sgd import Weights, global_norm
from nas.training.weight_step import StepFunction


@dataclass(frozen=True)
class WeightStep:
    """A weight step.

    Attributes:
        loss: The training loss before it, 0-dim; in the graph where that was kept.
        logits: (batch, classes), detached; with all that a memory gives, where the network has one.
        gradients: By weight, before clipping, of those that the loss depends on; empty unless the graph was kept.
        before: The weights that it begins from, leaves of the graph; empty unless the graph was kept.
        buffers: What the optimiser remembers before it, momentum buffers for example.
        after: ``w'``, in the graph; empty unless the graph was kept.
        length: ``|w' - w|``, where the graph was kept.
        norm: The gradient's norm before clipping, 0-dim; None where the step was not taken.
    """

    loss: Tensor
    logits: Outputs
    gradients: Weights = field(default_factory=dict)
    before: Weights = field(default_factory=dict)
    buffers: dict[str, Any] = field(default_factory=dict)
    after: Weights = field(default_factory=dict)
    length: float = 0.0
    norm: Tensor | None = None


def unrolled(
    training_pass: Callable[[Weights, Values], tuple[Tensor, Outputs]],
    weights: Weights,
    step_function: StepFunction,
    buffers: dict[str, Any],
    values: Values,
    second_order: bool,
    max_norm: float | None,
) -> WeightStep:
    """The step from ``weights``, in the graph of everything that ``training_pass`` and ``values`` depend on.

    Args:
        training_pass: From weights and hyperparameters to the training loss and the logits.
        step_function: The step; ``buffers`` are what it remembers.
        second_order: Whether the training gradient's own dependence is part of the graph.
        max_norm: The norm to which the gradient is clipped; None leaves it.
    """
    loss, logits = training_pass(weights, values)
    found = torch.autograd.grad(loss, list(weights.values()), create_graph=second_order, allow_unused=True)
    gradients = {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}
    fixed = {name: weight.detach() for name, weight in weights.items()}
    after, directions = step_function(fixed, gradients, buffers, values, max_norm)
    # Where nothing is in a graph, w' begins one: the validation gradient is taken at it.
    after = {name: weight if weight.requires_grad else weight.requires_grad_() for name, weight in after.items()}
    length = step_length({name: directions[name] for name in gradients}, values)
    return WeightStep(loss, logits.detach(), gradients, weights, buffers, after, length)


def step_length(directions: Mapping[str, Tensor], values: Values) -> float:
    """``|w' - w|`` of a step along ``directions``, by the names of the weights."""
    own = learning_rates(values).items()
    rate = {group: float(value.detach() if isinstance(value, Tensor) else value) for group, value in own}
    if len(set(rate.values())) == 1:
        return rate["convolution"] * float(global_norm(directions).detach())
    return float(global_norm({name: rate[group_of(entry)] * entry for name, entry in directions.items()}).detach())
