"""The layers of the macro space as a user declares them: what is open to choice, its plain and its mixed module."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol, TypeGuard

from torch import Tensor, nn

from nas.errors import InvalidValue, require
from nas.operations.fast.chain import FastConvolution, FastPooling
from nas.operations.mixed import (
    ACTIVATIONS,
    NORMALISATIONS,
    MixedConvolution,
    MixedDense,
    MixedGlobalPooling,
    MixedPooling,
    convolution,
    global_pooling,
    kernel_name,
    pooling,
)
from nas.spaces.supernet import Implementation

LARGEST_WIDTH = 65_536
LARGEST_DILATION = 64
Shape = tuple[int, ...]  # (channels, height, width) or (channels, length) before flattening, (features,) after


def flattened(shape: Shape) -> Shape:
    """``(features,)``, what ``nn.Flatten`` makes of a sample of ``shape``."""
    return (math.prod(shape),)


def rank_of(shape: Shape) -> int:
    """How many dimensions a place has: 2 of an image, 1 of a series, 0 of features."""
    return len(shape) - 1


class Layer(Protocol):
    """One declared layer. ``attributes`` are its open decisions: name to options; options are shown as text."""

    kind: ClassVar[str]

    @property
    def attributes(self) -> dict[str, Sequence[Any]]: ...

    def output_shape(self, shape: Shape, chosen: Mapping[str, Any]) -> Shape:
        """The shape after this layer with its attributes ``chosen``."""
        ...

    def mixed(self, shape: Shape, implementation: Implementation) -> nn.Module:
        """The mixed operation over every option, for the widest input ``shape``."""
        ...

    def plain(self, shape: Shape, chosen: Mapping[str, Any]) -> nn.Module:
        """The plain module with its attributes ``chosen``."""
        ...

    def in_words(self, shape: Shape, chosen: Mapping[str, Any]) -> tuple[str, str]:
        """A label and a detail for readers."""
        ...

    def plain_state(self, mixed: nn.Module, shape: Shape, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        """The plain module's state, cut out of the mixed operation's."""
        ...


@dataclass(frozen=True)
class ConvLayer:
    """Convolution, batch norm, activation."""

    kind: ClassVar[str] = "conv"
    filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: int
    activations: tuple[str, ...]
    dilation: tuple[int, ...] = (1,)

    @property
    def attributes(self) -> dict[str, Sequence[Any]]:
        dilation = {} if self.dilation == (1,) else {"dilation": self.dilation}
        return {"filters": self.filters, "kernel_size": self.kernel_size, **dilation, "activation": self.activations}

    def output_shape(self, shape: Shape, chosen: Mapping[str, Any]) -> Shape:
        return (chosen["filters"], *(-(-side // self.stride) for side in shape[1:]))

    def mixed(self, shape: Shape, implementation: Implementation) -> nn.Module:
        make = FastConvolution if implementation == "fast" else MixedConvolution
        options = self.filters, self.kernel_size, self.stride, self.activations, self.dilation
        return make(shape[0], *options, rank_of(shape))

    def plain(self, shape: Shape, chosen: Mapping[str, Any]) -> nn.Module:
        filters, rank = chosen["filters"], rank_of(shape)
        size = chosen["kernel_size"], self.stride, chosen.get("dilation", 1)
        block = nn.Sequential()
        block.add_module("convolution", convolution(shape[0], filters, *size, rank))
        block.add_module("normalisation", NORMALISATIONS[rank](filters))
        block.add_module("activation", ACTIVATIONS[chosen["activation"]]())
        return block

    def in_words(self, shape: Shape, chosen: Mapping[str, Any]) -> tuple[str, str]:
        size = f"conv {_window(chosen['kernel_size'], shape)}" + (f" /{self.stride}" if self.stride > 1 else "")
        apart = f" dilation {chosen['dilation']}" if chosen.get("dilation", 1) > 1 else ""
        return size + apart, f"{chosen['filters']} {chosen['activation']}"

    def plain_state(self, mixed: nn.Module, shape: Shape, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        assert isinstance(mixed, MixedConvolution)
        kernel = mixed.kernels[kernel_name(chosen["kernel_size"], chosen.get("dilation", 1))].weight
        assert isinstance(kernel, Tensor)
        state = {"convolution.weight": kernel[: chosen["filters"], : shape[0]]}
        return state | _cut_normalisation(mixed.normalisation, chosen["filters"])


@dataclass(frozen=True)
class PoolLayer:
    """Max or average pooling."""

    kind: ClassVar[str] = "pool"
    pool_size: tuple[int, ...]
    kinds: tuple[str, ...]
    stride: int

    @property
    def attributes(self) -> dict[str, Sequence[Any]]:
        return {"pool_size": self.pool_size, "kind": self.kinds}

    def output_shape(self, shape: Shape, chosen: Mapping[str, Any]) -> Shape:
        return (shape[0], *(-(-side // self.stride) for side in shape[1:]))

    def mixed(self, shape: Shape, implementation: Implementation) -> nn.Module:
        make = FastPooling if implementation == "fast" else MixedPooling
        return make(self.pool_size, self.kinds, self.stride, rank_of(shape))

    def plain(self, shape: Shape, chosen: Mapping[str, Any]) -> nn.Module:
        return pooling(chosen["kind"], chosen["pool_size"], self.stride, rank_of(shape))

    def in_words(self, shape: Shape, chosen: Mapping[str, Any]) -> tuple[str, str]:
        return f"{chosen['kind']} pool", f"{_window(chosen['pool_size'], shape)} /{self.stride}"

    def plain_state(self, mixed: nn.Module, shape: Shape, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class GlobalPoolLayer:
    """The maximum or the average of every channel over all places: inputs of any length become features."""

    kind: ClassVar[str] = "global_pool"
    kinds: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, Sequence[Any]]:
        return {"kind": self.kinds}

    def output_shape(self, shape: Shape, chosen: Mapping[str, Any]) -> Shape:
        return (shape[0],)

    def mixed(self, shape: Shape, implementation: Implementation) -> nn.Module:
        return MixedGlobalPooling(self.kinds, rank_of(shape))

    def plain(self, shape: Shape, chosen: Mapping[str, Any]) -> nn.Module:
        return global_pooling(chosen["kind"], rank_of(shape))

    def in_words(self, shape: Shape, chosen: Mapping[str, Any]) -> tuple[str, str]:
        return f"{chosen['kind']} pool", "over all"

    def plain_state(self, mixed: nn.Module, shape: Shape, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class DenseLayer:
    """Linear, batch norm, activation; its input is flattened."""

    kind: ClassVar[str] = "dense"
    units: tuple[int, ...]
    activations: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, Sequence[Any]]:
        return {"units": self.units, "activation": self.activations}

    def output_shape(self, shape: Shape, chosen: Mapping[str, Any]) -> Shape:
        return (chosen["units"],)

    def mixed(self, shape: Shape, implementation: Implementation) -> nn.Module:
        return MixedDense(shape[0], self.units, self.activations)

    def plain(self, shape: Shape, chosen: Mapping[str, Any]) -> nn.Module:
        block = nn.Sequential()
        block.add_module("linear", nn.Linear(shape[0], chosen["units"], bias=False))
        block.add_module("normalisation", nn.BatchNorm1d(chosen["units"]))
        block.add_module("activation", ACTIVATIONS[chosen["activation"]]())
        return block

    def in_words(self, shape: Shape, chosen: Mapping[str, Any]) -> tuple[str, str]:
        return "dense", f"{chosen['units']} {chosen['activation']}"

    def plain_state(self, mixed: nn.Module, shape: Shape, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        assert isinstance(mixed, MixedDense)
        state = {"linear.weight": mixed.linear.weight[: chosen["units"], : shape[0]]}
        return state | _cut_normalisation(mixed.normalisation, chosen["units"])


def _window(side: int, shape: Shape) -> str:
    """``3x3`` in images, ``3`` in series."""
    return "x".join([str(side)] * rank_of(shape))


def _cut_normalisation(normalisation: nn.Module, width: int) -> dict[str, Tensor]:
    return {
        f"normalisation.{name}": entry[:width] if entry.dim() else entry
        for name, entry in normalisation.state_dict().items()
    }


@dataclass(frozen=True)
class Slot:
    """One place in the chain: its alternatives, and whether it may be skipped."""

    layers: tuple[Layer, ...]
    optional: bool

    @property
    def types(self) -> tuple[str, ...]:
        """A label per alternative, ``skip`` last; a second layer of one kind is called ``conv_2``."""
        labels: list[str] = []
        for layer in self.layers:
            same = sum(1 for earlier in self.layers[: len(labels)] if earlier.kind == layer.kind)
            labels.append(layer.kind if same == 0 else f"{layer.kind}_{same + 1}")
        return (*labels, "skip") if self.optional else tuple(labels)

    @property
    def is_dense(self) -> bool:
        return self.layers[0].kind == "dense"

    @property
    def keeps_places(self) -> bool:
        """Whether its output has places where its input has them."""
        return self.layers[0].kind in ("conv", "pool")

    @property
    def stride(self) -> int:
        """That of all of its layers."""
        return getattr(self.layers[0], "stride", 1)


def parse_slots(layers: object, activations: object) -> tuple[Slot, ...]:
    """The declared ``layers``, checked.

    Raises:
        InvalidValue: Something in them is unknown, missing, of the wrong type or impossible; the key says where.
    """
    default = _names(activations, "activations", ACTIVATIONS)
    if not _is_list(layers):
        raise InvalidValue("layers", layers, "it must be a list of layers")
    require(0 < len(layers) <= 1000, "layers", list(layers), "it must have 1 to 1000 layers")
    slots = tuple(_slot(entry, f"layers[{index}]", default) for index, entry in enumerate(layers))
    good = slots[0].is_dense or not slots[0].optional
    require(good, "layers[0].optional", True, "the first layer cannot be skipped, unless it is a dense one")
    for index, (before, slot) in enumerate(pairwise(slots), start=1):
        allowed = f"no convolution or pooling can follow a {before.layers[0].kind} layer"
        kinds = ", ".join(layer.kind for layer in slot.layers)
        where = "choose" if "choose" in layers[index] else "type"
        require(slot.is_dense or before.keeps_places, f"layers[{index}].{where}", kinds, allowed)
    return slots


def _slot(entry: object, key: str, activations: tuple[str, ...]) -> Slot:
    if not isinstance(entry, Mapping):
        raise InvalidValue(key, entry, "a layer must be a group of settings with a type, or choose")
    if "choose" not in entry:
        layer, optional = _layer(entry, key, activations)
        return _checked(Slot((layer,), optional), key)
    _refuse_other_keys(entry, key, {"choose", "optional"})
    alternatives = entry["choose"]
    if not _is_list(alternatives) or not 1 <= len(alternatives) <= 100:
        raise InvalidValue(f"{key}.choose", alternatives, "it must be a list of 1 to 100 layers")
    parsed = [_layer(one, f"{key}.choose[{i}]", activations) for i, one in enumerate(alternatives)]
    for i, (_, one_optional) in enumerate(parsed):
        require(not one_optional, f"{key}.choose[{i}].optional", True, f"say {key}.optional=true for the whole slot")
    return _checked(Slot(tuple(layer for layer, _ in parsed), _flag(entry, "optional", key)), key)


def _checked(slot: Slot, key: str) -> Slot:
    kinds = [layer.kind for layer in slot.layers]
    mixes = "dense" in kinds and len(set(kinds)) > 1
    require(not mixes, f"{key}.choose", kinds, "dense layers cannot be mixed with convolution or pooling")
    over_all = "global_pool" in kinds
    require(not over_all or len(kinds) == 1, f"{key}.choose", kinds, "a global_pool layer has its place alone")
    require(not over_all or not slot.optional, f"{key}.optional", True, "a global_pool layer cannot be skipped")
    strides = [getattr(layer, "stride", 1) for layer in slot.layers]
    require(len(set(strides)) == 1, f"{key}.choose", kinds, f"all must have one stride, these have {strides}")
    keeps = strides[0] == 1
    require(keeps or not slot.optional, f"{key}.optional", True, f"only stride 1 can be skipped, it has {strides[0]}")
    return slot


def _layer(entry: object, key: str, activations: tuple[str, ...]) -> tuple[Layer, bool]:
    if not isinstance(entry, Mapping):
        raise InvalidValue(key, entry, "a layer must be a group of settings with a type")
    kind = entry.get("type")
    optional = _flag(entry, "optional", key)
    if kind == "pool":
        _refuse_other_keys(entry, key, {"type", "pool_size", "kind", "stride", "optional"})
        stride = _stride(entry, key, default=2)
        sizes = _numbers(entry, "pool_size", key, odd=stride == 1, largest=99)
        return PoolLayer(sizes, _names(entry.get("kind", "max"), f"{key}.kind", ("max", "average")), stride), optional
    if kind == "global_pool":
        _refuse_other_keys(entry, key, {"type", "kind", "optional"})
        return GlobalPoolLayer(_names(entry.get("kind", "average"), f"{key}.kind", ("max", "average"))), optional
    if kind not in ("conv", "dense"):
        raise InvalidValue(f"{key}.type", kind, "it must be one of conv, pool, global_pool, dense")
    own = _names(entry["activations"], f"{key}.activations", ACTIVATIONS) if "activations" in entry else activations
    if kind == "dense":
        _refuse_other_keys(entry, key, {"type", "units", "activations", "optional"})
        return DenseLayer(_numbers(entry, "units", key), own), optional
    _refuse_other_keys(entry, key, {"type", "filters", "kernel_size", "dilation", "stride", "activations", "optional"})
    kernels = _numbers(entry, "kernel_size", key, odd=True, largest=99)
    apart = _numbers(entry, "dilation", key, largest=LARGEST_DILATION) if "dilation" in entry else (1,)
    stride = _stride(entry, key, default=1)
    return ConvLayer(_numbers(entry, "filters", key), kernels, stride, own, apart), optional


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _refuse_other_keys(entry: Mapping[Any, Any], key: str, names: set[str]) -> None:
    for name in entry:
        require(name in names, f"{key}.{name}", entry[name], f"it knows {', '.join(sorted(names))}")


def _flag(entry: Mapping[Any, Any], name: str, key: str) -> bool:
    value = entry.get(name, False)
    require(isinstance(value, bool), f"{key}.{name}", value, "it must be true or false")
    return bool(value)


def _stride(entry: Mapping[Any, Any], key: str, default: Literal[1, 2]) -> int:
    value = entry.get("stride", default)
    require(type(value) is int and value in (1, 2), f"{key}.stride", value, "it must be 1 or 2")
    return int(value)


def _numbers(
    entry: Mapping[Any, Any], name: str, key: str, odd: bool = False, largest: int = LARGEST_WIDTH
) -> tuple[int, ...]:
    value = entry.get(name)
    allowed = f"it must be a list of one or more {'odd ' if odd else ''}whole numbers from 1 to {largest}"
    values = [value] if type(value) is int else value
    if not _is_list(values) or not 0 < len(values) <= 100:
        raise InvalidValue(f"{key}.{name}", value, allowed)
    for one in values:
        good = type(one) is int and 1 <= one <= largest and (not odd or one % 2 == 1)
        require(good, f"{key}.{name}", list(values), allowed)
    require(len(set(values)) == len(values), f"{key}.{name}", list(values), "its options must differ from each other")
    return tuple(values)


def _names(value: object, key: str, known: Collection[str]) -> tuple[str, ...]:
    allowed = f"it must be a list of one or more of {', '.join(known)}"
    values = [value] if isinstance(value, str) else value
    if not _is_list(values) or len(values) == 0:
        raise InvalidValue(key, value, allowed)
    for one in values:
        require(isinstance(one, str) and one in known, key, list(values), allowed)
    require(len(set(values)) == len(values), key, list(values), "its options must differ from each other")
    return tuple(values)
