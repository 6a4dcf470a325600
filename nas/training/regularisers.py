"""Setting the rates of a network's noisy layers from outside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nas.operations.stochastic import Dropout, DropPath, StochasticLayer


def set_dropout(network: nn.Module, rate: Tensor | float) -> None:
    """Give every dropout layer of ``network`` this rate; a tensor stays in the graph (supernets only)."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.rate = rate
        elif isinstance(module, nn.Dropout):
            module.p = float(rate)


def set_drop_path(network: nn.Module, rate: Tensor | float) -> None:
    """Give every drop-path layer of ``network`` this rate."""
    for module in network.modules():
        if isinstance(module, DropPath):
            module.rate = rate


def set_noise_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every noisy layer draw from ``generator``."""
    for module in network.modules():
        if isinstance(module, StochasticLayer):
            module.generator = generator


@contextmanager
def without_noise(network: nn.Module) -> Iterator[None]:
    """Switch the noisy layers off and leave everything else, batch norm above all, in the mode it is in."""
    kinds = (StochasticLayer, nn.Dropout)
    noisy = [module for module in network.modules() if isinstance(module, kinds) and module.training]
    for module in noisy:
        module.training = False
    try:
        yield
    finally:
        for module in noisy:
            module.training = True
