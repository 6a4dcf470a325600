"""``torch.compile`` by regions: the parts that a network is made of again and again, each kind compiled once.

A whole supernet is too large a graph, and half of it is the same few parts. A region is a module that says so
(``is_region``), or one whose children are single layers: a separable convolution, a block of convolution, batch norm
and activation. Regions of one kind, that is of one type with layers of one shape, share their compiled code, over all
the networks of a process. Only training passes are compiled: an evaluation's batches are few, and of other sizes.

What holds in a region is what a graph can hold: random numbers, whose generators no graph knows, are drawn outside.
"""

from collections.abc import Callable, Iterator
from functools import cache, wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

VARIANTS = 64  # of one kind: sizes of its input, what needs a gradient, whether statistics are tracked
ALL_VARIANTS = 4096


def regions(network: nn.Module) -> Iterator[nn.Module]:
    """The parts of ``network`` that are compiled each as one; none lies in another."""
    children = list(network.children())
    container = isinstance(network, nn.ModuleList | nn.ModuleDict)
    of_layers = children and not container and not any(list(child.children()) for child in children)
    if getattr(network, "is_region", False) or of_layers:
        yield network
        return
    for child in children:
        yield from regions(child)


def compile_regions(network: nn.Module) -> None:
    """From now on ``network`` computes its regions in compiled code while it trains; state and values stay the same."""
    torch._dynamo.config.accumulated_recompile_limit = ALL_VARIANTS
    for module in regions(network):
        module.forward = MethodType(_forward(type(module), repr(module)), module)


@cache
def _forward(kind: type[nn.Module], description: str) -> Callable[..., Any]:
    """The forward pass of the modules of one kind."""
    plain = kind.forward
    compiled = torch.compile(plain, dynamic=False, recompile_limit=VARIANTS, isolate_recompiles=True)

    @wraps(plain)
    def forward(self: nn.Module, *inputs: Tensor) -> Any:
        return compiled(self, *inputs) if self.training and not torch.compiler.is_compiling() else plain(self, *inputs)

    return forward
