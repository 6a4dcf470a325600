"""Images at half the resolution for the first steps of a search: each of these costs a quarter of a whole one.

What a supernet learns of small images it goes on with on large ones: convolutions, poolings and batch norms take maps
of any side, and what comes behind them is brought to one size (by global pooling in cells, by repetition in a chain).
"""

from torch import Tensor

from nas.data.batches import Batch, Stream, StreamAround
from nas.errors import InvalidValue
from nas.evaluation.network_cost import supernet_multiply_adds
from nas.operations.mixed import pooling
from nas.relaxations.relaxation import Relaxation
from nas.spaces.space import SearchSpace

HALF = 0.5  # the share of a search for which small images are enough, where nothing else is said
HALVING = pooling("average", 2, 2)


def halved(images: Tensor) -> Tensor:
    """``images`` (batch, channels, H, W) averaged over squares of 2x2: (batch, channels, ceil(H / 2), ceil(W / 2))."""
    small: Tensor = HALVING(images)
    return small


class Resolution:
    """Says at which resolution a step sees its images.

    Args:
        share: Of the search, from its beginning, that sees them at half the resolution.
        half_price: Multiply-adds of one image's forward pass there.
    """

    def __init__(self, share: float, half_price: float) -> None:
        self.share, self._half_price = share, half_price
        self.is_half = False

    @classmethod
    def of(cls, share: float | None, space: SearchSpace, relaxation: Relaxation) -> "Resolution":
        """That of a search of ``space``; with ``share`` None, half of it where the supernet takes images of any size.

        Raises:
            InvalidValue: ``share`` is above 0, and the supernet takes images of one size only.
        """
        if share is None:
            try:
                return cls.of(HALF, space, relaxation)
            except InvalidValue:
                return cls(0.0, 0.0)
        if share == 0:
            return cls(0.0, 0.0)
        if space.signature.rank != 2 or space.signature.head != "point":
            allowed = f"it halves images with one prediction each, and the data are {space.signature.in_words()}"
            raise InvalidValue("search.half_resolution", share, allowed)
        channels, height, width = space.input_shape
        try:
            price = supernet_multiply_adds(space, relaxation, (channels, -(-height // 2), -(-width // 2)))
        except RuntimeError as error:
            allowed = f"the supernet of space={space.name} takes images of {height}x{width} pixels only"
            raise InvalidValue("search.half_resolution", share, allowed) from error
        return cls(share, price)

    def advance(self, progress: float) -> None:
        """Follow the search, of which the share ``progress`` (0 to 1) is done."""
        self.is_half = progress < self.share

    @property
    def per_image(self) -> float | None:
        """Multiply-adds of one image's forward pass where they are not those of the whole image."""
        return self._half_price if self.is_half else None

    def shown(self, stream: Stream) -> Stream:
        """``stream`` as the steps see it."""
        return stream if self.share == 0 else _ShownStream(stream, self)


class _ShownStream(StreamAround):
    """``stream`` with its images halved as long as ``resolution`` is half."""

    def __init__(self, stream: Stream, resolution: Resolution) -> None:
        super().__init__(stream)
        self._resolution = resolution

    def next(self) -> Batch:
        batch = self._stream.next()
        return Batch(halved(batch.inputs), batch.targets) if self._resolution.is_half else batch
