"""``torch.compile`` by regions: the parts that a network is made of again and again, each kind compiled once.

A whole supernet is too large a graph, and its cells are the same few parts over and over. A region is a module that
says so (``is_region``), or one whose children are single layers: a separable convolution, or a block of convolution,
batch norm and activation. Regions of one kind, of one type with layers of one shape, share their compiled code, over
all the networks of a process; what was compiled is kept on the disk for later runs. Only training passes are compiled:
batches of an evaluation are fewer and of other sizes.

Random numbers are best drawn outside of regions: no graph can hold a generator, and a region that draws from one is
broken off there and taken up again.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn

from nas.surroundings import can_be_written

_KEPT_IN = "TORCHINDUCTOR_CACHE_DIR"

# When the first optimiser is built, compiling or not, PyTorch makes the folder that is named here, or fails where it
# cannot, as in a container without a home. Without a name it takes a folder that does not outlive the machine's next
# start. So the name must be there from the beginning, in runs that compile nothing, too.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "nas" / "compiled"
if _KEPT_IN not in os.environ and can_be_written(str(_CACHE)):
    os.environ[_KEPT_IN] = str(_CACHE)

VARIANTS = 64  # of one kind: sizes of its input, what needs a gradient, whether statistics are tracked


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
    """From now on ``network`` trains with its regions compiled, each at its first use; state and values are the same.

    Whatever differentiates ``network`` twice fails from now on.
    """
    torch._dynamo.config.recompile_limit = VARIANTS
    for module in regions(network):
        module.forward = MethodType(_compiled(type(module).forward, repr(module)), module)


def what_it_takes() -> str:
    """One line for whoever waits."""
    kept = os.environ.get(_KEPT_IN)
    fewer = "" if kept is None else f", fewer where {kept} has what an earlier run compiled"
    return f"the first steps compile: minutes{fewer}"


@cache
def _compiled(forward: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The forward pass of all modules of one ``kind``, which is their description."""

    def region(self: nn.Module, *inputs: Any) -> Any:
        return forward(self, *inputs)

    # Compiled variants are kept by code object, and all that are there are tried in turn: every kind has its own.
    region.__code__ = region.__code__.replace()
    compiled = torch.compile(region, dynamic=False)

    @wraps(forward)
    def chosen(self: nn.Module, *inputs: Any) -> Any:
        training = self.training and not torch.compiler.is_compiling()
        return (compiled if training else forward)(self, *inputs)

    return chosen
