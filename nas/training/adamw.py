"""The weight step of AdamW (Loshchilov and Hutter, 2019, "Decoupled Weight Decay Regularization", Algorithm 2).

It is a pure function here, and ``torch.optim.AdamW``, which is equal to it by test, takes the real step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.hyperparameters.kinds import group_of, learning_rates
from nas.training.sgd import Weights, clipped

Betas = tuple[float, float]


@dataclass(frozen=True)
class Moments:
    """What AdamW remembers of a weight.

    Attributes:
        mean: The moving average of the gradients, shaped as the weight.
        square: That of their squares.
        steps: How many steps the averages cover.
    """

    mean: Tensor
    square: Tensor
    steps: int

    @classmethod
    def none_yet(cls, weight: Tensor) -> "Moments":
        return cls(torch.zeros_like(weight), torch.zeros_like(weight), 0)

    def after(self, gradient: Tensor, betas: Betas) -> "Moments":
        """Those that a step along ``gradient`` leaves, in its graph."""
        first, second = betas
        mean = first * self.mean + (1 - first) * gradient
        return Moments(mean, second * self.square + (1 - second) * gradient.square(), self.steps + 1)

    def direction(self, betas: Betas, epsilon: float) -> Tensor:
        """``m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)``; the denominator is a constant of the graph."""
        first, second = (1 - beta**self.steps for beta in betas)
        return self.mean / first / ((self.square.detach() / second).sqrt() + epsilon)

    def clone(self) -> "Moments":
        return Moments(self.mean.clone(), self.square.clone(), self.steps)


def adamw(
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    moments: Mapping[str, Moments],
    values: Mapping[str, Tensor | float],
    max_norm: float | None = None,
    *,
    betas: Betas = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> tuple[Weights, Weights]:
    """One step, differentiable in all that it takes, by the names of the weights.

    ``m' = beta1 m + (1 - beta1) g``, ``v' = beta2 v + (1 - beta2) g^2`` with the clipped gradient ``g``, then
    ``u = m' / (1 - beta1^t) / (sqrt(v' / (1 - beta2^t)) + epsilon) + weight_decay * w`` and ``w' = w - rate * u``.

    The denominator is a constant of the graph: a derivative of this step is exact for the step whose denominator stays
    what it is. The derivative of ``sqrt(v)`` is infinite where a weight has no gradient (a token that is not in the
    batch, the first step), and NaN in the product with the gradient's own; with epsilon inside the root it is up to
    1 / epsilon times too large to be of use. Learning rate and weight decay do not pass through it: for them the
    closed forms ``-grad L_val(w') . u`` and ``-rate * grad L_val(w') . w`` are exact.

    Args:
        gradients: A weight without one stays as it is, as in ``torch.optim.AdamW``.
        moments: Before the step; a weight without an entry has none yet.
        values: ``learning_rate``, ``weight_decay`` and rate factors.
        max_norm: The norm to which the gradients are clipped together; None leaves them.

    Returns:
        ``w'`` and, of those weights that move, ``u``.
    """
    gradients = clipped(gradients, max_norm)
    rate = learning_rates(values)
    moved, directions = dict(weights), {}
    for name, gradient in gradients.items():
        weight = weights[name]
        before = moments[name] if name in moments else Moments.none_yet(weight)
        direction = before.after(gradient, betas).direction(betas, epsilon) + values["weight_decay"] * weight
        directions[name] = direction.to(weight.dtype)
        moved[name] = (weight - rate[group_of(weight)] * directions[name]).to(weight.dtype)
    return moved, directions


def moments_of(optimiser: torch.optim.AdamW, weights: Mapping[str, Tensor]) -> dict[str, Moments]:
    """Those that ``optimiser`` holds, by the names of ``weights``: the live tensors, not copies."""
    found = {name: optimiser.state[weight] for name, weight in _known(optimiser, weights)}
    return {name: Moments(one["exp_avg"], one["exp_avg_sq"], int(one["step"])) for name, one in found.items()}


def _known(optimiser: torch.optim.AdamW, weights: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """The weights that have taken a step; the optimiser's state is made by looking into it."""
    return [(name, weight) for name, weight in weights.items() if optimiser.state.get(weight)]
