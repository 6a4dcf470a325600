"""The decisions of a Transformer, per layer: ``layer1.mixer``, ``layer1.heads``, ``layer1.ratio``,
``layer1.activation``, and of an optional one ``layer3.type`` (block or skip)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nas.candidate import Architecture, Choice, Domain
from nas.errors import InvalidValue, require
from nas.operations.mixed import ACTIVATIONS
from nas.signature import Head, Signature
from nas.spaces.own_rows import one_hot_weights
from nas.spaces.space import LayerDescription, SearchSpace
from nas.spaces.transformer.network import Chosen, fitting_patch, grid

MIXERS = ("attention", "convolution", "gated")
LARGEST = {"width": 4096, "layers": 64, "heads": 64, "ratios": 16, "kernel_size": 31, "patch": 256}


class TransformerChoices(SearchSpace):
    """See :class:`~nas.spaces.transformer.space.Transformer`."""

    name: ClassVar[str] = "transformer"
    ranks: ClassVar[tuple[int, ...]] = (1, 2)
    reads_tokens: ClassVar[bool] = True
    heads: ClassVar[tuple[Head, ...]] = ("point", "sequence")

    def __init__(
        self,
        width: int = 64,
        layers: int = 4,
        optional: int = 2,
        mixers: Sequence[str] = MIXERS,
        heads: Sequence[int] = (2, 4, 8),
        ratios: Sequence[int] = (1, 2, 4),
        activations: Sequence[str] = ("relu", "gelu", "silu"),
        kernel_size: int = 3,
        patch: int | None = None,
        *,
        signature: Signature,
        ranges: Mapping[str, Domain] | None = None,
    ) -> None:
        super().__init__(signature, ranges)
        for key, value in {"width": width, "layers": layers, "kernel_size": kernel_size}.items():
            _check_number(key, value)
        require(kernel_size % 2 == 1, "kernel_size", kernel_size, "it must be odd")
        good = type(optional) is int and 0 <= optional <= layers
        require(good, "optional", optional, f"it must be a whole number from 0 to layers={layers}")
        _check_options("mixers", mixers, MIXERS)
        _check_options("activations", activations, tuple(ACTIVATIONS))
        for key, options in {"heads": heads, "ratios": ratios}.items():
            _check_options(key, options)
            for value in options:
                _check_number(key, value)
        for value in heads:
            require(width % value == 0, "heads", value, f"it must divide width={width}")
        if patch is not None:
            _check_number("patch", patch)
            require(not signature.is_tokens or patch == 1, "patch", patch, "it must be null or 1: a token is a place")
        self.width, self.layers, self.optional, self.kernel_size = width, layers, optional, kernel_size
        self.patch = fitting_patch(signature) if patch is None else patch
        self._patch = patch
        self.options: dict[str, tuple[Any, ...]] = {
            "mixer": tuple(mixers),
            "heads": tuple(heads) if "attention" in mixers else tuple(heads[:1]),
            "ratio": tuple(ratios),
            "activation": tuple(activations),
        }
        self._choices = tuple(self._made_choices())

    def _made_choices(self) -> list[Choice]:
        found = []
        for name in self.places:
            if self.is_optional(name):
                found.append(Choice(f"{name}.type", ("block", "skip")))
            for attribute, options in self.options.items():
                if len(options) > 1:
                    found.append(Choice(f"{name}.{attribute}", tuple(map(str, options))))
        return found

    @property
    def places(self) -> list[str]:
        """The names of the layers: ``layer1`` is the first."""
        return [f"layer{number}" for number in range(1, self.layers + 1)]

    def is_optional(self, place: str) -> bool:
        """Whether a layer may be skipped: the last ones."""
        return int(place.removeprefix("layer")) > self.layers - self.optional

    @property
    def causal(self) -> bool:
        """Whether a place sees only those before it."""
        return self.signature.head == "sequence"

    @property
    def sides(self) -> tuple[int, ...]:
        """How many places there are along each side of an input."""
        return grid(self.signature, self.patch)

    def settings(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "layers": self.layers,
            "optional": self.optional,
            "mixers": list(self.options["mixer"]),
            "heads": list(self.options["heads"]),
            "ratios": list(self.options["ratio"]),
            "activations": list(self.options["activation"]),
            "kernel_size": self.kernel_size,
            "patch": self._patch,
        }

    def chosen(self, architecture: Architecture) -> dict[str, Chosen]:
        """What ``architecture`` has at each layer that it does not skip, by the layer's name.

        Raises:
            InvalidValue: It is no architecture of this space.
        """
        architecture.check(self.choices)
        found = {}
        for name in self.places:
            if architecture.get(f"{name}.type", "block") == "skip":
                continue
            values = {}
            for attribute, options in self.options.items():
                by_label = {str(option): option for option in options}
                values[attribute] = by_label[architecture.get(f"{name}.{attribute}", str(options[0]))]
            found[name] = Chosen(**values)
        return found

    def conditions(self) -> dict[str, tuple[str, str]]:
        found = {}
        for choice in self.choices:
            name, _, attribute = choice.name.partition(".")
            if attribute == "heads" and len(self.options["mixer"]) > 1:
                found[choice.name] = (f"{name}.mixer", "attention")
            elif attribute != "type" and self.is_optional(name):
                found[choice.name] = (f"{name}.type", "block")
        return found

    def attributes(self) -> frozenset[str]:
        return frozenset(choice.name for choice in self.choices if not choice.name.endswith((".type", ".mixer")))

    def doubts(self, architecture: Architecture) -> list[str]:
        kept = self.chosen(architecture).values()
        alone = not kept and self.causal
        return ["it skips every layer: a token is predicted from the last one alone"] if alone else []

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        kept, described = self.chosen(architecture), []
        for name in self.places:
            if name not in kept:
                described.append(LayerDescription("skip", "skip", ""))
                continue
            one = kept[name]
            label = f"attention x{one.heads}" if one.mixer == "attention" else f"{one.mixer} {self.kernel_size}"
            described.append(LayerDescription(one.mixer, label, f"{one.ratio * self.width} {one.activation}"))
        return described

    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        return one_hot_weights(self.choices, architecture)


def _check_number(key: str, value: object) -> None:
    good = type(value) is int and 1 <= value <= LARGEST[key]
    require(good, key, value, f"it must be a whole number from 1 to {LARGEST[key]}")


def _check_options(key: str, options: object, known: Sequence[str] | None = None) -> None:
    if not isinstance(options, Sequence) or isinstance(options, str) or not options:
        raise InvalidValue(key, options, "it must be a list of one or more options")
    require(len(set(options)) == len(options), key, list(options), "no option may be there twice")
    for one in options if known is not None else ():
        require(one in (known or ()), key, one, f"it must be one of {', '.join(known or ())}")
