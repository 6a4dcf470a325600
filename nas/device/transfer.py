"""Transfers between the processor and a device, many numbers at a time, and memory that is kept from step to step.

A GPU is waited for at every single number that is read from it, so that numbers travel together.
"""

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def as_numbers(values: Sequence[float | Tensor]) -> list[float]:
    """``values`` as Python floats, in one transfer per device and type; tensors have one element each."""
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
    """``values`` with the tensors on ``device``, differentiably; tensors are 0-dim and of one type."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.device != device}
    moved = torch.stack(list(tensors.values())).to(device).unbind() if tensors else ()
    return {**values, **dict(zip(tensors, moved, strict=True))}


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 2**31 - 1
LARGEST_IN_HEAP = 32 * 2**20  # glibc allows no more


def keep_freed_memory() -> None:
    """Keep freed memory for the next step, which needs the same again.

    Otherwise glibc returns it to the system after every step and gets it back page by page, each filled with zeros
    first: a tenth of a supernet's step on a CPU. The peak stays as it is. Without glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(MMAP_THRESHOLD, LARGEST_IN_HEAP)
    mallopt(TRIM_THRESHOLD, LARGEST)
