"""The stand-alone network of the macro space: the chain of the chosen layers as plain PyTorch modules."""

from torch import nn

from nas.candidate import Architecture
from nas.spaces.macro.choices import MacroChoices
from nas.spaces.macro.layers import Shape, flattened


def chain(space: MacroChoices, architecture: Architecture) -> nn.Sequential:
    """The freshly initialised layers of ``architecture``, named after their places, and a classifier behind them."""
    network = nn.Sequential()
    shape: Shape = space.input_shape
    for place, _, layer, chosen, input_shape in space.plain_layers(architecture):
        if len(input_shape) == 1 and len(shape) == 3:
            network.add_module("flatten", nn.Flatten())
        network.add_module(place.name, layer.plain(input_shape, chosen))
        shape = layer.output_shape(input_shape, chosen)
    if len(shape) == 3:
        network.add_module("flatten", nn.Flatten())
    network.add_module("dropout", nn.Dropout(0.0))
    network.add_module("classifier", nn.Linear(flattened(shape)[0], space.classes))
    return network
