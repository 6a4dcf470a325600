"""A supernet without what given weights leave out: the same numbers at a lower price.

Where a choice takes one option, the others add nothing. A width alone is the first channels of the widest one, a kernel
alone is a smaller convolution, and an alternative of weight 0 need not be computed.
"""

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.spaces.macro.choices import MacroChoices, Place
from nas.spaces.macro.layers import ConvLayer, DenseLayer, Layer, Shape, Slot, flattened, rank_of
from nas.spaces.macro.supernet import MacroSupernet
from nas.spaces.own_rows import alpha_name
from nas.spaces.space import Slice

FIELDS = {"activation": "activations", "kind": "kinds"}  # attribute to field of a layer, where the two differ


def sliced(space: MacroChoices, supernet: MacroSupernet, weights: Mapping[str, Tensor]) -> Slice:
    """See :meth:`nas.spaces.space.SearchSpace.sliced`."""
    places: list[Place] = []
    layers: list[tuple[nn.Module, str, str]] = []  # what a layer is cut out of, its place and its label there
    own: dict[str, Tensor] = {}
    for place in space.places:
        by_type = weights.get(alpha_name(f"{place.name}.type"))
        alone = only_option(by_type)
        if alone is not None and place.slot.types[alone] == "skip":
            continue
        alternatives = place.alternatives() if alone is None else [place.alternatives()[alone]]
        decided = [_decided(place, label, layer, weights) for label, layer in alternatives]
        cut = Place(place.name, Slot(tuple(decided), place.slot.optional and alone is None))
        places.append(cut)
        if alone is None and by_type is not None:
            own[alpha_name(f"{place.name}.type")] = by_type
        for (label, whole), (own_label, layer) in zip(alternatives, cut.alternatives(), strict=True):
            layers.append((supernet.slots[place.name][label], place.name, own_label))  # type: ignore[index]
            for attribute, options in layer.attributes.items():
                name = alpha_name(f"{place.prefix(label)}.{attribute}")
                if len(options) > 1 and len(whole.attributes[attribute]) > 1:
                    own[alpha_name(f"{cut.prefix(own_label)}.{attribute}")] = weights[name]
    smaller = copy(space)
    smaller.places = tuple(places)
    smaller._choices = tuple(choice for place in places for choice in place.choices())
    return Slice(_cut_out(supernet, smaller, layers), own, _multiply_adds(smaller))


def only_option(weights: Tensor | None) -> int | None:
    """The place of the 1 where ``weights`` (options,) are one-hot; None where they are not."""
    values = [] if weights is None else weights.tolist()
    return values.index(1.0) if sorted(values) == [0.0] * (len(values) - 1) + [1.0] else None


def _decided(place: Place, label: str, layer: Layer, weights: Mapping[str, Tensor]) -> Layer:
    """``layer`` with those of its attributes decided that ``weights`` decide."""
    fields: dict[str, Any] = {}
    for attribute, options in layer.attributes.items():
        alone = only_option(weights.get(alpha_name(f"{place.prefix(label)}.{attribute}")))
        if alone is not None:
            fields[FIELDS.get(attribute, attribute)] = (options[alone],)
    return replace(layer, **fields)  # type: ignore[type-var]


def _multiply_adds(space: MacroChoices) -> float:
    """Of one image's forward pass through the supernet: what PyTorch would count, which takes as long as scoring."""
    total = 0
    shape = space.first_shape
    for place in space.places:
        if place.slot.is_dense and rank_of(shape) > 0:
            shape = flattened(shape)
        total += sum(_layer_multiply_adds(layer, shape) for layer in place.slot.layers)
        shape = place.widest(shape)
    return float(total + math.prod(shape) * space.outputs)  # one per place with a dense head, a matrix otherwise


def _layer_multiply_adds(layer: Layer, shape: Shape) -> int:
    """The multiply-adds of a mixed layer for the widest input ``shape``."""
    if isinstance(layer, ConvLayer):
        width, kernels = max(layer.filters), len(layer.kernel_size)
        places = math.prod(layer.output_shape(shape, {"filters": width})[1:])
        kernel = width * shape[0] * max(layer.kernel_size) ** rank_of(shape)
        of_dilation = (places + (kernels if kernels > 1 else 0)) * kernel
        return len(layer.dilation) * of_dilation + _mask_multiply_adds(layer.filters)
    if isinstance(layer, DenseLayer):
        return shape[0] * max(layer.units) + _mask_multiply_adds(layer.units)
    return 0


def _mask_multiply_adds(widths: tuple[int, ...]) -> int:
    return len(widths) * max(widths) if len(widths) > 1 else 0


@torch.no_grad()
def _cut_out(supernet: MacroSupernet, smaller: MacroChoices, layers: list[tuple[nn.Module, str, str]]) -> MacroSupernet:
    """The supernet of ``smaller`` with the first channels of the layers of ``supernet``."""
    with torch.random.fork_rng(devices=[]):
        cut = MacroSupernet(smaller, supernet.relaxation)
    cut.to(supernet.classifier.weight)
    _copy_first(supernet.stem, cut.stem)
    for whole, place, label in layers:
        _copy_first(whole, cut.slots[place][label])  # type: ignore[index]
    _copy_first(supernet.classifier, cut.classifier)
    return cut.train(supernet.training)


def _copy_first(whole: nn.Module, part: nn.Module) -> None:
    """Fill the tensors of ``part`` with the first entries, along every axis, of those of ``whole``."""
    source = whole.state_dict()
    for name, entry in part.state_dict().items():
        entry.copy_(source[name][tuple(slice(side) for side in entry.shape)])
