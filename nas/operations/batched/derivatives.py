"""Gradients that can be differentiated again, for functions whose own backward pass is a kernel."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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
