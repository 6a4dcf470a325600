"""Dropout and drop path, whose rates may be learned, noise as an operation, and the functions that set the rates.

A rate that is a number draws a hard mask. A rate that is a tensor is being learned: the mask is then the concrete
relaxation (Gal et al., 2017, "Concrete Dropout", eq. 5), so that the loss is differentiable in the rate.
In evaluation mode, or with a rate of 0, both layers are the identity. The noise has a generator of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

CONCRETE_TEMPERATURE = 0.1


def keep_mask(shape: tuple[int, ...], rate: Tensor | float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """A mask of ``shape`` that is 0 with probability ``rate``, scaled by ``1 / (1 - rate)`` to keep the mean."""
    noise = torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
    if not isinstance(rate, Tensor):
        return (noise >= rate).to(like.dtype) / (1 - rate)
    rate = rate.to(like.dtype)
    tiny = torch.finfo(like.dtype).eps
    noise, inner = noise.clamp(tiny, 1 - tiny), rate.clamp(tiny, 1 - tiny)  # at 0 the logarithm has no gradient
    logit = torch.log(inner) - torch.log1p(-inner) + torch.log(noise) - torch.log1p(-noise)
    dropped = torch.sigmoid(logit / CONCRETE_TEMPERATURE)
    return (1 - dropped) / (1 - rate)


class StochasticLayer(nn.Module):
    """A layer that is noisy while training; ``rate`` and ``generator`` are set from outside."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate: Tensor | float = rate
        self.generator: torch.Generator | None = None

    def is_identity(self) -> bool:
        return not self.training or (not isinstance(self.rate, Tensor) and self.rate == 0)


class Dropout(StochasticLayer):
    """Drops single elements of its input."""

    def forward(self, x: Tensor) -> Tensor:
        if self.is_identity():
            return x
        return x * keep_mask(tuple(x.shape), self.rate, x, self.generator)


class LayerDropout(Dropout):
    """Dropout behind one layer of a chain, with a rate of that layer's own."""


class DropPath(StochasticLayer):
    """Drops whole samples of a path (Larsson et al., 2017); its input is (batch, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.is_identity():
            return x
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * keep_mask(shape, self.rate, x, self.generator)


class GaussianNoise(StochasticLayer):
    """The operation ``noise`` of S4 (Zela et al., 2020): noise from N(0, 1) of its input's shape, in every mode.

    It belongs to the architecture and is no regularisation, so that no rate and no mode turns it off.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.drawn: Tensor | None = None  # what the next forward pass takes instead of a draw of its own

    def draw(self, x: Tensor) -> Tensor:
        """Noise for an input ``x`` (batch, channels, H, W): (batch, channels, ceil(H / stride), ceil(W / stride))."""
        shape = (*x.shape[:2], *(-(-side // self.stride) for side in x.shape[2:]))
        return torch.randn(shape, generator=self.generator, device=x.device, dtype=x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        noise, self.drawn = self.draw(x) if self.drawn is None else self.drawn, None
        return x[:, :, :: self.stride, :: self.stride] * 0.0 + noise  # as in Zero, the layers before stay in the graph


LAYER_DROPOUT = "dropout_"  # followed by a layer's name: the name of the rate of its own dropout
_noisy_layers: WeakKeyDictionary[nn.Module, list[nn.Module]] = WeakKeyDictionary()


def noisy_layers(network: nn.Module) -> list[nn.Module]:
    """Every dropout and drop-path layer of ``network``, looked up once because rates are set at every step."""
    if network not in _noisy_layers:
        kinds = (StochasticLayer, nn.Dropout)
        _noisy_layers[network] = [module for module in network.modules() if isinstance(module, kinds)]
    return _noisy_layers[network]


def refresh_noisy_layers(network: nn.Module) -> None:
    """Have :func:`noisy_layers` look again: some were added to ``network`` after rates were set in it."""
    _noisy_layers.pop(network, None)


def set_dropouts(network: nn.Module, values: Mapping[str, float]) -> None:
    """Set the rates among ``values`` in ``network``: ``dropout``, and ``dropout_layer2`` for the one behind a layer."""
    set_dropout(network, values.get("dropout", 0.0))
    for name, rate in values.items():
        if name.startswith(LAYER_DROPOUT):
            set_layer_dropout(network, name.removeprefix(LAYER_DROPOUT), rate)


def set_dropout(network: nn.Module, rate: Tensor | float) -> None:
    """Set the rate of every dropout layer of ``network``; a tensor stays in the graph (supernets only).

    Layers with a rate of their own (:func:`set_layer_dropout`) keep it.
    """
    for module in noisy_layers(network):
        if isinstance(module, Dropout) and not isinstance(module, LayerDropout):
            module.rate = rate
        elif isinstance(module, nn.Dropout):
            module.p = float(rate)


def layer_dropouts(network: nn.Module, layer: str) -> list[LayerDropout]:
    """The dropout behind ``layer`` (``layer2``); none where a found network skips the layer."""
    named = network.named_modules()
    return [module for name, module in named if isinstance(module, LayerDropout) and layer in name.split(".")]


def set_layer_dropout(network: nn.Module, layer: str, rate: Tensor | float) -> None:
    """Set the rate of the dropout behind ``layer``; a found network's plain layer gets a dropout where it has none."""
    found = layer_dropouts(network, layer)
    plain = dict(network.named_modules()).get(layer)
    if not found and isinstance(plain, nn.Sequential) and rate:
        found = [LayerDropout()]
        refresh_noisy_layers(network)
        plain.add_module("dropout", found[0])
    for module in found:
        module.rate = rate


def set_drop_path(network: nn.Module, rate: Tensor | float) -> None:
    """Set the rate of every drop-path layer of ``network``."""
    for module in noisy_layers(network):
        if isinstance(module, DropPath):
            module.rate = rate


def set_noise_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every noisy layer draw from ``generator``."""
    for module in noisy_layers(network):
        if isinstance(module, StochasticLayer):
            module.generator = generator


@contextmanager
def switched_off(modules: Sequence[nn.Module], switch: str) -> Iterator[None]:
    """A context in which the attribute ``switch`` of ``modules`` is False; it is True before and afterwards."""
    for module in modules:
        setattr(module, switch, False)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, switch, True)


def without_noise(network: nn.Module) -> AbstractContextManager[None]:
    """A context in which the noisy layers are off; everything else, batch norm above all, stays in its mode."""
    return switched_off([module for module in noisy_layers(network) if module.training], "training")
