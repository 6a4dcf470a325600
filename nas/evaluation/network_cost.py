"""What a network costs: parameters, multiply-adds and measured latency.

Convention of this package: a forward and backward pass costs three forward passes, since the backward pass computes a
gradient for each layer's input and one for its weights.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from copy import copy

import torch
from torch import nn

from nas.errors import require
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import SearchSpace

TRAINING_PASS = 3  # forward passes that a forward and backward pass is worth
LATENCY_BATCH, LATENCY_REPEATS = 64, 15

NetworkCost = Callable[[nn.Module, tuple[int, ...]], float]


def count_parameters(network: nn.Module, input_shape: tuple[int, ...]) -> float:
    """How many numbers ``network`` learns."""
    return float(sum(parameter.numel() for parameter in network.parameters()))


@torch.no_grad()
def count_multiply_adds(network: nn.Module, input_shape: tuple[int, ...], *further: object) -> float:
    """The multiply-adds of convolutions and matrix products in one forward pass of one input (without its batch).

    Counted by PyTorch's own counter in evaluation mode; a network's buffers and modes stay as they are. ``further``
    are the arguments of the forward pass behind the images.
    """
    from torch.utils.flop_counter import FlopCounterMode

    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            network(_images(network, 1, input_shape), *further)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return counter.get_total_flops() / 2  # it counts a multiplication and an addition as two


def supernet_multiply_adds(space: SearchSpace, relaxation: Relaxation) -> float:
    """Of one forward pass of one image through the supernet of ``space``.

    It is the plain implementation that is counted: the fast one gives the same numbers by kernels that PyTorch's
    counter does not see.
    """
    plain = copy(space)
    plain.implementation = "plain"  # type: ignore[attr-defined]  # of those spaces that have several
    with torch.device("meta"):
        supernet = plain.supernet(relaxation)
        weights = {name: alpha.detach() for name, alpha in supernet.alpha.items()}
        return count_multiply_adds(supernet, space.input_shape, weights)


@torch.no_grad()
def measure_latency(network: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Seconds that one image takes in evaluation mode: the median of repeated batches, on one thread on the CPU."""
    modes = {module: module.training for module in network.modules()}
    threads = torch.get_num_threads()
    images = _images(network, LATENCY_BATCH, input_shape)
    torch.set_num_threads(1)
    network.eval()
    try:
        seconds = [_timed(network, images) for _ in range(LATENCY_REPEATS + 3)][3:]  # the first ones warm up
    finally:
        torch.set_num_threads(threads)
        for module, mode in modes.items():
            module.training = mode
    return statistics.median(seconds) / LATENCY_BATCH


def _timed(network: nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    network(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - began


def _images(network: nn.Module, count: int, input_shape: tuple[int, ...]) -> torch.Tensor:
    example = next(itertools.chain(network.parameters(), network.buffers()), torch.zeros(()))
    return torch.zeros(count, *input_shape, dtype=example.dtype, device=example.device)


NETWORK_COSTS: dict[str, NetworkCost] = {
    "parameters": count_parameters,
    "multiply_adds": count_multiply_adds,
    "latency": measure_latency,
}


def network_cost(name: str) -> NetworkCost:
    """The function that measures the cost called ``name``.

    Raises:
        InvalidValue: There is none of this name.
    """
    require(name in NETWORK_COSTS, name, name, f"a cost must be one of {', '.join(NETWORK_COSTS)}")
    return NETWORK_COSTS[name]


class BlockCosts:
    """The costs called ``name`` of parts of networks, each found once.

    ``known`` is plain and belongs into a checkpoint: a latency that is measured again is another number.
    """

    def __init__(self, name: str) -> None:
        self.measure = network_cost(name)
        self.on_meta = self.measure is not measure_latency  # shapes are enough to count with
        self.known: dict[str, float] = {}

    def __call__(self, key: str, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> float:
        if key not in self.known:
            with torch.random.fork_rng(devices=[]), torch.device("meta" if self.on_meta else "cpu"):
                self.known[key] = self.measure(make(), shape)
        return self.known[key]
