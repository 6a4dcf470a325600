"""The stand-alone Transformer, and the parts that the search network shares with it.

Inside, places are (batch, places, width): tokens, steps of a series or patches of an image in reading order. A layer is
``x + mixer(norm(x))`` and then ``x + feed_forward(norm(x))``, the norm in front (Xiong et al., 2020). Places behind the
end of a padded text are not seen by the others.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.operations.attention import Attention
from nas.operations.embedding import known_tokens, mean_over
from nas.operations.mixed import ACTIVATIONS, CONVOLUTIONS
from nas.operations.stochastic import Dropout, DropPath, LayerDropout
from nas.signature import Signature

INITIAL_DEVIATION = 0.02  # of embeddings and positions at the start, as GPT-2 has it
MOST_PLACES = 64  # of a series or an image, where the size of patches is not given


def fitting_patch(signature: Signature) -> int:
    """The side of the smallest patches that cut an input into at most :data:`MOST_PLACES`; a token is a place."""
    if signature.is_tokens:
        return 1
    patch = 1
    while math.prod(-(-side // patch) for side in signature.input_shape[1:]) > MOST_PLACES:
        patch += 1
    return patch


def grid(signature: Signature, patch: int) -> tuple[int, ...]:
    """How many places there are along each side of an input."""
    sides = signature.input_shape if signature.is_tokens else signature.input_shape[1:]
    return tuple(-(-side // patch) for side in sides)


class Stem(nn.Module):
    """Inputs to places: a vector per token, or a linear map of each patch, plus a learned position."""

    def __init__(self, signature: Signature, width: int, patch: int) -> None:
        super().__init__()
        self.tokens, self.patch = signature.is_tokens, patch
        self.may_be_padded = signature.is_tokens and signature.head == "point"
        if self.tokens:
            self.embedding: nn.Embedding | nn.Conv1d | nn.Conv2d = nn.Embedding(signature.categories[0], width)
            nn.init.normal_(self.embedding.weight, std=INITIAL_DEVIATION)
        else:
            self.embedding = CONVOLUTIONS[signature.rank](signature.input_shape[0], width, patch, patch)
        self.positions = nn.Parameter(torch.empty(math.prod(grid(signature, patch)), width))
        nn.init.normal_(self.positions, std=INITIAL_DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        if self.tokens:  # a text may be shorter
            return self.embedding(x) + self.positions[: x.shape[1]]
        padding = [amount for side in reversed(x.shape[2:]) for amount in (0, -side % self.patch)]
        return self.embedding(F.pad(x, padding)).flatten(2).transpose(1, 2) + self.positions

    def known(self, x: Tensor) -> Tensor | None:
        """bool (batch, places), where a text that may be padded has tokens; None where every place counts."""
        return known_tokens(x) if self.may_be_padded else None


class Convolution(nn.Module):
    """A convolution over the places next to each other, of a causal network over those before only.

    Args:
        sides: How many places an image has along its sides; of tokens and series (L,).
        gated: Whether half of the channels, through a sigmoid, are a gate for the others (Dauphin et al., 2017).
    """

    def __init__(self, width: int, kernel_size: int, sides: tuple[int, ...], causal: bool, gated: bool) -> None:
        super().__init__()
        self.sides, self.gated = sides, gated
        self.convolution = CONVOLUTIONS[len(sides)](width, 2 * width if gated else width, kernel_size)
        before = kernel_size - 1 if causal else kernel_size // 2
        self.padding = [before, kernel_size - 1 - before] * len(sides)

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        places = (x if known is None else x * known[..., None]).transpose(1, 2)
        if len(self.sides) > 1:
            places = places.unflatten(2, self.sides)
        y = self.convolution(F.pad(places, self.padding))
        if self.gated:
            y, gate = y.chunk(2, 1)
            y = y * gate.sigmoid()
        return y.flatten(2).transpose(1, 2)


class FeedForward(nn.Module):
    """Two matrices with an activation between them, the same at every place."""

    def __init__(self, width: int, ratio: int, activation: str) -> None:
        super().__init__()
        self.inner = nn.Linear(width, ratio * width)
        self.activation = ACTIVATIONS[activation]()
        self.outer = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.activation(self.inner(x)))


class Layer(nn.Module):
    """``x + mixer(norm(x))``, then ``x + feed_forward(norm(x))``, with dropout and drop path on both branches.

    Those of the search network take the weights of their options.
    """

    is_region = True  # of nas.device.compilation

    def __init__(self, width: int, mixer: nn.Module, feed_forward: nn.Module) -> None:
        super().__init__()
        self.mixer_norm, self.mixer, self.mixer_noise = nn.LayerNorm(width), mixer, noise()
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(width), feed_forward
        self.feed_forward_noise = noise()

    def forward(self, x: Tensor, known: Tensor | None = None, *weights: Mapping[str, Tensor]) -> Tensor:
        x = x + self.mixer_noise(self.mixer(self.mixer_norm(x), known, *weights))
        return x + self.feed_forward_noise(self.feed_forward(self.feed_forward_norm(x), *weights))


def noise() -> nn.Sequential:
    """What a branch is dropped by: the common rate, the layer's own, and the whole branch."""
    return nn.Sequential(OrderedDict(dropout=Dropout(), own=LayerDropout(), path=DropPath()))


