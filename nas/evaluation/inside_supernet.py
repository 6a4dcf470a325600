"""What the supernet comes to with other operation weights than those of its relaxed alphas.

Batch norm uses each batch's statistics, as in the search's upper level: its running ones belong to the mixture.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.batches import Batch
from nas.operations.stochastic import without_noise
from nas.spaces.supernet import Supernet


@torch.no_grad()
def supernet_metrics(supernet: Supernet, batches: Iterable[Batch], weights: dict[str, Tensor]) -> dict[str, float]:
    """Loss and accuracy of ``supernet`` with ``weights`` for its alphas, without noise; it is left as it was."""
    buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    modes = {module: module.training for module in supernet.modules()}
    loss = correct = 0.0
    samples = 0
    try:
        supernet.train()  # the batch's statistics
        with supernet.computing_with(weights), without_noise(supernet):
            for batch in batches:
                if samples and len(batch.labels) == 1:
                    continue  # a rest of one image has no statistics
                logits = supernet(batch.images).float()
                loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
                correct += float((logits.argmax(1) == batch.labels).sum())
                samples += len(batch.labels)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in supernet.named_buffers():
            buffer.copy_(buffers[name])
    return {"loss": loss / samples, "accuracy": correct / samples}


def relaxed_weights(supernet: Supernet) -> dict[str, Tensor]:
    """The weights of every alpha, without noise."""
    with torch.no_grad():
        return {name: supernet.relaxation.probabilities(alpha).detach() for name, alpha in supernet.alpha.items()}
