"""Every space of images takes any number of channels, and sides that are not equal."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nas.configuration import build
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature

CONF = Path(__file__).parents[2] / "conf" / "space"
CELLS = {"channels": 2, "cells": 3, "final_channels": 2, "final_cells": 3}
LAYERS = {"width": 4, "layers": 2, "heads": [1, 2]}
SMALL = {"darts": CELLS, "nasbench201": CELLS, "transformer": LAYERS}


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", ["macro", "macro_dense", "darts", "nasbench201", "transformer"])
def test_channels_and_sides_come_from_the_data(name: str, channels: int) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    config.update({key: value for key, value in SMALL.get(name, {}).items() if key in config})
    if "implementation" in config:
        config.implementation = "plain"
    dense = name == "macro_dense"
    signature = Signature((channels, 10, 7), 3, "dense" if dense else "point")
    space = build(config, "space", signature=signature)
    inputs = torch.randn(2, *signature.input_shape)
    expected = (2, 3, 10, 7) if dense else (2, 3)
    supernet = space.supernet(Softmax(Temperature()))
    assert supernet(inputs).shape == expected
    outputs = space.network(space.sample(torch.Generator().manual_seed(0)).architecture).eval()(inputs)
    assert outputs.shape == expected
