"""A weight step and the validation loss after it, written down once more: it shares no code with ``nas.training``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.operations.fast.library import without_kernels
from nas.operations.stochastic import set_dropout
from nas.tasks import Task

LEARNED = ("learning_rate", "weight_decay", "dropout")  # of tests.problems.entries
EPSILON, SECOND = 1e-8, 0.999


def targets_of(problem: BilevelProblem) -> dict[str, nn.Parameter]:
    return {**problem.supernet.alpha, **problem.hyperparameters.raw}


def written_out(problem: BilevelProblem, task: Task, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """``dL_val(w') / d target`` of every target; the problem's optimiser is SGD with momentum, or AdamW.

    Of AdamW the denominator is taken without its graph, as the docstring of :func:`nas.training.adamw.adamw` says.
    """
    noise, supernet = problem.noise_state(), problem.supernet
    point = {name: one.detach().clone().requires_grad_() for name, one in targets_of(problem).items()}
    rate = point["learning_rate"].exp()
    decay = point["weight_decay"].exp()
    dropout = 0.9 / (1 + (-point["dropout"]).exp()) if "dropout" in point else 0.0
    alphas = {f"alpha.{name}": value for name, value in point.items() if name not in LEARNED}
    live = supernet.named_weight_parameters()

    def loss(weights: dict[str, Tensor], batch: Batch, rate: Tensor | float) -> Tensor:
        set_dropout(supernet, rate)
        buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        with without_kernels():
            return task.loss(
                functional_call(supernet, {**weights, **alphas, **buffers}, (batch.inputs,)), batch.targets
            )

    weights = {name: weight.detach().requires_grad_() for name, weight in live.items()}
    found = torch.autograd.grad(loss(weights, batches[0], dropout), list(weights.values()), create_graph=True)
    gradients = dict(zip(weights, found, strict=True))
    if problem.gradient_clip is not None:
        norm = torch.cat([gradient.flatten() for gradient in found]).norm()
        factor = torch.where(norm > problem.gradient_clip, problem.gradient_clip / (norm + 1e-6), 1.0)
        gradients = {name: factor * gradient for name, gradient in gradients.items()}
    moved = {}
    for name, weight in weights.items():
        state, gradient = problem.optimiser.state.get(live[name], {}), gradients[name]
        if isinstance(problem.optimiser, torch.optim.SGD):
            direction = gradient + decay * weight.detach()
            if state:
                direction = direction + problem.optimiser.param_groups[0]["momentum"] * state["momentum_buffer"]
        else:
            count = int(state["step"]) + 1 if state else 1
            first = problem.optimiser.param_groups[0]["betas"][0]
            mean = first * (state["exp_avg"] if state else 0) + (1 - first) * gradient
            square = SECOND * (state["exp_avg_sq"] if state else 0) + (1 - SECOND) * gradient.detach() ** 2
            root = (square / (1 - SECOND**count)) ** 0.5
            direction = mean / (1 - first**count) / (root + EPSILON) + decay * weight.detach()
        moved[name] = weight.detach() - problem.schedule_factor * rate * direction
    result = torch.autograd.grad(loss(moved, batches[1], 0.0), list(point.values()))
    problem.repeat_noise(noise)
    return dict(zip(point, result, strict=True))


def largest_error(found: Tensor, reference: Tensor) -> float:
    """Of an entry, as a share of the largest one."""
    return float((found - reference).abs().max() / reference.abs().max())
