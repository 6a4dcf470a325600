"""How well a network does on given batches."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nas.data.batches import Batch
from nas.tasks.task import Measure, MetricsOfEach, Task
from nas.training.memory import outputs_and_targets


@dataclass(frozen=True)
class Measured:
    """Averages over samples.

    Attributes:
        loss: The mean loss without weights and smoothing.
        values: By measure of the task, the main one first; it has one at least.
        samples: How many samples were seen.
        each: By measure its value for each output, where that was asked for.
    """

    loss: float
    values: Mapping[str, float]
    samples: int
    each: Mapping[Measure, Sequence[float]] = field(default_factory=dict)

    def __getitem__(self, measure: str) -> float:
        return self.values[measure]

    def numbers(self) -> dict[str, float]:
        """The main measure, the ``loss``, the other measures."""
        main = next(iter(self.values))
        return {main: self.values[main], "loss": self.loss, **self.values}


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """At its end every module of ``network`` is in the mode, training or evaluation, that it was in before."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def measure(
    network: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    device: torch.device,
    each: bool = False,
    see: Callable[[Tensor, Tensor], None] | None = None,
) -> Measured:
    """Run ``network`` in evaluation mode over ``batches``; each module is then back in the mode it was in.

    Every sample counts the same whatever the size of its batch. In a data-parallel run these are the metrics of this
    process's batches only.

    Args:
        network: Maps inputs to outputs of the task.
        batches: Inputs and targets.
        task: What the outputs mean.
        device: Where the network is and the batches are moved to.
        each: Whether single outputs are measured, too, where the task tells one from the others.
        see: Is shown the outputs and targets of every batch.

    Raises:
        ValueError: There is no sample in ``batches``.
    """
    metrics = task.metrics(device)
    losses: list[Tensor] = []
    samples = counted = 0
    with modes_kept(network):
        network.eval()
        for outputs, targets in outputs_and_targets(network, batches, device):
            losses.append(task.reported_loss(outputs, targets))
            metrics.update(outputs, targets)
            if see is not None:
                see(outputs, targets)
            samples += len(targets)
            counted += task.count(targets)
    if samples == 0:
        raise ValueError("There are no samples to measure the network on.")
    found = metrics.compute()
    values = {one.name: found[one.name] for one in task.measures}
    of_each = metrics.each() if each and isinstance(metrics, MetricsOfEach) else {}
    return Measured(math.fsum(torch.stack(losses).tolist()) / counted, values, samples, of_each)


class RunningMeans:
    """Sums and counts by tag; part of a checkpoint, so that an epoch may be cut in two."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, tag: str, value: Tensor | float) -> None:
        number = torch.as_tensor(value, dtype=torch.float64).detach()
        self._sums[tag] = self._sums[tag] + number if tag in self._sums else number.clone()
        self._counts[tag] = self._counts.get(tag, 0) + 1

    def means(self) -> dict[str, float]:
        return {tag: float(total) / self._counts[tag] for tag, total in self._sums.items()}

    def clear(self) -> None:
        self._sums.clear()
        self._counts.clear()

    def state_dict(self) -> dict[str, tuple[float, int]]:
        return {tag: (float(total), self._counts[tag]) for tag, total in self._sums.items()}

    def load_state_dict(self, state: dict[str, tuple[float, int]]) -> None:
        self._sums = {tag: torch.tensor(total, dtype=torch.float64) for tag, (total, _) in state.items()}
        self._counts = {tag: count for tag, (_, count) in state.items()}
