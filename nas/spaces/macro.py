"""The macro space: a chain of convolution, pooling and dense layers, declared in YAML.

Decisions are named after their place: ``layer1.filters``, ``layer4.type`` (conv, pool or skip),
``layer4.conv.kernel_size``. An attribute with a single option is no decision.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Choice, Domain
from nas.configuration import InvalidValue, require
from nas.operations.batched import library
from nas.operations.batched.chain import FastSlot
from nas.operations.mixed import MixedSlot
from nas.operations.stochastic import Dropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.layers import Layer, Shape, Slot, parse_slots
from nas.spaces.space import BlockCost, LayerDescription, SearchSpace
from nas.spaces.supernet import Implementation, Supernet, checked_implementation


@dataclass(frozen=True)
class Place:
    """A slot at its place in the chain: ``name`` is ``layer1`` for the first."""

    name: str
    slot: Slot

    def prefix(self, label: str) -> str:
        """Where the attributes of the alternative ``label`` are named; a lone layer needs no label."""
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
        """The shape that holds the output of every option, given the widest input ``shape``."""
        shapes = [shape] if self.slot.optional else []
        for layer in self.slot.layers:
            widths = {name: max(options) for name, options in layer.attributes.items() if name in ("filters", "units")}
            shapes.append(layer.output_shape(shape, widths))
        return (max(one[0] for one in shapes), *shapes[-1][1:])


def flattened(shape: Shape) -> Shape:
    size = 1
    for side in shape:
        size *= side
    return (size,)


class Macro(SearchSpace):
    """A chain of slots over the given input.

    Args:
        layers: A list of slots: ``{type: conv, filters, kernel_size, stride, activations, optional}``,
            ``{type: pool, pool_size, kind, stride}``, ``{type: dense, units, activations, optional}`` or
            ``{choose: [...], optional}``.
        activations: What layers that name none choose from.
        implementation: How the supernet computes: ``plain``, one operation after the other, or ``fast``. Both have the
            same parameters and give the same numbers.
    """

    name: ClassVar[str] = "macro"

    def __init__(
        self,
        layers: Sequence[Any],
        activations: Sequence[str],
        implementation: Implementation = "fast",
        *,
        input_shape: Sequence[int],
        classes: int,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(input_shape, classes, ranges)
        self.implementation = checked_implementation(implementation)
        slots = parse_slots(layers, activations)
        self._settings = {"layers": _as_lists(layers), "activations": _as_lists(activations)}
        self.places = tuple(Place(f"layer{number}", slot) for number, slot in enumerate(slots, start=1))
        self._choices = tuple(choice for place in self.places for choice in place.choices())

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._choices

    def settings(self) -> dict[str, Any]:
        return self._settings

    def supernet(self, relaxation: Relaxation) -> "MacroSupernet":
        return MacroSupernet(self, relaxation)

    def plain_layers(self, architecture: Architecture) -> list[tuple[Place, str, Layer, dict[str, Any], Shape]]:
        """The layers that ``architecture`` uses: place, label, layer, chosen attributes and input shape."""
        architecture.check(self.choices)
        shape: Shape = self.input_shape
        used = []
        for place in self.places:
            if place.slot.is_dense and len(shape) == 3:
                shape = flattened(shape)
            label = place.chosen_type(architecture)
            if label == "skip":
                continue
            layer = dict(place.alternatives())[label]
            chosen = place.chosen(label, layer, architecture)
            used.append((place, label, layer, chosen, shape))
            shape = layer.output_shape(shape, chosen)
        return used

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        used = {place.name: (layer, chosen) for place, _, layer, chosen, _ in self.plain_layers(architecture)}
        described = []
        for place in self.places:
            if place.name in used:
                layer, chosen = used[place.name]
                described.append(LayerDescription(layer.kind, *layer.in_words(chosen)))
            else:
                described.append(LayerDescription("skip", "skip", ""))
        return described

    def network(self, architecture: Architecture) -> nn.Sequential:
        network = nn.Sequential()
        shape: Shape = self.input_shape
        for place, _, layer, chosen, input_shape in self.plain_layers(architecture):
            if len(input_shape) == 1 and len(shape) == 3:
                network.add_module("flatten", nn.Flatten())
            network.add_module(place.name, layer.plain(input_shape, chosen))
            shape = layer.output_shape(input_shape, chosen)
        if len(shape) == 3:
            network.add_module("flatten", nn.Flatten())
        network.add_module("dropout", nn.Dropout(0.0))
        network.add_module("classifier", nn.Linear(flattened(shape)[0], self.classes))
        return network

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        architecture.check(self.choices)
        weights = {}
        for choice in self.choices:
            weights[_key(choice.name)] = torch.zeros(len(choice.options))
            weights[_key(choice.name)][choice.options.index(architecture[choice.name])] = 1
        return weights

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        """Exact for independent choices: follows how likely each width is to arrive at each layer."""
        example = next(iter(weights.values()), torch.zeros(()))
        total = example.new_zeros(())
        sides: Shape = self.input_shape[1:]
        widths = {self.input_shape[0]: example.new_ones(())}  # how likely each width is
        for place in self.places:
            if place.slot.is_dense and sides:
                widths = {flattened((width, *sides))[0]: share for width, share in widths.items()}
                sides = ()
            of_types = weights.get(_key(f"{place.name}.type"), example.new_ones(1))
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
            features = flattened((width, *sides))[0]
            make = partial(nn.Linear, features, self.classes)
            total = total + likely * cost(f"classifier {features} {self.classes}", make, (features,))
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
    """The mean cost of one alternative, and how likely it makes each width of its output."""
    joint = torch.stack(list(arriving.values()))  # (widths, options of the first attribute, ...)
    for attribute, options in layer.attributes.items():
        own = weights.get(_key(f"{place.prefix(label)}.{attribute}"), joint.new_ones(len(options)))
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


def _as_lists(value: Any) -> Any:
    """Plain lists and dicts all the way down, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(name): _as_lists(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_lists(entry) for entry in value]
    return value


