"""Discounted forward accumulation: how the weights depend on the hyperparameters of many steps, carried along.

RTHO (Franceschi et al., 2017, "Forward and Reverse Gradient-Based Hyperparameter Optimization", section 3.2) with
the discount of MARTHE (Donini et al., 2020, "MARTHE: Scheduling the Learning Rate Via Online Hypergradients").
"""

import warnings
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn

from nas.bilevel.hypergradient import UpperLevelReport
from nas.bilevel.problem import BilevelProblem, OpenStep, Weights, global_norm
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.groups import group_of, rates
from nas.hyperparameters.kinds import Kind

Tangents = tuple[Weights, Weights]  # d weights / d raw and d momentum buffers / d raw, by the weights' names


class ForwardAccumulation:
    """``grad L_val(w_t) . Z_t`` with ``Z_{t+1} = discount * A_t Z_t + B_t``.

    ``Z = dw/dh``; ``A_t`` and ``B_t`` are the derivatives of the whole weight step (clipping, weight decay and momentum
    included) with respect to the weights with their momentum buffers, and to h. Every weight step takes a graph of its
    gradient and one product with the Hessian per hyperparameter. A ``Z`` that is not finite is dropped.

    Args:
        horizon: Weight steps after which the accumulation begins anew; None: never.
        discount: 1 weighs all steps alike, 0 sees the last step alone.
    """

    reaches: ClassVar[frozenset[Kind]] = frozenset({"loss", "decay", "update"})

    def __init__(self, horizon: int | None = 20, discount: float = 0.9) -> None:
        require(horizon is None or horizon >= 1, "horizon", horizon, "it must be null or at least 1")
        require(0 <= discount <= 1, "discount", discount, "it must be a number from 0 to 1")
        self.horizon, self.discount = horizon, discount
        self._tangents: dict[str, Tangents] = {}  # by the hyperparameter's name
        self._age = 0  # steps that they cover

    def most_passes(self, targets: int) -> int:
        return 1 + targets

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        return True

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        weights = {name: weight.detach().requires_grad_() for name, weight in problem.weights().items()}
        loss, logits = problem.validation_loss(weights, validation)
        slopes = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        at_weights = dict(zip(weights, slopes, strict=True))
        sensitivity = {}
        for name, raw in _named(problem, targets).items():
            raw.grad = torch.zeros_like(raw)
            if name in self._tangents:
                moved, _ = self._tangents[name]
                products = [(at_weights[weight] * moved[weight]).sum() for weight in at_weights]
                raw.grad += torch.stack(products).sum().to(raw)
                sensitivity[raw] = float(global_norm(moved))
        norm = float(global_norm(at_weights))
        return UpperLevelReport(loss.detach(), logits.detach(), validation_gradient_norm=norm, sensitivity=sensitivity)

    def observe(self, problem: BilevelProblem, step: OpenStep, targets: Sequence[nn.Parameter]) -> int:
        if self._age == self.horizon:
            self.forget()
        self._age += 1
        live = problem.weights()
        for name, raw in _named(problem, targets).items():
            before = self._discounted(name, live)
            through = self._along(step, raw, before, live)
            after = self._advanced(problem, name, before, step.gradients, through)
            if all(bool(torch.isfinite(global_norm(part))) for part in after):
                self._tangents[name] = after
            else:
                self._tangents.pop(name, None)
        return len(targets)

    def _discounted(self, name: str, live: Weights) -> Tangents:
        if name not in self._tangents:
            zero = {weight: torch.zeros_like(one) for weight, one in live.items()}
            return zero, zero
        moved, directions = (
            {weight: self.discount * tangent for weight, tangent in part.items()} for part in self._tangents[name]
        )
        return moved, directions

    @staticmethod
    def _along(step: OpenStep, raw: nn.Parameter, before: Tangents, live: Weights) -> Weights:
        """``d gradient = H Z + d^2 L / (dw draw)``: the gradient of ``gradient . Z + dL/draw``.

        Second derivatives are symmetric, so a double backward does; not every operation has a forward mode.
        """
        slope = torch.autograd.grad(step.loss, raw, create_graph=True, materialize_grads=True)[0]
        products = [(gradient * before[0][name]).sum() for name, gradient in step.gradients.items()]
        coupled = torch.stack(products).sum() + slope
        found = torch.autograd.grad(coupled, list(live.values()), retain_graph=True, materialize_grads=True)
        return dict(zip(live, found, strict=True))

    @staticmethod
    def _advanced(
        problem: BilevelProblem, target: str, before: Tangents, gradients: Weights, through: Weights
    ) -> Tangents:
        """The tangents after the weight step, in which everything that depends on ``target`` is a dual number."""
        live = problem.weights()
        with warnings.catch_warnings(), forward_ad.dual_level():
            # What PyTorch itself loads for forward mode uses something that it has deprecated.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
            raw = {name: one.detach() for name, one in problem.hyperparameters.named_raw()}
            raw[target] = forward_ad.make_dual(raw[target], torch.ones_like(raw[target]))
            values = problem.values(raw)
            momentum, rate = problem.momentum(values), rates(values)
            duals = {name: forward_ad.make_dual(gradients[name].detach(), through[name]) for name in live}
            clipped = problem.clipped(duals)
            directions, moved = {}, {}
            for name, weight in live.items():
                dual = forward_ad.make_dual(weight.detach(), before[0][name])
                direction = clipped[name] + values["weight_decay"] * dual
                if (buffer := problem.momentum_buffer(name, momentum)) is not None:
                    direction = direction + momentum * forward_ad.make_dual(buffer, before[1][name])
                directions[name], moved[name] = direction, dual - rate[group_of(weight)] * direction
            return _tangents(moved, live), _tangents(directions, live)

    def forget(self) -> None:
        self._tangents.clear()
        self._age = 0

    def state_dict(self) -> dict[str, Any]:
        return {"age": self._age, "tangents": {name: list(parts) for name, parts in self._tangents.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._age = state["age"]
        self._tangents = {name: (parts[0], parts[1]) for name, parts in state["tangents"].items()}


def _named(problem: BilevelProblem, targets: Sequence[nn.Parameter]) -> dict[str, nn.Parameter]:
    chosen = {id(target) for target in targets}
    return {name: raw for name, raw in problem.hyperparameters.named_raw() if id(raw) in chosen}


def _tangents(duals: Weights, like: Weights) -> Weights:
    found = {name: forward_ad.unpack_dual(entry).tangent for name, entry in duals.items()}
    return {
        name: torch.zeros_like(like[name]) if tangent is None else tangent.detach().to(like[name].dtype)
        for name, tangent in found.items()
    }
