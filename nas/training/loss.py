"""The training loss: cross-entropy with smoothed labels, of images that mixup may have faded into each other."""

import torch.nn.functional as F
from torch import Tensor

from nas.training.augment import Presented


def training_loss(logits: Tensor, shown: Presented, smoothing: Tensor | float = 0.0) -> Tensor:
    """The mean cross-entropy of ``logits`` (B, classes) with smoothed labels (Szegedy et al., 2016), 0-dim."""
    if shown.partners is None or shown.share is None:
        return smoothed_cross_entropy(logits, shown.labels, smoothing, "mean")
    own = smoothed_cross_entropy(logits, shown.labels, smoothing, "none")
    other = smoothed_cross_entropy(logits, shown.partners, smoothing, "none")
    return ((1 - shown.share) * own + shown.share * other).mean()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor | float, reduction: str) -> Tensor:
    """As :func:`torch.nn.functional.cross_entropy`, differentiable in a ``smoothing`` that is a tensor."""
    if not isinstance(smoothing, Tensor):
        return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction=reduction)
    # The uniform distribution's cross-entropy is the one that smoothing 1 would give: the loss is linear in between.
    sharp = F.cross_entropy(logits, labels, reduction=reduction)
    uniform = -logits.log_softmax(1).mean(1)
    return sharp + smoothing.to(logits) * ((uniform.mean() if reduction == "mean" else uniform) - sharp)
