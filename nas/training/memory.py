"""The memory of a network that reads texts: it goes on from one batch to the next."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from nas.data.batches import Batch, Stream
from nas.operations.memory import Outputs, Remembered, Remembers


def carry(stream: Stream, outputs: Outputs) -> None:
    """Let the next batch of ``stream`` begin where ``outputs`` of the last one have ended; no gradient goes back."""
    if isinstance(outputs, Remembered):
        stream.carry(outputs.state.detach())


def outputs_and_targets(
    network: nn.Module, batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and targets of each batch, on ``device``; a memory goes on where a batch has as many texts as before."""
    state: Tensor | None = None
    for batch in batches:
        targets = batch.targets.to(device, non_blocking=True)
        inputs = batch.inputs.to(device, non_blocking=True)
        if isinstance(network, Remembers):
            found = network.recall(inputs, state if state is not None and len(state) == len(inputs) else None)
            state = found.state
            yield found.logits.float(), targets
        else:
            yield network(inputs).float(), targets
