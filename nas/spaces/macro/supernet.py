"""The search network of the macro space: a chain of slots, each a weighted sum of its layers and their options.

Widths are mixed by channel masks (FBNetV2, Wan et al., 2020), so that every option of a slot gives the same shape; see
:mod:`nas.operations.mixed`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import require
from nas.operations.fast import library
from nas.operations.fast.chain import FastSlot
from nas.operations.mixed import MixedSlot
from nas.operations.stochastic import Dropout
from nas.relaxations.relaxation import Relaxation
from nas.spaces.macro.choices import MacroChoices, Place
from nas.spaces.macro.layers import flattened, rank_of
from nas.spaces.macro.network import classifier, stem
from nas.spaces.own_rows import OwnRowsSupernet, alpha_name


def check(space: MacroChoices, relaxation: Relaxation) -> None:
    """Refuse a relaxation whose weights these layers cannot take.

    Raises:
        InvalidValue: The key is a part of ``relaxation``.
    """
    mixed = "the options of a layer are mixed in one tensor here: cells can compute one operation alone"
    require(not relaxation.sampled, "relaxation.sampled", True, mixed)
    widths = [choice.name for choice in space.choices if choice.name.endswith((".filters", ".units"))]
    name = type(relaxation).__name__
    adds_up = (
        f"the mask of {', '.join(widths[:1])} adds up the weights of its widths, and those of {name} do not make 1"
    )
    require(relaxation.on_simplex or not widths, "relaxation", name, adds_up)


class MacroSupernet(OwnRowsSupernet):
    """Every option of every slot, weighted by the relaxation; one alpha of shape (options,) per choice."""

    space: MacroChoices

    def __init__(self, space: MacroChoices, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        check(space, relaxation)
        self.space = space
        self.stem = stem(space)
        self.slots = nn.ModuleDict()
        make = FastSlot if space.implementation == "fast" else MixedSlot
        shape = space.first_shape
        for place in space.places:
            if place.slot.is_dense and rank_of(shape) > 0:
                self.sides, shape = shape[1:], flattened(shape)
            mixed = {label: layer.mixed(shape, space.implementation) for label, layer in place.alternatives()}
            shape = place.widest(shape)
            self.slots[place.name] = make(mixed, shape[0], place.slot.optional)
        if rank_of(shape) > 0:
            self.sides = shape[1:]  # of the map that is flattened
        self.dropout = Dropout()
        self.classifier = classifier(space, shape)
        self.add_alphas()

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Inputs (batch, *input_shape) to predictions (batch, outputs), or (batch, outputs, *sides) of a dense head.

        The sides may be others than the space's.
        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        x = self.stem(x)
        if library.usable(x):  # without the kernels, second derivatives are slower with the channels innermost
            x = self.laid_out(x, self.space.implementation)
        for place in self.space.places:
            if place.slot.is_dense:
                x = self._flattened(x)
            x = self._mixed(place, x, weights)
        if self.space.signature.head == "point":
            x = self._flattened(x)
        return self.classifier(self.dropout(x))

    def _flattened(self, x: Tensor) -> Tensor:
        """(batch, features); a map (batch, channels, ...) of other sides than usual is first brought to these."""
        if x.dim() > 2 and tuple(x.shape[2:]) != self.sides:
            x = F.interpolate(x, self.sides)  # the nearest pixels
        return x.flatten(1)

    def _mixed(self, place: Place, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        own = {}
        for label, layer in place.alternatives():
            names = {attribute: alpha_name(f"{place.prefix(label)}.{attribute}") for attribute in layer.attributes}
            own[label] = {attribute: weights[name] for attribute, name in names.items() if name in weights}
        mixed: Tensor = self.slots[place.name](x, weights.get(alpha_name(f"{place.name}.type")), own)
        return mixed

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        state = {f"stem.{name}": entry.clone() for name, entry in self.stem.state_dict().items()}
        shape = self.space.first_shape
        for place, label, layer, chosen, arriving in self.space.plain_layers(architecture):
            mixed = self.slots[place.name][label]  # type: ignore[index]
            for name, entry in layer.plain_state(mixed, arriving, chosen).items():
                state[f"{place.name}.{name}"] = entry.detach().clone()
            shape = layer.output_shape(arriving, chosen)
        features = shape[0] if self.space.signature.head == "dense" else flattened(shape)[0]
        for name, entry in self.classifier.state_dict().items():
            state[f"classifier.{name}"] = (entry[:, :features] if name == "weight" else entry).clone()
        return state
