"""What a network costs in use: parameters, multiply-adds and measured latency.

All three are of evaluation mode, without the auxiliary head, which only the training has.

A convention of this package: a forward and backward pass costs three forward passes, because the backward pass computes
one gradient for each layer's input and one for its weights.
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
from nas.signature import Signature
from nas.spaces.space import SearchSpace
from nas.training.metrics import modes_kept

TRAINING_PASS = 3  # the cost of a forward and backward pass, in forward passes
AUXILIARY = "auxiliary_head_parameters"  # what the training has besides, where a result has "parameters"
LATENCY_BATCH, LATENCY_REPEATS = 64, 15

Inputs = Signature | tuple[int, ...]
"""What goes into a network or a part of one: its signature, or the shape of one input of numbers, without the batch."""
NetworkCost = Callable[[nn.Module, Inputs], float]


def count_parameters(network: nn.Module, inputs: Inputs) -> float:
    """The number of learnable parameters of ``network``, without those of its auxiliary head."""
    return float(sum(parameter.numel() for parameter in as_used(network).parameters()))


def as_used(network: nn.Module) -> nn.Module:
    """``network`` without its auxiliary head, sharing all else with it; ``network`` itself where it has none.

    A part that works in training mode only is called ``auxiliary_head`` in every space.
    """
    if getattr(network, "auxiliary_head", None) is None:
        return network
    used = copy(network)
    used._modules = {**network._modules, "auxiliary_head": None}
    return used


@torch.no_grad()
def count_multiply_adds(network: nn.Module, inputs: Inputs, *further: object) -> float:
    """The multiply-adds of convolutions and matrix products in the forward pass of one input.

    PyTorch's own counter counts them, in evaluation mode; the network's buffers and modes stay as they are.

    Args:
        network: Any network.
        inputs: What goes in.
        further: Arguments of the forward pass behind the inputs.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with modes_kept(network), FlopCounterMode(display=False) as counter:
        network.eval()
        network(_zeros(network, 1, inputs), *further)
    return counter.get_total_flops() / 2  # it counts a multiplication and an addition as two


def supernet_multiply_adds(
    space: SearchSpace, relaxation: Relaxation, input_shape: tuple[int, ...] | None = None
) -> float:
    """The multiply-adds of one input's forward pass through the supernet of ``space``.

    The plain implementation is counted: the fast one computes the same by kernels that PyTorch's counter does not see.
    Where the relaxation samples one option per edge, it is the mean over samples of an alpha that prefers none.

    Args:
        input_shape: The shape of the input where it is another one than that of ``space``.
    """
    inputs = space.signature if input_shape is None else input_shape
    plain = copy(space)
    plain.implementation = "plain"  # type: ignore[attr-defined]  # of those spaces that have several
    with torch.device("meta"):
        supernet = plain.supernet(relaxation)
    alphas = {name: alpha.detach() for name, alpha in supernet.alpha.items()}
    if not relaxation.sampled:
        return count_multiply_adds(supernet, inputs, alphas)
    options = max(alpha.shape[-1] for alpha in alphas.values())
    samples = ({name: _one_hot(alpha, option) for name, alpha in alphas.items()} for option in range(options))
    return statistics.fmean(count_multiply_adds(supernet, inputs, one) for one in samples)


def _one_hot(alpha: torch.Tensor, option: int) -> torch.Tensor:
    """Weights shaped as ``alpha`` that take the same ``option`` in every row."""
    weights = torch.zeros(alpha.shape)
    weights[..., option % alpha.shape[-1]] = 1.0
    return weights


@torch.no_grad()
def measure_latency(network: nn.Module, inputs: Inputs) -> float:
    """The seconds that one input takes in evaluation mode: the median of repeated batches, on one thread on the CPU."""
    threads = torch.get_num_threads()
    batch = _zeros(network, LATENCY_BATCH, inputs)
    torch.set_num_threads(1)
    try:
        with modes_kept(network):
            network.eval()
            seconds = [_timed(network, batch) for _ in range(LATENCY_REPEATS + 3)][3:]  # the first ones warm up
    finally:
        torch.set_num_threads(threads)
    return statistics.median(seconds) / LATENCY_BATCH


def _timed(network: nn.Module, batch: torch.Tensor) -> float:
    began = time.perf_counter()
    network(batch)
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - began


def _zeros(network: nn.Module, count: int, inputs: Inputs) -> torch.Tensor:
    example = next(itertools.chain(network.parameters(), network.buffers()), torch.zeros(()))
    return inputs.example(count, example) if isinstance(inputs, Signature) else example.new_zeros(count, *inputs)


NETWORK_COSTS: dict[str, NetworkCost] = {
    "parameters": count_parameters,
    "multiply_adds": count_multiply_adds,
    "latency": measure_latency,
}


def network_cost(name: str) -> NetworkCost:
    """The function that measures the cost called ``name``.

    Raises:
        InvalidValue: No cost has this name.
    """
    require(name in NETWORK_COSTS, name, name, f"a cost must be one of {', '.join(NETWORK_COSTS)}")
    return NETWORK_COSTS[name]


class BlockCosts:
    """The costs of parts of networks, each counted or measured once.

    Args:
        name: One of :data:`NETWORK_COSTS`.

    Attributes:
        known: The costs by part. They are plain values and belong into a checkpoint, because a latency that is measured
            again is another number.
    """

    def __init__(self, name: str) -> None:
        self.measure = network_cost(name)
        self.on_meta = self.measure is not measure_latency  # shapes are enough to count with
        self.known: dict[str, float] = {}

    def __call__(self, key: str, make: Callable[[], nn.Module], shape: Inputs) -> float:
        if key not in self.known:
            with torch.random.fork_rng(devices=[]), torch.device("meta" if self.on_meta else "cpu"):
                self.known[key] = self.measure(make(), shape)
        return self.known[key]
