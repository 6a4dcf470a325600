"""One colour per operation for every drawing, chart and animation; colour-blind readers can tell them apart.

The palette is that of Okabe and Ito (2008), with a lighter orange and a wine red where one space needs eight colours
besides its grey. Options that are numbers (widths, kernel sizes) are shades of one scale from light to dark, since
their order says more than their identity.
"""

from collections.abc import Mapping, Sequence

ORANGE, SKY_BLUE, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
LIGHT_ORANGE, LIGHT_GREY, WINE = "#F6C244", "#D0D0D0", "#882255"

OPERATION_COLOURS: Mapping[str, str] = {
    "none": LIGHT_GREY,
    "noise": "#8C8C8C",
    "max_pool_3x3": VERMILLION,
    "avg_pool_3x3": LIGHT_ORANGE,
    "skip_connect": PURPLE,
    "sep_conv_3x3": BLUE,
    "sep_conv_5x5": SKY_BLUE,
    "sep_conv_7x7": "#1B3A6B",
    "dil_conv_3x3": GREEN,
    "dil_conv_5x5": WINE,
    "conv_7x1_1x7": "#6B4A2B",
    "nor_conv_1x1": "#4AA8DF",
    "nor_conv_3x3": "#1F4E9C",
    # The macro space's: types of layers, kinds of pooling, activations.
    "conv": BLUE,
    "pool": ORANGE,
    "global_pool": LIGHT_ORANGE,
    "dense": GREEN,
    "skip": PURPLE,
    "max": VERMILLION,
    "average": LIGHT_ORANGE,
    "relu": BLUE,
    "sigmoid": ORANGE,
    "tanh": GREEN,
    "gelu": PURPLE,
    "silu": SKY_BLUE,
    "elu": VERMILLION,
    "softplus": YELLOW,
    # The Transformer's mixers, and whether a layer is there.
    "attention": SKY_BLUE,
    "convolution": WINE,
    "gated": YELLOW,
    "block": SKY_BLUE,
    "identity": PURPLE,  # of the recurrent cell, beside relu, sigmoid and tanh
}
SERIES_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, WINE, GREY)
CLASS_COLOURS = (BLUE, ORANGE, SKY_BLUE, VERMILLION, GREEN, YELLOW, WINE, PURPLE)  # of places, by class
SCALE = ((253, 231, 55), (138, 184, 143), (74, 138, 148), (62, 84, 139), (42, 29, 84))  # light to dark


def option_colours(options: Sequence[str]) -> dict[str, str]:
    """A colour (#RRGGBB) for each option of one choice.

    An operation has the same colour everywhere. Numbers go from light to dark by size. Any other name takes a colour
    that no other option of the choice has.
    """
    numbers = sorted((option for option in options if option.isdecimal()), key=int)
    colours = {number: _shade(index, len(numbers)) for index, number in enumerate(numbers)}
    colours |= {option: OPERATION_COLOURS[option] for option in options if option in OPERATION_COLOURS}
    free = [colour for colour in SERIES_COLOURS if colour not in colours.values()] or list(SERIES_COLOURS)
    others = [option for option in options if option not in colours]
    colours |= {option: free[index % len(free)] for index, option in enumerate(others)}
    return {option: colours[option] for option in options}


def _shade(index: int, count: int) -> str:
    """The colour of number ``index`` of ``count`` on the scale from light to dark."""
    place = (index + 0.5) / count * (len(SCALE) - 1)
    lower = min(int(place), len(SCALE) - 2)
    part = place - lower
    mixed = [round(low + part * (high - low)) for low, high in zip(SCALE[lower], SCALE[lower + 1], strict=True)]
    return "#{:02X}{:02X}{:02X}".format(*mixed)
