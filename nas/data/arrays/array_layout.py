"""What the dimensions of arrays mean: rows, series or images, with channels first or last."""

from typing import Literal

import torch
from torch import Tensor

from nas.errors import InvalidValue, UnusableInput
from nas.signature import Head

Layout = Literal["NF", "NCL", "NLC", "NHW", "NCHW", "NHWC"]
SERIES = ("NCL", "NLC")
COLOUR_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def chosen_layout(layout: Layout | None, shape: tuple[int, ...]) -> Layout:
    """``layout``, or the only one that inputs of this ``shape`` (N, ...) can have.

    Raises:
        InvalidValue: It does not fit the shape, or cannot be told from it.
    """
    dims = len(shape)
    if layout is not None:
        fitting = {2: "NF", 3: "NCL, NLC or NHW", 4: "NCHW or NHWC"}.get(dims, "none")
        if dims != len(layout):
            raise InvalidValue("layout", layout, f"x has {dims} dimensions, {shape}, which {fitting} would fit")
        return layout
    if dims == 2:
        return "NF"
    if dims == 3:
        _, first, second = shape
        raise InvalidValue(
            "layout",
            None,
            f"x has three dimensions, {shape}: data.layout=NCL takes {first:,} channels of {second:,} steps, "
            f"data.layout=NLC {second:,} channels of {first:,} steps, "
            f"data.layout=NHW grey images of {first} x {second}",
        )
    if dims == 4:
        _, first, second, last = shape
        if last in COLOUR_CHANNELS and min(first, second) > max(COLOUR_CHANNELS):
            allowed = f"x is {shape}, which looks like channels last: say data.layout=NHWC, or data.layout=NCHW"
            raise InvalidValue("layout", None, allowed)
        return "NCHW"
    raise UnusableInput(
        f"x has {dims} dimension{'s' if dims > 1 else ''}, {shape}: it must have two to four, the samples first."
    )


def channels_first(inputs: Tensor, layout: Layout) -> Tensor:
    """(N, F), (N, C, L) or (N, C, H, W) of inputs in ``layout``."""
    if layout in ("NLC", "NHWC"):
        return inputs.movedim(-1, 1).contiguous()
    return inputs.unsqueeze(1) if layout == "NHW" else inputs


def with_coordinates(inputs: Tensor) -> Tensor:
    """``inputs`` (N, C, ...) with a channel for each dimension of their places, from -1 to 1."""
    sides = inputs.shape[2:]
    places = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in sides), indexing="ij")
    channels = torch.stack(places).expand(len(inputs), -1, *sides)
    return torch.cat([inputs.float(), channels], dim=1)


def arranged_targets(targets: Tensor, input_shape: tuple[int, ...], layout: Layout) -> tuple[Tensor, Head]:
    """``targets`` as (N,), (N, K), or of every place, (N, *sides) or (N, K, *sides), and which of these they are.

    Args:
        targets: (N, ...) as they were read.
        input_shape: (F,), (C, L) or (C, H, W).
        layout: Of the inputs, and of targets that are as large as they are.

    Raises:
        UnusableInput: They are neither.
    """
    sides, own = tuple(input_shape[1:]), tuple(targets.shape[1:])
    if sides and own == sides:
        return targets, "dense"
    if sides and len(own) == len(sides) + 1:
        turned = targets.movedim(-1, 1) if layout in ("NLC", "NHWC") else targets
        if tuple(turned.shape[2:]) == sides:
            alone = turned.shape[1] == 1
            return (turned[:, 0] if alone else turned).contiguous(), "dense"
    if own == (1,):
        return targets[:, 0], "point"
    if len(own) <= 1:
        return targets, "point"
    places = f", nor as large as the inputs' places {sides}" if sides else ""
    hint = "" if sides else "; y.reshape(len(y), -1) makes K of them"
    raise UnusableInput(f"y is {tuple(targets.shape)}: neither one target per sample nor K{places}{hint}.")
