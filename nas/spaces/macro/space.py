"""The macro space: a chain of convolution, pooling and dense layers, declared in YAML."""

import itertools
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.macro.choices import MacroChoices, Place
from nas.spaces.macro.layers import Layer, Shape, flattened
from nas.spaces.macro.network import chain, classifier, stem
from nas.spaces.macro.slices import sliced
from nas.spaces.macro.supernet import MacroSupernet
from nas.spaces.own_rows import alpha_name
from nas.spaces.space import BlockCost, Slice, require_settings
from nas.spaces.supernet import Implementation, Supernet


class Macro(MacroChoices):
    """A chain of slots over the given input.

    Args:
        layers: A list of slots: ``{type: conv, filters, kernel_size, dilation, stride, activations, optional}``,
            ``{type: pool, pool_size, kind, stride}``, ``{type: dense, units, activations, optional}`` or
            ``{choose: [...], optional}``. The first layer can be optional where it is a dense one.
        activations: The options of layers that declare none.
        implementation: How the supernet computes: ``plain``, one operation after the other, or ``fast``. Both have the
            same parameters and give the same numbers. Series are always computed plainly.
    """

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], signature: Signature) -> "Macro":
        require_settings(settings, ("layers", "activations"))
        implementation: Implementation = "plain" if signature.rank == 1 else "fast"
        return cls(**settings, implementation=implementation, signature=signature)

    def supernet(self, relaxation: Relaxation) -> "MacroSupernet":
        return MacroSupernet(self, relaxation)

    def network(self, architecture: Architecture) -> nn.Sequential:
        return chain(self, architecture)

    def reduction(self, architecture: Architecture) -> int:
        return math.prod(getattr(layer, "stride", 1) for _, _, layer, _, _ in self.plain_layers(architecture))

    def sliced(self, supernet: Supernet, weights: Mapping[str, Tensor]) -> Slice:
        assert isinstance(supernet, MacroSupernet)
        return sliced(self, supernet, weights)

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        """The mean cost of the networks; exact, by the probability with which each width arrives at each layer."""
        example = next(iter(weights.values()), torch.zeros(()))
        total = example.new_zeros(())
        sides: Shape = self.first_shape[1:]
        if self.signature.categories:
            total = total + cost(f"stem {self.signature}", partial(stem, self), self.input_shape)
        widths = {self.first_shape[0]: example.new_ones(())}  # width to its probability
        for place in self.places:
            if place.slot.is_dense and sides:
                widths = {flattened((width, *sides))[0]: share for width, share in widths.items()}
                sides = ()
            of_types = weights.get(alpha_name(f"{place.name}.type"), example.new_ones(1))
            arriving, widths = widths, {}
            for of_type, (label, layer) in zip(of_types, place.alternatives(), strict=False):
                share, leaving = _layer_cost(place, label, layer, arriving, sides, weights, cost)
                total = total + of_type * share
                for width, likely in leaving.items():
                    widths[width] = widths.get(width, 0) + of_type * likely
            if place.slot.optional:
                for width, likely in arriving.items():
                    widths[width] = widths.get(width, 0) + of_types[-1] * likely
            sides = place.slot.layers[0].output_shape((1, *sides), {"filters": 1, "units": 1})[1:]
        for width, likely in widths.items():
            shape = (width, *sides) if self.signature.head == "dense" else flattened((width, *sides))
            make = partial(classifier, self, shape)
            total = total + likely * cost(f"classifier {shape} {self.outputs}", make, shape)
        return total


def _layer_cost(
    place: Place,
    label: str,
    layer: Layer,
    arriving: Mapping[int, Tensor],
    sides: Shape,
    weights: Mapping[str, Tensor],
    cost: BlockCost,
) -> tuple[Tensor, dict[int, Tensor]]:
    """The mean cost of one alternative, and the probability of each width of its output."""
    joint = torch.stack(list(arriving.values()))  # (widths, options of the first attribute, ...)
    for attribute, options in layer.attributes.items():
        own = weights.get(alpha_name(f"{place.prefix(label)}.{attribute}"), joint.new_ones(len(options)))
        joint = joint.unsqueeze(-1) * own
    costs, outputs = [], []
    for width, *values in itertools.product(arriving, *layer.attributes.values()):
        chosen, shape = dict(zip(layer.attributes, values, strict=True)), (width, *sides)
        costs.append(cost(f"{layer} {chosen} {shape}", partial(layer.plain, shape, chosen), shape))
        outputs.append(layer.output_shape(shape, chosen)[0])
    likely = joint.flatten()
    leaving: dict[int, Tensor] = {}
    for width in dict.fromkeys(outputs):
        leaving[width] = likely[torch.tensor([output == width for output in outputs], device=likely.device)].sum()
    return likely @ likely.new_tensor(costs), leaving
