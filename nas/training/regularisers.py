"""Setting the rates of a network's noisy layers from outside."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nas.operations.stochastic import Dropout, DropPath, LayerDropout, StochasticLayer

LAYER_DROPOUT = "dropout_"  # before a layer's name: what the rate of its own dropout is called
_noisy_layers: WeakKeyDictionary[nn.Module, list[nn.Module]] = WeakKeyDictionary()


def noisy_layers(network: nn.Module) -> list[nn.Module]:
    """Every dropout and drop-path layer of ``network``, looked up once: rates are set at every step."""
    if network not in _noisy_layers:
        kinds = (StochasticLayer, nn.Dropout)
        _noisy_layers[network] = [module for module in network.modules() if isinstance(module, kinds)]
    return _noisy_layers[network]


def set_dropouts(network: nn.Module, values: Mapping[str, float]) -> None:
    """Give ``network`` the rates among ``values``: ``dropout``, and ``dropout_layer2`` for one behind a layer."""
    set_dropout(network, values.get("dropout", 0.0))
    for name, rate in values.items():
        if name.startswith(LAYER_DROPOUT):
            set_layer_dropout(network, name.removeprefix(LAYER_DROPOUT), rate)


def set_dropout(network: nn.Module, rate: Tensor | float) -> None:
    """Give every dropout layer of ``network`` this rate; a tensor stays in the graph (supernets only).

    Those with a rate of their own (:func:`set_layer_dropout`) are not among them.
    """
    for module in noisy_layers(network):
        if isinstance(module, Dropout) and not isinstance(module, LayerDropout):
            module.rate = rate
        elif isinstance(module, nn.Dropout):
            module.p = float(rate)


def layer_dropouts(network: nn.Module, layer: str) -> list[LayerDropout]:
    """The dropout behind ``layer`` (``layer2``); none where a found network has left the layer out."""
    named = network.named_modules()
    return [module for name, module in named if isinstance(module, LayerDropout) and layer in name.split(".")]


def set_layer_dropout(network: nn.Module, layer: str, rate: Tensor | float) -> None:
    """Give the dropout behind ``layer`` this rate; the plain layer of a found network gets one where it needs it."""
    found = layer_dropouts(network, layer)
    plain = dict(network.named_modules()).get(layer)
    if not found and isinstance(plain, nn.Sequential) and rate:
        found = [LayerDropout()]
        _noisy_layers.pop(network, None)
        plain.add_module("dropout", found[0])
    for module in found:
        module.rate = rate


def set_drop_path(network: nn.Module, rate: Tensor | float) -> None:
    """Give every drop-path layer of ``network`` this rate."""
    for module in noisy_layers(network):
        if isinstance(module, DropPath):
            module.rate = rate


def set_noise_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every noisy layer draw from ``generator``."""
    for module in noisy_layers(network):
        if isinstance(module, StochasticLayer):
            module.generator = generator


@contextmanager
def without_noise(network: nn.Module) -> Iterator[None]:
    """Switch the noisy layers off and leave everything else, batch norm above all, in the mode it is in."""
    noisy = [module for module in noisy_layers(network) if module.training]
    for module in noisy:
        module.training = False
    try:
        yield
    finally:
        for module in noisy:
            module.training = True
