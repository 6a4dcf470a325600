"""The edges of a recurrent search cell that leave one state, in one pass.

With ``[c, z]`` of an edge, its weights ``p`` of tanh, ReLU, sigmoid and the identity, and their sum ``q``, it adds
``q s + sigmoid(c) * (m - q s)`` with ``m = sum over k of p_k f_k(z)`` to what its node has been given before.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.derivatives import Derivatives, KernelGradient, wanted_inputs

SMALL = 30_000  # numbers that one thread is through with sooner than several


class _GatedMixture(ctypes.Structure):
    """Filled by place and not by name: a search step calls these kernels a thousand times, for little work each."""

    _fields_ = (
        *library.numbers("batch", "edges", "width", "threads"),
        *library.addresses("state", "product", "factors", "carried"),  # inputs
        *library.addresses("first", "rest"),  # outputs, or their tangents
        *library.addresses("gfirst", "grest"),  # their gradients
        *library.addresses("gstate", "gproduct", "gcarried", "sums"),  # gradients of the inputs
        *library.addresses("vstate", "vproduct", "vfactors", "vcarried"),  # the directions of the second pass
    )


def gated_mixture(state: Tensor, product: Tensor, factors: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """What the first node has been given with this, (batch, width), and the others, (batch, edges - 1, width).

    Args:
        state: (batch, width).
        product: (batch, edges, 2 width), gates and values side by side.
        factors: (edges, 4), the weights of tanh, ReLU, sigmoid and the identity.
        carried: (batch, edges, width), what the nodes have been given before.
    """
    if library.usable(state):
        return _Mixed.apply(state, product, factors, carried)
    first, rest = gated_mixture_in_torch(state, product, factors, carried)
    return first, rest


def gated_mixture_in_torch(state: Tensor, product: Tensor, factors: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The same in PyTorch's operations."""
    gate, sigmoid_of_z = product.sigmoid().chunk(2, -1)
    z = product.chunk(2, -1)[1]
    tanh, relu, sigmoid, same = (one[:, None] for one in factors.unbind(1))
    mixture = torch.addcmul(same * z, tanh, z.tanh())
    mixture = torch.addcmul(torch.addcmul(mixture, relu, z.relu()), sigmoid, sigmoid_of_z)
    own = factors.sum(1)[:, None] * state[:, None]
    out = carried + torch.addcmul(own, gate, mixture - own)
    return out[:, 0], out[:, 1:]


class _Mixed(Function):
    """The values from ``state``, ``product``, ``factors`` and ``carried``."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        first, rest = _outputs(inputs)
        _run("gated_mixture_forward", inputs, (first, rest))
        return first, rest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        wanted = wanted_inputs(ctx, len(inputs))
        if torch.is_grad_enabled():
            return tuple(KernelGradient.apply(DERIVATIVES, wanted, 2, *gradients, *inputs))
        return tuple(_gradient(inputs, gradients, wanted))


def _outputs(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    batch, edges, width = inputs[3].shape
    return inputs[0].new_empty(batch, width), inputs[0].new_empty(batch, edges - 1, width)


def _results(inputs: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """Room for the gradients of ``state``, ``product`` and ``carried``, and for that of ``factors`` per sample."""
    state, product, factors, carried = inputs
    return [
        state.new_empty(state.shape) if wanted[0] else None,
        product.new_empty(product.shape) if wanted[1] else None,
        carried.new_empty(carried.shape) if wanted[3] else None,
        product.new_empty(len(state), *factors.shape) if wanted[2] else None,
    ]


def _gradient(
    inputs: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    found = _results(inputs, wanted)
    _run("gated_mixture_backward", inputs, (None, None), gradients, found)
    state, product, carried, sums = found
    return state, product, None if sums is None else sums.sum(0), carried


def _second_gradient(
    inputs: Sequence[Tensor], gradients: Sequence[Tensor], directions: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of ``<gradient, directions>``: the values' tangent, and those of the inputs.

    The gradient of ``carried`` is the outputs' own, so that it depends on no input.
    """
    found = _results(inputs, (*wanted[2:5], False))
    tangents = _outputs(inputs) if wanted[0] or wanted[1] else (None, None)
    _run("gated_mixture_second_backward", inputs, tangents, gradients, found, directions)
    state, product, _, sums = found
    return *tangents, state, product, None if sums is None else sums.sum(0), None


DERIVATIVES = Derivatives(gated_mixture_in_torch, _gradient, _second_gradient)


NONE = (None,) * 4


def _run(
    name: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None] = (None, None),
    results: Sequence[Tensor | None] = NONE,
    directions: Sequence[Tensor | None] = NONE,
) -> None:
    """Call the kernel ``name`` with the tensors of the fields of :class:`_GatedMixture`, in their order."""
    batch, edges, width = inputs[3].shape
    threads = 1 if batch * edges * width < SMALL else torch.get_num_threads()
    tensors = [  # kept alive during the call
        None if one is None else one.contiguous() for one in (*inputs, *outputs, *gradients, *results, *directions)
    ]
    places = [None if one is None else one.data_ptr() for one in tensors]
    library.run(_GatedMixture(batch, edges, width, threads, *places), name, inputs[0].dtype)
