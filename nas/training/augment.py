"""Cutout and mixup of given strengths, differentiable in them.

A strength is a number, or a tensor in the graph of what is learned; both compute the same thing, so that a retraining
repeats what the search has learned. Neither operation is a choice between two images, which would have no gradient:

- Cutout's square has a real side and a real centre, and a pixel that it covers in part fades in part. The loss is
  continuous in the side, so the gradient at fixed draws is an unbiased one of the expected loss. Of a series it is an
  interval; a table's row has no neighbours that could be cut out together.
- Mixup (after Zhang et al., 2018) fades every image into another one, by a share uniform from 0 to half of the
  strength. A mixing *probability* would need a relaxed coin that the retraining does not toss. Numbers of categories
  and of words cannot fade.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from nas.data.batches import Batch
from nas.errors import require
from nas.signature import Signature
from nas.tasks.task import Values


class AugmentedBatch(NamedTuple):
    """A batch after cutout and mixup, with ``share`` (B,) of each input and target replaced by a partner's."""

    inputs: Tensor
    targets: Tensor
    partners: Tensor | None = None
    share: Tensor | None = None


def augmented(batch: Batch, values: Values, generator: Generator | None) -> AugmentedBatch:
    """``batch`` with ``values["cutout"]`` and ``values["mixing"]``; what is absent or the number 0 draws nothing.

    Args:
        generator: Where the draws come from, on the images' device.
    """
    images = batch.inputs
    if _acts(side := values.get("cutout", 0.0)):
        images = cutout(images, side, generator)
    if _acts(strength := values.get("mixing", 0.0)):
        return mixup(images, batch.targets, strength, generator)
    return AugmentedBatch(images, batch.targets)


def _acts(strength: Tensor | float) -> bool:
    return isinstance(strength, Tensor) or strength > 0


def cutout(images: Tensor, side: Tensor | float, generator: Generator | None) -> Tensor:
    """Fade a square of each normalised image (B, C, H, W), or an interval of each series (B, C, L), to the mean, 0.

    Args:
        side: The square's, as a share of the image's shorter side. Its centre is uniform over the image.
    """
    batch, _, *lengths = images.shape
    half = _like(side, images) * min(lengths) / 2
    covered = []
    for length in lengths:
        centre = length * torch.rand(batch, 1, generator=generator, device=images.device, dtype=images.dtype)
        start = torch.arange(length, device=images.device, dtype=images.dtype)
        overlap = torch.minimum(start + 1, centre + half) - torch.maximum(start, centre - half)
        covered.append(overlap.clamp(min=0))  # (B, length): of each row or column, the share that is covered
    if len(lengths) == 1:
        return images * (1 - covered[0][:, None])
    rows, columns = covered
    return images * (1 - rows[:, None, :, None] * columns[:, None, None, :])


def mixup(inputs: Tensor, targets: Tensor, strength: Tensor | float, generator: Generator | None) -> AugmentedBatch:
    """Each input and target with a share, uniform from 0 to ``strength / 2``, of another one's of the batch."""
    noise = torch.rand(len(targets), generator=generator, device=inputs.device, dtype=inputs.dtype)
    order = torch.randperm(len(targets), generator=generator, device=inputs.device)
    share = _like(strength, inputs) / 2 * noise
    mix = share.view(-1, *[1] * (inputs.dim() - 1))
    return AugmentedBatch((1 - mix) * inputs + mix * inputs[order], targets, targets[order], share)


def refuse_unsuited_augmentation(signature: Signature, acting: Mapping[str, float]) -> None:
    """Refuse cutout and mixing of inputs that know neither.

    Args:
        signature: What goes into the network.
        acting: By name the values of the hyperparameters that are learned, or have an effect at their value.

    Raises:
        InvalidValue: One of the two is among them; the key is ``hyperparameters.cutout`` or ``hyperparameters.mixing``.
    """
    inputs = signature.in_words().partition(" with ")[0]
    if "cutout" in acting:
        allowed = f"{inputs} have no places side by side that could be cut out: it must be 0 and not learned"
        require(signature.rank > 0, "hyperparameters.cutout", acting["cutout"], allowed)
    if "mixing" in acting:
        numbers = "tokens" if signature.is_tokens else f"{len(signature.categories)} of the columns"
        allowed = f"{numbers} are numbers of categories, which do not mix: it must be 0 and not learned"
        good = not signature.categories and not signature.is_tokens
        require(good, "hyperparameters.mixing", acting["mixing"], allowed)


def _like(value: Tensor | float, images: Tensor) -> Tensor | float:
    return value.to(images) if isinstance(value, Tensor) else value
