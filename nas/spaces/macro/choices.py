"""The decisions of a chain of layers, and the layers that an architecture uses.

Decisions are named after their place: ``layer1.filters``, ``layer4.type`` (conv, pool or skip),
``layer4.conv.kernel_size``. An attribute with a single option is no decision.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from nas.candidate import Architecture, Choice, Domain
from nas.errors import require
from nas.operations.embedding import embedding_size
from nas.signature import Head, Signature
from nas.spaces.fitting import fitting_space
from nas.spaces.macro.layers import Layer, Shape, Slot, flattened, parse_slots, rank_of
from nas.spaces.own_rows import one_hot_weights
from nas.spaces.space import LayerDescription, SearchSpace
from nas.spaces.supernet import Implementation, checked_implementation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A slot at its place in the chain: ``name`` is ``layer1`` for the first."""

    name: str
    slot: Slot

    def prefix(self, label: str) -> str:
        """The first part of the names of an alternative's attributes; a lone layer needs no label."""
        return self.name if len(self.slot.layers) == 1 else f"{self.name}.{label}"

    def alternatives(self) -> list[tuple[str, Layer]]:
        return list(zip(self.slot.types, self.slot.layers, strict=False))

    def choices(self) -> list[Choice]:
        types = self.slot.types
        found = [Choice(f"{self.name}.type", types)] if len(types) > 1 else []
        for label, layer in self.alternatives():
            for attribute, options in layer.attributes.items():
                if len(options) > 1:
                    found.append(Choice(f"{self.prefix(label)}.{attribute}", tuple(map(str, options))))
        return found

    def chosen_type(self, architecture: Mapping[str, str]) -> str:
        return architecture.get(f"{self.name}.type", self.slot.types[0])

    def chosen(self, label: str, layer: Layer, architecture: Mapping[str, str]) -> dict[str, Any]:
        """The attributes of one alternative as ``architecture`` has them."""
        values = {}
        for attribute, options in layer.attributes.items():
            by_label = {str(option): option for option in options}
            default = str(options[0])
            values[attribute] = by_label[architecture.get(f"{self.prefix(label)}.{attribute}", default)]
        return values

    def widest(self, shape: Shape) -> Shape:
        """The shape with room for the output of every option, given the widest input ``shape``."""
        shapes = [shape] if self.slot.optional else []
        for layer in self.slot.layers:
            widths = {name: max(options) for name, options in layer.attributes.items() if name in ("filters", "units")}
            shapes.append(layer.output_shape(shape, widths))
        return (max(one[0] for one in shapes), *shapes[-1][1:])


def _as_lists(value: Any) -> Any:
    """``value`` as JSON has it, with plain lists and dicts at every depth."""
    if isinstance(value, Mapping):
        return {str(name): _as_lists(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_lists(entry) for entry in value]
    return value


class MacroChoices(SearchSpace):
    """A chain of slots; see :class:`~nas.spaces.macro.space.Macro`."""

    name: ClassVar[str] = "macro"
    ranks: ClassVar[tuple[int, ...]] = (2, 1, 0)
    heads: ClassVar[tuple[Head, ...]] = ("point", "dense")

    def __init__(
        self,
        layers: Sequence[Any],
        activations: Sequence[str],
        implementation: Implementation = "fast",
        *,
        signature: Signature,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(signature, ranges)
        asked = checked_implementation(implementation)
        self.implementation: Implementation = "plain" if signature.rank == 1 else asked
        if asked != self.implementation:
            log.info("the chain computes series one operation after the other: space.implementation=fast is for images")
        slots = parse_slots(layers, activations)
        self._refuse_layers_that_do_not_fit(slots)
        self._settings = {"layers": _as_lists(layers), "activations": _as_lists(activations)}
        self.places = tuple(Place(f"layer{number}", slot) for number, slot in enumerate(slots, start=1))
        self._choices = tuple(choice for place in self.places for choice in place.choices())

    def _refuse_layers_that_do_not_fit(self, slots: Sequence[Slot]) -> None:
        kinds = [", ".join(layer.kind for layer in slot.layers) for slot in slots]
        data = f"and the data are {self.signature.in_words()}: take space={fitting_space(self.signature)}"
        for index, slot in enumerate(slots):
            of_rows = slot.is_dense or self.signature.rank > 0
            require(of_rows, f"layers[{index}].type", kinds[index], f"rows of numbers take dense layers only, {data}")
            if self.signature.head == "dense":
                allowed = f"it leaves no places to predict for, {data}"
                require(slot.keeps_places, f"layers[{index}].type", kinds[index], allowed)
                allowed = f"it must be 1 where there is a prediction per place, {data}"
                require(slot.stride == 1, f"layers[{index}].stride", slot.stride, allowed)

    @property
    def first_shape(self) -> Shape:
        """The shape that the first layer sees: the input's, where categorical columns have become vectors."""
        categories = self.signature.categories
        columns, *sides = self.input_shape
        return (columns - len(categories) + sum(map(embedding_size, categories)), *sides)

    def settings(self) -> dict[str, Any]:
        return self._settings

    def plain_layers(self, architecture: Architecture) -> list[tuple[Place, str, Layer, dict[str, Any], Shape]]:
        """The layers that ``architecture`` uses: place, label, layer, chosen attributes and input shape."""
        architecture.check(self.choices)
        shape = self.first_shape
        used = []
        for place in self.places:
            if place.slot.is_dense and rank_of(shape) > 0:
                shape = flattened(shape)
            label = place.chosen_type(architecture)
            if label == "skip":
                continue
            layer = dict(place.alternatives())[label]
            chosen = place.chosen(label, layer, architecture)
            used.append((place, label, layer, chosen, shape))
            shape = layer.output_shape(shape, chosen)
        return used

    def conditions(self) -> dict[str, tuple[str, str]]:
        return {
            f"{place.prefix(label)}.{attribute}": (f"{place.name}.type", label)
            for place in self.places
            if len(place.slot.types) > 1
            for label, layer in place.alternatives()
            for attribute, options in layer.attributes.items()
            if len(options) > 1
        }

    def attributes(self) -> frozenset[str]:
        return frozenset(choice.name for choice in self.choices if not choice.name.endswith(".type"))

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        described = {place.name: LayerDescription("skip", "skip", "") for place in self.places}
        for place, _, layer, chosen, shape in self.plain_layers(architecture):
            described[place.name] = LayerDescription(layer.kind, *layer.in_words(shape, chosen))
        return list(described.values())

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        return one_hot_weights(self.choices, architecture)
