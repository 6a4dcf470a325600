"""Random crops, flips and cutout of whole batches, with an independent draw for every sample.

Images are cropped in both directions and mirrored left to right; of a series, a window is cut out, and its direction is
turned. Targets per place move with the inputs, by the same draws. Images in files can also be augmented while they are
decoded: by a crop of random size and by colour jitter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from nas.errors import require

UNKNOWN_CLASS = -100  # the class of a place that counts in no loss and in no measure: cross-entropy's own default


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of whole batches; 0 and false switch a part off, which then draws nothing.

    As in DARTS, crop and flip come before the images are normalised, so that the padding is black, and cutout comes
    after it, so that the hole has the mean's colour. Hence two methods, one for each side of the normalisation.

    Attributes:
        crop_padding: Pixels of black added on every side before a window of the image's own size is cut out.
        flip: Whether half of the images are mirrored left to right.
        cutout: Side in pixels of the square that is set to the mean (DeVries & Taylor, 2017); of a series, the length
            of the interval.

    Raises:
        InvalidValue: A number is negative.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        require(self.crop_padding >= 0, "crop_padding", self.crop_padding, "it must be 0 (off) or above")
        require(self.cutout >= 0, "cutout", self.cutout, "it must be 0 (off) or above")

    @property
    def is_active(self) -> bool:
        return self.crop_padding > 0 or self.flip or self.cutout > 0

    def check_fits(self, images: Tensor) -> None:
        """Refuse a padding or cutout that can leave nothing of an image.

        Args:
            images: (B, C, H, W), or (B, C, L) series.

        Raises:
            InvalidValue: The key is ``augmentation.crop_padding`` or ``augmentation.cutout``.
        """
        self.check_fits_side(min(images.shape[2:]))

    def check_fits_side(self, side: int) -> None:
        """As :meth:`check_fits`, for images whose shorter side has ``side`` pixels."""
        padding, cutout = self.crop_padding, self.cutout
        require(padding < side, "augmentation.crop_padding", padding, f"it must be below the image's side, {side}")
        require(cutout <= side, "augmentation.cutout", cutout, f"it must be at most the image's side, {side}")

    def crop_and_flip(
        self, images: Tensor, targets: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Crop and mirror images that are not normalised yet, together with their targets per place, if there are such.

        Args:
            images: (B, C, H, W) or (B, C, L) of any type, with 0 for black.
            targets: (B, H, W) class numbers or (B, K, H, W) numbers, without H in a series. What the crop takes from
                the padding is not known there: ``UNKNOWN_CLASS``, or NaN.
            generator: The source of the draws, on the images' device.
        """
        batch, sides = len(images), images.shape[2:]
        if self.crop_padding:
            places = 2 * self.crop_padding + 1
            starts = torch.randint(places, (len(sides), batch), generator=generator, device=images.device)
            images = self._windows(images, starts, 0)
            if targets is not None:
                targets = targets.long() if targets.dtype == torch.uint8 else targets
                unknown = float("nan") if targets.is_floating_point() else UNKNOWN_CLASS
                channels = targets if targets.dim() == images.dim() else targets.unsqueeze(1)
                targets = self._windows(channels, starts, unknown).reshape(targets.shape)
        if self.flip:
            mirrored = torch.rand(batch, generator=generator, device=images.device) < 0.5
            images = torch.where(mirrored.view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)
            if targets is not None:
                targets = torch.where(mirrored.view(-1, *[1] * (targets.dim() - 1)), targets.flip(-1), targets)
        return images, targets

    def _windows(self, values: Tensor, starts: Tensor, fill: float) -> Tensor:
        """Of padded ``values`` (B, K, ...) the window of the same size that begins at ``starts`` (dimensions, B)."""
        windows = functional.pad(values, (self.crop_padding,) * (2 * len(starts)), value=fill)
        for dimension, side in enumerate(values.shape[2:], 2):
            windows = windows.unfold(dimension, side, 1)
        return windows[torch.arange(len(values), device=values.device), :, *starts]

    def cut_out(self, images: Tensor, generator: Generator) -> Tensor:
        """Set a square of each normalised image to 0; its centre is uniform over the image, which may clip it.

        Args:
            images: (B, C, H, W) float, normalised, or (B, C, L) series, of which an interval is set to 0.
            generator: The source of the draws, on the images' device.

        Returns:
            The same shape, a new tensor unless cutout is off.
        """
        if not self.cutout:
            return images
        hole = torch.ones((), dtype=torch.bool, device=images.device)
        for dimension, side in enumerate(images.shape[2:], 2):
            covered = self._covered(side, len(images), generator, images.device)
            hole = hole & covered.view(
                len(images), *(side if one == dimension else 1 for one in range(1, images.dim()))
            )
        return images.masked_fill(hole, 0.0)

    def _covered(self, length: int, batch: int, generator: Generator, device: torch.device) -> Tensor:
        """Which of ``length`` rows or columns the square of each image covers, (batch, length) bool."""
        centre = torch.randint(length, (batch, 1), generator=generator, device=device)
        offset = torch.arange(length, device=device) - (centre - self.cutout // 2)
        return (offset >= 0) & (offset < self.cutout)


@dataclass(frozen=True)
class ImageFileAugmentation(Augmentation):
    """The augmentation of whole batches, and before it of every image on its own while its file is decoded.

    Attributes:
        smallest_area: Share of an image's area, from 0 to 1, that a crop of random place, size and shape has at least
            (Szegedy et al., 2015); 1 takes the same crop as for evaluation.
        colour_jitter: The largest changes of brightness, contrast, saturation (relative) and hue (a share of the
            colour circle, up to 0.5); for three channels of colour alone.

    Raises:
        InvalidValue: A number is out of its bounds.
    """

    smallest_area: float = 1.0
    colour_jitter: Sequence[float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        area, jitter = self.smallest_area, self.colour_jitter
        require(0 < area <= 1, "smallest_area", area, "it must be a number above 0 and at most 1")
        good = len(jitter) == 4 and min(jitter) >= 0 and max(jitter[:3]) <= 1 and jitter[3] <= 0.5
        allowed = "it must be four numbers: brightness, contrast, saturation from 0 to 1, hue from 0 to 0.5"
        require(good, "colour_jitter", list(jitter), allowed)

    @property
    def draws_per_file(self) -> bool:
        """Whether an image has to be decoded anew each time."""
        return self.smallest_area < 1 or any(self.colour_jitter)
