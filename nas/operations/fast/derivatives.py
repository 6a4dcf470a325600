"""Gradients that can be differentiated again, for functions whose own backward pass is a kernel."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function


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


class Derivatives(NamedTuple):
    """The derivatives of a function whose value is a kernel's.

    Attributes:
        in_torch: The outputs from the inputs, in PyTorch's operations.
        gradient: The gradients of the inputs, from the inputs, the gradients of the outputs, and which are wanted;
            None where one is not wanted.
        second_gradient: The gradients of ``<gradient, directions>`` with respect to the outputs' gradients and to the
            inputs, from the inputs, the outputs' gradients, the directions, and which are wanted.
    """

    in_torch: Callable[..., Sequence[Tensor]]
    gradient: Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[bool]], Sequence[Tensor | None]]
    second_gradient: Callable[
        [Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Sequence[bool]], Sequence[Tensor | None]
    ]


class KernelGradient(Function):
    """The gradient as a function of its own: its derivative is a kernel's, too, and further ones are PyTorch's.

    It is applied to the derivatives, which gradients are wanted, the number of outputs, their gradients, the inputs.
    """

    @staticmethod
    def forward(
        ctx: Any, derivatives: Derivatives, wanted: Sequence[bool], outputs: int, *tensors: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.derivatives, ctx.wanted, ctx.outputs = derivatives, wanted, outputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return tuple(derivatives.gradient(tensors[outputs:], tensors[:outputs], wanted))

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, derivatives, outputs = ctx.saved_tensors, ctx.derivatives, ctx.outputs
        wanted = wanted_inputs(ctx, len(tensors))
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled():

            def given(of: Sequence[Any]) -> list[Any]:
                return [one for one, needed in zip(of, ctx.wanted, strict=True) if needed]

            def gradient(*tensors: Tensor) -> Sequence[Tensor]:
                values, inputs = derivatives.in_torch(*tensors[outputs:]), given(tensors[outputs:])
                return torch.autograd.grad(values, inputs, tensors[:outputs], create_graph=True)

            found = differentiable_gradients(gradient, tensors, wanted, given(directions))
        else:
            inputs = tensors[outputs:]
            found = derivatives.second_gradient(inputs, tensors[:outputs], zeros_for_none(directions, inputs), wanted)
        return None, None, None, *found
