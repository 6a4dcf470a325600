"""Means of what an epoch's steps measured, summed on the device and read once."""

import torch
from torch import Tensor


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


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of ``logits`` (batch, classes) whose largest is the label's, 0-dim."""
    return (logits.argmax(-1) == labels).to(torch.float64).mean()
