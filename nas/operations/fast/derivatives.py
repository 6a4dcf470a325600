"""Gradients that can be differentiated again, for functions whose own backward pass is a kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def wanted_inputs(ctx: Any, count: int) -> list[bool]:
    """Whether the gradient of each tensor input leads anywhere, asked inside a function's backward pass.

    ``needs_input_grad`` says whether an input is part of any graph; what is asked for may not depend on it. In a second
    backward pass towards a few hyperparameters this saves most of the work.
    """
    wanted = []
    for index in range(count):
        node = ctx.next_functions[index][0]
        try:
            wanted.append(node is not None and torch._C._will_engine_execute_node(node))
        except (RuntimeError, AttributeError):  # a leaf that is asked for; another version of PyTorch
            wanted.append(node is not None)
    return wanted


def zeros_for_none(directions: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """``directions`` with zeros in place of those that no gradient came back for."""
    return [torch.zeros_like(one) if v is None else v for v, one in zip(directions, like, strict=True)]


def differentiable_gradients(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    wanted: Sequence[bool],
    output_gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of ``function(*inputs)`` in the graph of ``inputs`` and ``output_gradients``.

    ``function`` computes in PyTorch's operations what the kernel has computed. An output whose gradient is None has no
    part in it.
    """
    # One input may have been computed from another: aliases keep the partial derivatives apart.
    aliases = [one.view_as(one) for one in inputs]
    pairs = zip(function(*aliases), output_gradients, strict=True)
    outputs = [(output, gradient) for output, gradient in pairs if gradient is not None]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in outputs],
            [alias for alias, needed in zip(aliases, wanted, strict=True) if needed],
            [gradient for _, gradient in outputs],
            create_graph=True,
            materialize_grads=True,
        )
    )
    return [next(found) if needed else None for needed in wanted]
