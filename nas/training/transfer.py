"""Numbers between the processor and a device, many in one go: a GPU is waited for at every transfer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def as_numbers(values: Sequence[float | Tensor]) -> list[float]:
    """``values``, of which tensors have one element, as Python's: one transfer per device and type."""
    numbers = [0.0 if isinstance(value, Tensor) else float(value) for value in values]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, value in enumerate(values):
        if isinstance(value, Tensor):
            groups.setdefault((value.device, value.dtype), []).append(index)
    for indices in groups.values():
        together = torch.stack([value.detach().reshape(()) for i in indices if isinstance(value := values[i], Tensor)])
        for index, number in zip(indices, together.tolist(), strict=True):
            numbers[index] = float(number)
    return numbers


def on_device(values: Mapping[str, Tensor | float], device: torch.device) -> dict[str, Tensor | float]:
    """``values``, of which tensors are 0-dim and of one type, with the tensors on ``device``, differentiably."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.device != device}
    moved = torch.stack(list(tensors.values())).to(device).unbind() if tensors else ()
    return {**values, **dict(zip(tensors, moved, strict=True))}