class MacroSupernet(Supernet):
    """Every option of every slot, weighted by the relaxation; one alpha of shape (options,) per choice."""

    def __init__(self, space: Macro, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        self.space = space
        self.slots = nn.ModuleDict()
        make = FastSlot if space.implementation == "fast" else MixedSlot
        shape: Shape = space.input_shape
        for place in space.places:
            if place.slot.is_dense and len(shape) == 3:
                shape = flattened(shape)
            mixed = {label: layer.mixed(shape, space.implementation) for label, layer in place.alternatives()}
            shape = place.widest(shape)
            self.slots[place.name] = make(mixed, shape[0], place.slot.optional)
        self.dropout = Dropout()
        self.classifier = nn.Linear(flattened(shape)[0], space.classes)
        for choice in space.choices:
            self.alpha[_key(choice.name)] = nn.Parameter(1e-3 * torch.randn(len(choice.options)))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """(batch, channels, height, width) to logits (batch, classes).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        if library.usable(x):  # without the kernels, second derivatives are slower with the channels innermost
            x = self.laid_out(x, self.space.implementation)
        for place in self.space.places:
            if place.slot.is_dense and x.dim() == 4:
                x = x.flatten(1)
            x = self._mixed(place, x, weights)
        return self.classifier(self.dropout(x.flatten(1)))

    def _mixed(self, place: Place, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        own = {}
        for label, layer in place.alternatives():
            names = {attribute: _key(f"{place.prefix(label)}.{attribute}") for attribute in layer.attributes}
            own[label] = {attribute: weights[name] for attribute, name in names.items() if name in weights}
        mixed: Tensor = self.slots[place.name](x, weights.get(_key(f"{place.name}.type")), own)
        return mixed

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(choice.name, choice.options) for choice in self.space.choices if _key(choice.name) == name]

    @torch.no_grad()
    def discretise(self) -> Architecture:
        options = {}
        for choice in self.space.choices:
            alpha = self.alpha[_key(choice.name)]
            if not bool(torch.isfinite(alpha).all()):
                raise FloatingPointError(f"alpha of {choice.name} is not finite: {alpha.tolist()}")
            options[choice.name] = choice.options[int(self.relaxation.probabilities(alpha).argmax())]
        return Architecture(self.space.name, options)

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        weights = self.space.architecture_weights(architecture)
        return {name: weight.to(self.alpha[name]) for name, weight in weights.items()}

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        features = flattened(self.space.input_shape)[0]
        for place, label, layer, chosen, shape in self.space.plain_layers(architecture):
            mixed = self.slots[place.name][label]  # type: ignore[index]
            for name, entry in layer.plain_state(mixed, shape, chosen).items():
                state[f"{place.name}.{name}"] = entry.detach().clone()
            features = flattened(layer.output_shape(shape, chosen))[0]
        state["classifier.weight"] = self.classifier.weight[:, :features].detach().clone()
        state["classifier.bias"] = self.classifier.bias.detach().clone()
        return state


def _key(choice: str) -> str:
    """A choice's name as a parameter's name, which may hold no dot."""
    return choice.replace(".", "-")


def from_description(settings: object, input_shape: Sequence[int], classes: int) -> Macro:
    """The space whose :meth:`Macro.settings` were ``settings``; see ``space_from_description``."""
    if not isinstance(settings, Mapping):
        raise InvalidValue("", settings, "it must be an object")
    require(set(settings) == {"layers", "activations"}, "", sorted(settings), "it must hold layers and activations")
    return Macro(settings["layers"], settings["activations"], input_shape=input_shape, classes=classes)
