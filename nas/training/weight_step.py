"""Which optimiser takes the weight step, and that step as a function."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.tasks.task import Values
from nas.training.adamw import adamw, moments_of
from nas.training.settings import TrainingSettings
from nas.training.sgd import Weights, grouped, sgd

StepFunction = Callable[[Weights, Weights, Mapping[str, Any], Values, float | None], tuple[Weights, Weights]]
"""From weights, gradients, what the optimiser remembers, hyperparameters and the clipping norm to the weights after the
step and the directions along which it goes."""


def weight_optimiser(settings: TrainingSettings, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of ``settings``; what it steps by is told before every step (:func:`nas.training.sgd.set_step`)."""
    groups = grouped(weights)
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.epsilon, foreach=True)
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, foreach=True)


def require_plain(optimiser: torch.optim.Optimizer) -> None:
    """Refuse an optimiser whose step is not the one that is differentiated.

    Raises:
        ValueError: A group has dampening, Nesterov's momentum, maximisation or AMSGrad.
    """
    others = ("dampening", "nesterov", "maximize", "amsgrad")
    if any(group.get(key) for group in optimiser.param_groups for key in others):
        raise ValueError("the function is that of the plain step: no dampening, Nesterov, maximisation or AMSGrad")


def as_function(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, Tensor], values: Values
) -> tuple[StepFunction, dict[str, Any]]:
    """The next step of ``optimiser`` as a function, and what the optimiser remembers, by the names of ``weights``.

    Raises:
        ValueError: There is no such function of this optimiser.
    """
    require_plain(optimiser)
    group = optimiser.param_groups[0]
    if isinstance(optimiser, torch.optim.AdamW):
        return partial(adamw, betas=group["betas"], epsilon=group["eps"]), moments_of(optimiser, weights)
    if isinstance(optimiser, torch.optim.SGD):
        return sgd, momentum_buffers(optimiser, weights, values["momentum"])
    raise ValueError(f"the step of {type(optimiser).__name__} is not known as a function")


def momentum_buffers(
    optimiser: torch.optim.SGD, weights: Mapping[str, Tensor], momentum: Tensor | float
) -> dict[str, Tensor]:
    """The buffers by the names of ``weights``, copies for a learned momentum's graph; none before the first step."""
    if not isinstance(momentum, Tensor) and momentum == 0:
        return {}
    found = {name: optimiser.state.get(weight, {}) for name, weight in weights.items()}
    live = {name: state["momentum_buffer"] for name, state in found.items() if "momentum_buffer" in state}
    return {name: buffer.clone() for name, buffer in live.items()} if isinstance(momentum, Tensor) else live
