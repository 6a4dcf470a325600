"""Dropout that is locked over time (Gal and Ghahramani, 2016): one mask for all tokens of a pass (Merity et al., 2018).

A recurrent network has five places for it, each with a rate of its own. Their layers are :class:`LayerDropout`, so that
``dropout_cell_h`` names the rate of the place ``cell_h``, for a search that learns it and for a retraining alike.
"""

from typing import NamedTuple

from torch import Tensor, nn

from nas.operations.stochastic import LayerDropout, keep_mask

PLACES = ("words", "embedding", "cell_x", "cell_h", "output")


class Masks(NamedTuple):
    """What is multiplied in a pass; None leaves as it is.

    Attributes:
        words: (vocabulary, 1), whole rows of the embedding, of the input only.
        embedding: (batch, width), in front of the cell.
        cell_x: (batch, width), what the cell's first product sees of its input.
        cell_h: (batch, width), what the cell's products see of a state.
        output: (batch, width), behind the cell.
    """

    words: Tensor | None = None
    embedding: Tensor | None = None
    cell_x: Tensor | None = None
    cell_h: Tensor | None = None
    output: Tensor | None = None


class LockedDropout(LayerDropout):
    """Draws the mask of one place."""

    def mask(self, shape: tuple[int, ...], like: Tensor) -> Tensor | None:
        """A mask of ``shape`` on the device and of the type of ``like``; None where nothing is dropped."""
        return None if self.is_identity() else keep_mask(shape, self.rate, like, self.generator)

    def forward(self, x: Tensor) -> Tensor:
        return masked(x, self.mask(tuple(x.shape), x))


class LockedDropouts(nn.Module):
    """The five places.

    Attributes:
        given: Masks that stand in for drawn ones, of a replay for example; they act in training mode alone.
    """

    def __init__(self) -> None:
        super().__init__()
        for place in PLACES:
            self.add_module(place, LockedDropout())
        self.given: Masks | None = None

    def masks(self, vocabulary: int, batch: int, like: Tensor) -> Masks:
        """The masks of one pass, drawn in the order of ``PLACES``; ``like`` is (..., width)."""
        if self.given is not None and self.training:
            return self.given
        width = like.shape[-1]
        drawn = {}
        for place, layer in self.named_children():
            shape = (vocabulary, 1) if place == "words" else (batch, width)
            assert isinstance(layer, LockedDropout)
            drawn[place] = layer.mask(shape, like)
        return Masks(**drawn)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x`` times ``mask``; without one as it is."""
    return x if mask is None else x * mask