class Head(nn.Module):
    """A prediction per place, or one of the mean over the places that are known."""

    def __init__(self, signature: Signature, width: int) -> None:
        super().__init__()
        self.per_place = signature.head == "sequence"
        self.norm, self.dropout = nn.LayerNorm(width), Dropout()
        self.classifier = nn.Linear(width, signature.outputs)

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        return self.classifier(self.dropout(x if self.per_place else mean_over(x, known)))


@dataclass(frozen=True)
class Chosen:
    """What an architecture has at one layer.

    Attributes:
        mixer: ``attention``, ``convolution`` or ``gated``.
        heads: Those of attention; the others have none.
        ratio: The feed-forward part's hidden units, as a multiple of the width.
        activation: That between its matrices.
    """

    mixer: str
    heads: int
    ratio: int
    activation: str


class TransformerNetwork(nn.Module):
    """Tokens (batch, length) to logits (batch, length, outputs), or inputs to (batch, outputs).

    Args:
        signature: What goes in and what comes out.
        width: That of the residual stream.
        patch: The side of the patches.
        kernel_size: That of convolutions.
        layers: What there is, by name.

    Attributes:
        dynamic: Axes of the inputs, beside the batch, that may be shorter: name and largest size.
    """

    def __init__(
        self, signature: Signature, width: int, patch: int, kernel_size: int, layers: Mapping[str, Chosen]
    ) -> None:
        super().__init__()
        sides, causal = grid(signature, patch), signature.head == "sequence"
        made = {}
        for name, one in layers.items():
            mixing = mixer(one.mixer, width, one.heads, kernel_size, sides, causal)
            made[name] = Layer(width, mixing, FeedForward(width, one.ratio, one.activation))
        self.stem = Stem(signature, width, patch)
        self.layers = nn.ModuleDict(made)
        self.head = Head(signature, width)
        self.dynamic = {1: ("length", signature.input_shape[0])} if signature.is_tokens else {}

    def forward(self, x: Tensor) -> Tensor:
        known = self.stem.known(x)
        x = self.stem(x)
        for layer in self.layers.values():
            x = layer(x, known)
        return self.head(x, known)


def mixer(name: str, width: int, heads: int, kernel_size: int, sides: tuple[int, ...], causal: bool) -> nn.Module:
    """The plain mixer called ``name``; ``heads`` are those of attention, ``kernel_size`` is that of the others."""
    if name == "attention":
        return Attention(width, heads, causal)
    return Convolution(width, kernel_size, sides, causal, gated=name == "gated")
