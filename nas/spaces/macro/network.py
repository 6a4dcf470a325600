"""The stand-alone network of the macro space: the chain of the chosen layers as plain PyTorch modules."""

from torch import nn

from nas.candidate import Architecture
from nas.operations.embedding import ColumnEmbedding
from nas.operations.mixed import CONVOLUTIONS
from nas.spaces.macro.choices import MacroChoices
from nas.spaces.macro.layers import Shape, flattened, rank_of


def chain(space: MacroChoices, architecture: Architecture) -> nn.Sequential:
    """The freshly initialised layers of ``architecture``, named after their places, and a classifier behind them."""
    network = nn.Sequential()
    shape = space.first_shape
    if space.signature.categories:
        network.add_module("stem", stem(space))
    for place, _, layer, chosen, input_shape in space.plain_layers(architecture):
        if rank_of(input_shape) < rank_of(shape):
            network.add_module("flatten", nn.Flatten())
        network.add_module(place.name, layer.plain(input_shape, chosen))
        shape = layer.output_shape(input_shape, chosen)
    if rank_of(shape) > 0 and space.signature.head == "point":
        network.add_module("flatten", nn.Flatten())
    network.add_module("dropout", nn.Dropout(0.0))
    network.add_module("classifier", classifier(space, shape))
    return network


def stem(space: MacroChoices) -> nn.Module:
    """What comes before the first layer: it makes vectors of categorical columns, and is nothing without them."""
    categories = space.signature.categories
    return ColumnEmbedding(categories) if categories else nn.Identity()


def classifier(space: MacroChoices, shape: Shape) -> nn.Linear | nn.Conv1d | nn.Conv2d:
    """What makes predictions of features of ``shape``: a matrix, or one per place as a convolution of size 1."""
    if space.signature.head == "dense":
        return CONVOLUTIONS[rank_of(shape)](shape[0], space.outputs, 1)
    return nn.Linear(flattened(shape)[0], space.outputs)
