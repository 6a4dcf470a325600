"""The Transformer search network: every option of every layer, weighted by the relaxation.

All numbers of heads share queries, keys and values, all feed-forward ratios one pair of matrices whose hidden units are
masked, and mixers are added up in front of the residual sum. A layer that may be skipped is weighed against its input.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.errors import require
from nas.operations.attention import MixedAttention
from nas.operations.mixed import MixedActivation, WidthMask
from nas.relaxations.relaxation import Relaxation
from nas.spaces.own_rows import OwnRowsSupernet, alpha_name
from nas.spaces.transformer.choices import TransformerChoices
from nas.spaces.transformer.network import FeedForward, Head, Layer, Stem, mixer

Weights = Mapping[str, Tensor]


def check(space: TransformerChoices, relaxation: Relaxation) -> None:
    """Refuse a relaxation whose weights these layers cannot take.

    Raises:
        InvalidValue: The key is a part of ``relaxation``.
    """
    mixed = "the options of a layer are mixed in one tensor here: cells can compute one operation alone"
    require(not relaxation.sampled, "relaxation.sampled", True, mixed)
    name = type(relaxation).__name__
    adds_up = f"the mask of the feed-forward ratio adds up weights, and those of {name} do not make 1"
    require(relaxation.on_simplex or len(space.options["ratio"]) == 1, "relaxation", name, adds_up)


class MixedMixer(nn.Module):
    """The weighted sum of the mixers, (batch, places, width) to the same."""

    def __init__(self, space: TransformerChoices) -> None:
        super().__init__()
        self.options = nn.ModuleDict()
        for name in space.options["mixer"]:
            if name == "attention":
                self.options[name] = MixedAttention(space.width, space.options["heads"], space.causal)
            else:
                self.options[name] = mixer(name, space.width, 1, space.kernel_size, space.sides, space.causal)

    def forward(self, x: Tensor, known: Tensor | None, weights: Weights) -> Tensor:
        of_heads = {"attention": (weights.get("heads"),)}
        found = [option(x, known, *of_heads.get(name, ())) for name, option in self.options.items()]
        if "mixer" not in weights:
            return found[0]
        return sum((weight * one for weight, one in zip(weights["mixer"], found, strict=True)), x.new_zeros(()))


class MixedFeedForward(FeedForward):
    """The feed-forward part of the largest ratio: activations are mixed, and the hidden units that a smaller ratio
    lacks are multiplied by the weights of the ratios that have them."""

    def __init__(self, width: int, ratios: Sequence[int], activations: Sequence[str]) -> None:
        super().__init__(width, max(ratios), activations[0])
        self.activation = MixedActivation(activations)
        self.mask = WidthMask([ratio * width for ratio in ratios])

    def forward(self, x: Tensor, weights: Weights = MappingProxyType({})) -> Tensor:
        hidden = self.activation(self.inner(x), weights.get("activation"))
        if "ratio" in weights:
            hidden = hidden * (weights["ratio"] @ self.mask.masks)
        return self.outer(hidden)


class TransformerSupernet(OwnRowsSupernet):
    """One alpha of shape (options,) per choice."""

    space: TransformerChoices

    def __init__(self, space: TransformerChoices, relaxation: Relaxation) -> None:
        super().__init__(relaxation)
        check(space, relaxation)
        self.space = space
        self.stem = Stem(space.signature, space.width, space.patch)
        self.layers = nn.ModuleDict()
        for name in space.places:
            feed_forward = MixedFeedForward(space.width, space.options["ratio"], space.options["activation"])
            self.layers[name] = Layer(space.width, MixedMixer(space), feed_forward)
        self.head = Head(space.signature, space.width)
        self.add_alphas()

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Tokens (batch, length) to logits (batch, length, outputs), or inputs to predictions (batch, outputs).

        ``weights`` stand in for the relaxed alphas, those of :meth:`architecture_weights` for example.
        """
        weights = self.operation_weights() if weights is None else weights
        known = self.stem.known(x)
        x = self.stem(x)
        for name, layer in self.layers.items():
            names = {attribute: alpha_name(f"{name}.{attribute}") for attribute in self.space.options}
            own = {attribute: weights[one] for attribute, one in names.items() if one in weights}
            after, of_type = layer(x, known, own), weights.get(alpha_name(f"{name}.type"))
            x = after if of_type is None else of_type[0] * after + of_type[1] * x
        return self.head(x, known)

    def expect_first_derivatives_only(self) -> None:
        for module in self.modules():
            if isinstance(module, MixedAttention):
                module.once = True

    @torch.no_grad()
    def inherited_state(self, architecture: Architecture) -> dict[str, Tensor]:
        own, state = self.state_dict(), {}
        kept = self.space.chosen(architecture)
        for name, entry in own.items():
            part, _, rest = name.partition(".")
            place, _, inner = rest.partition(".")
            if part in ("stem", "head"):
                state[name] = entry.clone()
            elif part == "layers" and place in kept:
                one = kept[place]
                other = any(inner.startswith(f"mixer.options.{option}.") for option in self.space.options["mixer"])
                if inner.startswith(f"mixer.options.{one.mixer}."):
                    state[name.replace(f"options.{one.mixer}.", "")] = entry.clone()
                elif not other:
                    state[name] = _cut(inner, entry, one.ratio * self.space.width).clone()
        return state


def _cut(name: str, entry: Tensor, hidden: int) -> Tensor:
    """``entry`` of a layer with the first ``hidden`` units of its feed-forward part."""
    if name.startswith("feed_forward.inner."):
        return entry[:hidden]
    return entry[:, :hidden] if name == "feed_forward.outer.weight" else entry
