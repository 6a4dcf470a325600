"""The colours of operations can be told apart with every kind of colour vision."""

import itertools

import numpy as np
import pytest

from nas.report.colours import CLASS_COLOURS, OPERATION_COLOURS, option_colours
from nas.spaces.darts import choices as darts
from nas.spaces.nasbench201 import choices as nasbench201

# How linear RGB looks with a full colour-vision deficiency (Machado et al., 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colour: str, vision: str) -> np.ndarray:
    """``colour`` (#RRGGBB) in CIE Lab as seen with ``vision``."""
    values = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(VISION[vision]) @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "options",
    [
        darts.OPERATIONS,
        nasbench201.OPERATIONS,
        ("conv", "pool", "skip"),
        ("relu", "sigmoid", "tanh"),
        ("8", "16", "32"),
    ],
    ids=["darts", "nasbench201", "types", "activations", "widths"],
)
def test_the_options_of_a_choice_can_be_told_apart_with_every_vision(options, vision):
    seen = {option: lab(colour, vision) for option, colour in option_colours(options).items()}
    nearest = min((np.linalg.norm(seen[a] - seen[b]), a, b) for a, b in itertools.combinations(seen, 2))
    assert nearest[0] > 12, nearest  # about 2 is the least difference that is seen side by side


@pytest.mark.parametrize("vision", VISION)
def test_the_classes_of_places_can_be_told_apart_with_every_vision(vision):
    nearest = min(
        (np.linalg.norm(lab(one, vision) - lab(other, vision)), one, other)
        for one, other in itertools.combinations(CLASS_COLOURS, 2)
    )
    assert nearest[0] > 15, nearest


def test_an_operation_has_its_own_colour_in_every_choice():
    assert option_colours(["skip_connect", "none"])["none"] == option_colours(["none", "other"])["none"]
    searched = [*darts.OPERATIONS, "sep_conv_7x7", "conv_7x1_1x7", "nor_conv_1x1", "nor_conv_3x3"]
    assert len({OPERATION_COLOURS[name] for name in searched}) == len(searched)


def test_numbers_go_from_light_to_dark_whatever_their_order():
    colours = option_colours(["64", "8", "16"])
    lightness = [lab(colours[number], "normal")[0] for number in ("8", "16", "64")]
    assert lightness == sorted(lightness, reverse=True)
    assert list(colours) == ["64", "8", "16"]


def test_unknown_options_take_colours_that_no_other_has():
    colours = option_colours(["conv", "attention", "mixer", "8"])
    assert len(set(colours.values())) == 4
