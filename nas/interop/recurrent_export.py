"""Recurrent networks in a form that can be exported: one step of a memory, and a loop for a cell that reads a whole."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.locked_dropout import Masks
from nas.operations.memory import Remembers
from nas.spaces.recurrent.network import RecurrentCell, RecurrentReader


class OneStep(nn.Module):
    """A token (batch,) and the state before it (batch, width) to the next one's logits and the state behind it."""

    def __init__(self, network: Remembers) -> None:
        super().__init__()
        self.network = network

    def forward(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network.recall(token[:, None], state)
        return found.logits[:, 0], found.state


def loop_in_cells(network: nn.Module) -> None:
    """Let every recurrent cell of ``network`` be exported as a loop.

    Step after step would be as many copies of the cell: minutes for a text, and megabytes.
    """
    for module in network.modules():
        if isinstance(module, RecurrentCell):
            module.forward = partial(_looped, module)  # type: ignore[method-assign]
        if isinstance(module, RecurrentReader) and isinstance(module.embedding, nn.Linear):
            module.embedding.forward = partial(_mapped, module.embedding)  # type: ignore[method-assign]


def _mapped(linear: nn.Linear, x: Tensor) -> Tensor:
    """As the layer; the loop behind one of a single channel cannot be turned into ONNX (PyTorch 2.14)."""
    return F.linear(x, linear.weight, linear.bias) if linear.in_features > 1 else x * linear.weight[:, 0] + linear.bias


def _looped(cell: RecurrentCell, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None = None) -> Tensor:
    """As :meth:`nas.spaces.recurrent.network.RecurrentCell.forward`."""
    from torch._higher_order_ops.scan import scan  # not above: it is no public part of PyTorch, and needed here alone

    def step(before: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
        after = cell.step(one, before, masks, weights)
        return after, after.clone()

    states: Tensor = scan(step, state, x, dim=0)[1]
    return states
