"""Discounted forward accumulation: how the weights depend on the hyperparameters of many steps, carried along.

RTHO (Franceschi et al., 2017, "Forward and Reverse Gradient-Based Hyperparameter Optimization", section 3.2) with
the discount of MARTHE (Donini et al., 2020, "MARTHE: Scheduling the Learning Rate Via Online Hypergradients").
"""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.step import WeightStep
from nas.data.batches import Batch
from nas.errors import require
from nas.hyperparameters.kinds import Kind
from nas.training.sgd import Weights, global_norm, sgd

Tangents = tuple[Weights, Weights]  # d weights / d raw and d momentum buffers / d raw, by the weights' names


class ForwardAccumulation(Hypergradient):
    """``grad L_val(w_t) . Z_t`` with ``Z_{t+1} = discount * A_t Z_t + B_t``.

    ``Z = dw/dh``; ``A_t`` and ``B_t`` are the derivatives of the whole weight step (clipping, weight decay and momentum
    included) with respect to the weights with their momentum buffers, and to h. Every weight step takes a graph of its
    gradient and one product with the Hessian per hyperparameter. A ``Z`` that is not finite is dropped.

    Args:
        horizon: Weight steps after which the accumulation begins anew; None: never.
        discount: 1 weighs all steps alike, 0 sees the last step alone.
    """

    reaches: ClassVar[frozenset[Kind]] = frozenset({"loss", "decay", "update"})
    takes_basis: ClassVar[bool] = False
    needs_graph: ClassVar[Literal["never", "asked", "always"]] = "always"
    of_sgd: ClassVar[bool] = True

    def __init__(self, horizon: int | None = 20, discount: float = 0.9) -> None:
        require(horizon is None or horizon >= 1, "horizon", horizon, "it must be null or at least 1")
        require(0 <= discount <= 1, "discount", discount, "it must be a number from 0 to 1")
        self.horizon, self.discount = horizon, discount
        self._tangents: dict[str, Tangents] = {}  # by the hyperparameter's name
        self._age = 0  # steps that they cover

    def most_passes(self, targets: int) -> int:
        return 1 + targets

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        weights = {name: weight.detach().requires_grad_() for name, weight in problem.weights().items()}
        loss, logits = problem.validation_loss(weights, validation)
        found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        at_weights = dict(zip(weights, found, strict=True))
        gradients: list[Tensor] = []
        sensitivity = {}
        for name, raw in _named(problem, targets).items():
            gradient = torch.zeros_like(raw)
            if name in self._tangents:
                of_weights, _ = self._tangents[name]  # Z
                products = [(at_weights[weight] * of_weights[weight]).sum() for weight in at_weights]
                gradient += torch.stack(products).sum().to(raw)
                sensitivity[raw] = float(global_norm(of_weights))
            gradients.append(gradient)
        norm = float(global_norm(at_weights))
        return Report(gradients, loss.detach(), logits.detach(), validation_gradient_norm=norm, sensitivity=sensitivity)

    def after_weight_step(self, problem: BilevelProblem, step: WeightStep, targets: Sequence[nn.Parameter]) -> int:
        if self._age == self.horizon:
            self.forget()
        self._age += 1
        for name, raw in _named(problem, targets).items():
            before = self._discounted(name, step)
            after = self._advanced(problem, step, name, before, self._gradient_tangent(step, raw, before))
            if all(bool(torch.isfinite(global_norm(part))) for part in after):
                self._tangents[name] = after
            else:
                self._tangents.pop(name, None)
        return len(targets)

    def _discounted(self, name: str, step: WeightStep) -> Tangents:
        if name not in self._tangents:
            zero = {weight: torch.zeros_like(one) for weight, one in step.before.items()}
            return zero, zero
        of_weights, of_buffers = (
            {weight: self.discount * tangent for weight, tangent in part.items()} for part in self._tangents[name]
        )
        return of_weights, of_buffers

    @staticmethod
    def _gradient_tangent(step: WeightStep, raw: nn.Parameter, before: Tangents) -> Weights:
        """``d gradient = H Z + d^2 L / (dw draw)``: the gradient of ``gradient . Z + dL/draw`` with respect to w.

        Second derivatives are symmetric, so a double backward does; not every operation has a forward mode.
        """
        of_raw = torch.autograd.grad(step.loss, raw, create_graph=True, materialize_grads=True)[0]
        products = [(gradient * before[0][name]).sum() for name, gradient in step.gradients.items()]
        coupled = torch.stack(products).sum() + of_raw
        found = torch.autograd.grad(coupled, list(step.before.values()), retain_graph=True, materialize_grads=True)
        return dict(zip(step.before, found, strict=True))

    @staticmethod
    def _advanced(
        problem: BilevelProblem, step: WeightStep, target: str, before: Tangents, of_gradients: Weights
    ) -> Tangents:
        """``A_t Z_t + B_t``, the tangents after the weight step: its Jacobian-vector product."""
        raw = {name: one.detach() for name, one in problem.hyperparameters.named_raw()}

        def stepped(weights: Weights, gradients: Weights, buffers: Weights, value: Tensor) -> Tangents:
            return sgd(weights, gradients, buffers, problem.values({**raw, target: value}), problem.gradient_clip)

        primals = _detached(step.before), _detached(step.gradients), step.buffers, raw[target]
        of_buffers = {name: before[1][name] for name in step.buffers}
        own = {name: of_gradients[name] for name in step.gradients}
        tangents = before[0], own, of_buffers, torch.ones_like(raw[target])
        with warnings.catch_warnings():
            # What PyTorch itself loads for forward mode uses something that it has deprecated.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
            weights, buffers = torch.func.jvp(stepped, primals, tangents)[1]
        return _detached(weights), _detached(buffers)

    def forget(self) -> None:
        self._tangents.clear()
        self._age = 0

    def state_dict(self) -> dict[str, Any]:
        return {"age": self._age, "tangents": {name: list(parts) for name, parts in self._tangents.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._age = state["age"]
        self._tangents = {name: (parts[0], parts[1]) for name, parts in state["tangents"].items()}


def _named(problem: BilevelProblem, targets: Sequence[nn.Parameter]) -> dict[str, nn.Parameter]:
    names = {id(raw): name for name, raw in problem.hyperparameters.named_raw()}
    return {names[id(target)]: target for target in targets}


def _detached(tensors: Weights) -> Weights:
    return {name: tensor.detach() for name, tensor in tensors.items()}
