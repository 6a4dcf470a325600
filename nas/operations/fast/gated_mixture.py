"""The edges of a recurrent search cell that leave one state, in one pass.

With ``[c, z]`` of an edge, its weights ``p`` of tanh, ReLU, sigmoid and the identity, and their sum ``q``, it adds
``q s + sigmoid(c) * (m - q s)`` with ``m = sum over k of p_k f_k(z)`` to what its node has been given before.
"""

import ctypes
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nas.operations.fast import library

SMALL = 60_000  # numbers in the products that one thread is through with sooner than several
PAIR, FOUR = (None,) * 2, (None,) * 4
TENSORS = (
    ("state", "product", "factors", "carried"),  # inputs
    ("first", "rest"),  # outputs, or their tangents
    ("gfirst", "grest"),  # their gradients, those of the tangents in the second backward pass
    ("gstate", "gproduct", "gfactors", "gcarried"),  # gradients of the inputs
    ("vstate", "vproduct", "vfactors", "vcarried"),  # the directions of the second backward pass
    ("hfirst", "hrest"),  # and the gradients of the outputs themselves there
)


class _GatedMixture(ctypes.Structure):
    """Filled by place and not by name: a search step calls these kernels a thousand times, for little work each."""

    _fields_ = (
        *library.numbers("batch", "edges", "width", "threads"),
        *(field for names in TENSORS for field in library.addresses(*names)),
    )


class Edges(NamedTuple):
    """What belongs to the edges that leave one state: values, directions or gradients, each contiguous.

    Attributes:
        state: (batch, width), what they read.
        product: (batch, edges, 2 width), its products with their nodes' weights.
        factors: (edges, 4), the weights of tanh, ReLU, sigmoid and the identity. Gradients are (batch, edges, 4), one
            per sample; None where they are not wanted.
        carried: (batch, edges, width), what the nodes have been given before; None for nothing.
    """

    state: Tensor
    product: Tensor
    factors: Tensor | None
    carried: Tensor | None = None


class Given(NamedTuple):
    """What the edges' nodes have been given with them; or the tangents of it, or the gradients.

    Attributes:
        first: (batch, width), the first node.
        rest: (batch, edges - 1, width), the others; None where there are none.
    """

    first: Tensor
    rest: Tensor | None


def gated_mixture(state: Tensor, product: Tensor, factors: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """What the first node has been given, (batch, width), and what the others have, (batch, edges - 1, width).

    The arguments are the fields of :class:`Edges`, of which ``product`` may have its last two axes in one.
    """
    gate, sigmoid_of_z = product.sigmoid().chunk(2, -1)
    z = product.chunk(2, -1)[1]
    tanh, relu, sigmoid, same = (one[:, None] for one in factors.unbind(1))
    mixture = torch.addcmul(same * z, tanh, z.tanh())
    mixture = torch.addcmul(torch.addcmul(mixture, relu, z.relu()), sigmoid, sigmoid_of_z)
    own = factors.sum(1)[:, None] * state[:, None]
    out = carried + torch.addcmul(own, gate, mixture - own)
    return out[:, 0], out[:, 1:]


def run_gated_mixture(
    name: Literal["forward", "backward", "second_backward"],
    inputs: Edges,
    outputs: Given | None = None,
    gradients: Given | None = None,
    results: Edges | None = None,
    directions: Edges | None = None,
    further: Given | None = None,
) -> None:
    """Call a kernel, which writes ``outputs`` and ``results`` where they are given.

    Args:
        outputs: Room for the outputs; in the second backward pass for their tangents along ``directions``.
        gradients: Those of the outputs; in the second backward pass those of their tangents.
        results: Room for the gradients of ``inputs``.
        further: The gradients of the outputs themselves in the second backward pass.
    """
    batch, edges, both = inputs.product.shape
    threads = 1 if batch * edges * both < SMALL else torch.get_num_threads()
    tensors = *inputs, *(outputs or PAIR), *(gradients or PAIR), *(results or FOUR), *(directions or FOUR)
    places = [None if one is None else one.data_ptr() for one in (*tensors, *(further or PAIR))]
    settings = _GatedMixture(batch, edges, both // 2, threads, *places)
    library.run(settings, f"gated_mixture_{name}", inputs.product.dtype)
