"""Cutout and mixup of given strengths, differentiable in them.

A strength is a number, or a tensor in the graph of what is learned; both compute the same thing, so that a retraining
repeats what the search has learned. Neither operation is a choice between two images, which would have no gradient:

- Cutout's square has a real side and a real centre, and a pixel that it covers in part fades in part. The loss is
  continuous in the side, so the gradient at fixed draws is an unbiased one of the expected loss.
- Mixup (after Zhang et al., 2018) fades every image into another one, by a share uniform from 0 to half of the
  strength. A mixing *probability* would need a relaxed coin that the retraining does not toss.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from nas.data.batches import Batch

Values = Mapping[str, Tensor | float]


class Presented(NamedTuple):
    """A batch as the network is shown it: with ``share`` (B,) of each input and target replaced by a partner's."""

    inputs: Tensor
    targets: Tensor
    partners: Tensor | None = None
    share: Tensor | None = None


def presented(batch: Batch, values: Values, generator: Generator | None) -> Presented:
    """``batch`` with ``values["cutout"]`` and ``values["mixing"]``; what is absent or the number 0 draws nothing.

    Args:
        generator: Where the draws come from, on the images' device.
    """
    images = batch.inputs
    if _acts(side := values.get("cutout", 0.0)):
        images = cut_out(images, side, generator)
    if _acts(strength := values.get("mixing", 0.0)):
        return mixed(images, batch.targets, strength, generator)
    return Presented(images, batch.targets)


def _acts(strength: Tensor | float) -> bool:
    return isinstance(strength, Tensor) or strength > 0


def cut_out(images: Tensor, side: Tensor | float, generator: Generator | None) -> Tensor:
    """Fade a square of each normalised image (B, C, H, W) to the mean, 0.

    Args:
        side: The square's, as a share of the image's shorter side. Its centre is uniform over the image.
    """
    batch, _, height, width = images.shape
    half = _like(side, images) * min(height, width) / 2
    covered = []
    for length in (height, width):
        centre = length * torch.rand(batch, 1, generator=generator, device=images.device, dtype=images.dtype)
        start = torch.arange(length, device=images.device, dtype=images.dtype)
        overlap = torch.minimum(start + 1, centre + half) - torch.maximum(start, centre - half)
        covered.append(overlap.clamp(min=0))  # (B, length): of each row or column, the share that is covered
    rows, columns = covered
    return images * (1 - rows[:, None, :, None] * columns[:, None, None, :])


def mixed(images: Tensor, labels: Tensor, strength: Tensor | float, generator: Generator | None) -> Presented:
    """Each image and label with a share, uniform from 0 to ``strength / 2``, of another image's of the batch."""
    noise = torch.rand(len(labels), generator=generator, device=images.device, dtype=images.dtype)
    order = torch.randperm(len(labels), generator=generator, device=images.device)
    share = _like(strength, images) / 2 * noise
    mix = share.view(-1, 1, 1, 1)
    return Presented((1 - mix) * images + mix * images[order], labels, labels[order], share)


def _like(value: Tensor | float, images: Tensor) -> Tensor | float:
    return value.to(images) if isinstance(value, Tensor) else value
