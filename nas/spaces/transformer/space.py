"""The Transformer space: per layer the mixer, the heads, the feed-forward part, and whether it is there."""

import itertools
import math
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.own_rows import alpha_name
from nas.spaces.space import BlockCost, namespace_of, require_settings
from nas.spaces.transformer.choices import TransformerChoices
from nas.spaces.transformer.network import FeedForward, Head, Stem, TransformerNetwork, mixer
from nas.spaces.transformer.supernet import TransformerSupernet


class Transformer(TransformerChoices):
    """A causal decoder where every token gets a prediction, an encoder with the mean over places elsewhere.

    Args:
        width: Of the residual stream, the same everywhere.
        layers: How many there are at most.
        optional: How many of them, the last ones, may be skipped: depth is learned.
        mixers: The options of what mixes places: ``attention``, ``convolution``, ``gated`` (a gated convolution).
        heads: The options of attention; each divides ``width``.
        ratios: The options of the feed-forward part's hidden units, as multiples of ``width``.
        activations: The options between its matrices.
        kernel_size: Of both convolutions, odd.
        patch: The side of the patches that series and images are cut into; null takes the smallest that gives at most
            64 of them.

    Raises:
        InvalidValue: A setting is of the wrong type or out of bounds, or the data are of another kind.
    """

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], signature: Signature) -> "Transformer":
        names = ("width", "layers", "optional", "mixers", "heads", "ratios", "activations", "kernel_size", "patch")
        require_settings(settings, names)
        return cls(**settings, signature=signature)

    def supernet(self, relaxation: Relaxation) -> TransformerSupernet:
        return TransformerSupernet(self, relaxation)

    def network(self, architecture: Architecture) -> TransformerNetwork:
        return TransformerNetwork(self.signature, self.width, self.patch, self.kernel_size, self.chosen(architecture))

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        return {
            "signature": namespace_of(self.signature),
            "width": self.width,
            "patch": self.patch,
            "kernel_size": self.kernel_size,
            "layers": {name: SimpleNamespace(**vars(one)) for name, one in self.chosen(architecture).items()},
        }

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        example = next(iter(weights.values()), torch.zeros(()))
        one, width = self.signature, self.width
        inside = (math.prod(self.sides), width)  # places, and what each of them has
        key = f"{width} {self.sides} {self.kernel_size} {self.causal}"
        total = example.new_tensor(cost(f"stem {one} {self.patch} {key}", partial(Stem, one, width, self.patch), one))
        total = total + cost(f"head {one} {key}", partial(Head, one, width), inside)
        norms = 2 * cost(f"norm {key}", partial(nn.LayerNorm, width), inside)

        def mixing(kind: str, heads: int) -> float:
            make = partial(mixer, kind, width, heads, self.kernel_size, self.sides, self.causal)
            return cost(f"{kind} {heads if kind == 'attention' else ''} {key}", make, inside)

        for name in self.places:
            likely = {
                attribute: weights.get(alpha_name(f"{name}.{attribute}"), example.new_ones(1))
                for attribute in self.options
            }
            mixed = example.new_zeros(())
            for share, kind in zip(likely["mixer"], self.options["mixer"], strict=True):
                options = self.options["heads"] if kind == "attention" else (1,)
                costs = example.new_tensor([mixing(kind, heads) for heads in options])
                mixed = mixed + share * (likely["heads"] @ costs if kind == "attention" else costs[0])
            pairs = list(itertools.product(self.options["ratio"], self.options["activation"]))
            fed = [cost(f"fed {pair} {key}", partial(FeedForward, width, *pair), inside) for pair in pairs]
            of_pair = torch.outer(likely["ratio"], likely["activation"]).flatten()
            there = weights[alpha_name(f"{name}.type")][0] if self.is_optional(name) else 1.0
            total = total + there * (norms + mixed + of_pair @ example.new_tensor(fed))
        return total
