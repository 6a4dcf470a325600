"""The processes (ranks) of a data-parallel run that ``torchrun`` started, and their collective operations.

Each rank has the whole network and a share of every batch. Weights, alpha and hyperparameters stay equal bit for bit,
because every number that moves them is averaged over the ranks first. Averages are differentiable, twice and more, so
that a hypergradient sees the weight step of the joint batch. A run in one process is rank 0 of 1; nothing is sent.
"""

import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nas.errors import RanksDiffer, UnusableInput
from nas.stopping import ending_at_once
from nas.surroundings import say

TORCHRUN_VARIABLES = {"WORLD_SIZE": r"\d+", "RANK": r"\d+", "MASTER_ADDR": ".+", "MASTER_PORT": r"\d+"}
NOTICE = 20.0  # seconds of waiting before it is told


@dataclass(frozen=True)
class Ranks:
    """This process, number ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def end_shared_part(self) -> None:
        """End the part of a run that all ranks take part in: only the first rank goes on behind this call.

        Raises:
            ShareDone: This rank is not the first.
        """
        if not self.is_first:
            raise ShareDone

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over the ranks. They can be differentiated; each rank differentiates its own loss."""
        return list(tensors) if self.count == 1 else list(_Average.apply(self.count, *tensors))

    def with_average_gradients(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``tensors`` unchanged. Their gradients are averaged over the ranks."""
        wanted = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
        if self.count == 1 or not wanted:
            return dict(tensors)
        found = zip(wanted, _AverageGradient.apply(self.count, *wanted.values()), strict=True)
        return {**tensors, **dict(found)}

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on any rank."""
        if self.count == 1:
            return flag
        found = torch.tensor(int(flag))
        dist.all_reduce(found)
        return bool(found)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value``, in order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any = None) -> Any:
        """The first rank's ``value``, on every rank."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def require_same(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Check that ``state`` has the same bytes on every rank.

        Raises:
            RanksDiffer: It does not.
        """
        if self.count == 1:
            return
        digest = hashlib.sha256()
        for name, tensor in state.items():
            digest.update(
                name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        if len(set(self.gather(digest.hexdigest()))) > 1:
            raise RanksDiffer(f"step {step}: the processes of this run no longer have the same weights")

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace the floating-point ``tensors``, such as running statistics, by their means over the ranks."""
        mixed = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self.count > 1 and mixed:
            with torch.no_grad():
                for tensor, mean in zip(mixed, self.average(mixed), strict=True):
                    tensor.copy_(mean)

    def require_as_many(self, state: Mapping[str, Any]) -> None:
        """Check that a checkpoint's ``state`` comes from a run with as many ranks.

        Raises:
            UnusableInput: It does not.
        """
        count = state.get("ranks", 1)
        if count != self.count:
            with_ranks = "without torchrun" if count == 1 else f"with torchrun --nproc-per-node {count}"
            raise UnusableInput(
                f"The run was begun by {count} process{'' if count == 1 else 'es'} and this one has {self.count}: "
                f"its noise is drawn per process, so resume it {with_ranks}."
            )


class ShareDone(Exception):  # noqa: N818
    """This rank has done its share of the run."""


def current_ranks() -> Ranks:
    """This process among those of a data-parallel run; number 0 of 1 where there is no such run."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else Ranks()


def join() -> Ranks:
    """Connect to the other processes, if ``torchrun`` started this one.

    Raises:
        UnusableInput: The environment says that there are others, and not who this process is or where they meet; or
            they cannot be reached.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count in ("", "0", "1") or dist.is_initialized():
        return current_ranks()
    way_out = "start them by torchrun, or unset WORLD_SIZE for a run in one process"
    unusable = [name for name, form in TORCHRUN_VARIABLES.items() if not re.fullmatch(form, os.environ.get(name, ""))]
    if not unusable and int(os.environ["RANK"]) >= int(count):
        unusable = ["RANK"]
    if unusable:
        what = f"WORLD_SIZE={count} says that this process is one of several, but {', '.join(unusable)} cannot be used"
        raise UnusableInput(f"{what}; {way_out}.")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    notice = threading.Timer(NOTICE, say, [f"waiting at {place} for the other processes of {count}; {way_out}"])
    notice.daemon = True
    notice.start()
    try:
        with ending_at_once():
            dist.init_process_group(backend, timeout=timedelta(minutes=30))
    except dist.DistError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UnusableInput(f"The processes cannot meet at {place} ({reason}); {way_out}.") from error
    finally:
        notice.cancel()
    return current_ranks()


def _means(count: int, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The means over ``count`` ranks, with one message per type."""
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        indices = [index for index, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[index].detach().reshape(-1) for index in indices])
        dist.all_reduce(flat)
        parts = (flat / count).split([tensors[index].numel() for index in indices])
        found |= {index: part.view(tensors[index].shape) for index, part in zip(indices, parts, strict=True)}
    return tuple(found[index] for index in range(len(tensors)))


class _Average(torch.autograd.Function):
    """Means over the ranks. The loss is the mean of the ranks' losses, so the backward pass takes means, too."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.count = count
        return _means(count, tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return (None, *_Average.apply(ctx.count, *gradients))

    @staticmethod
    def jvp(ctx: Any, count: None, *tangents: Tensor) -> tuple[Tensor, ...]:
        return _means(ctx.count, tangents)


class _AverageGradient(torch.autograd.Function):
    """The identity. Its backward pass averages over the ranks."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.count = count
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        wanted = [index for index, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        means = _Average.apply(ctx.count, *(gradients[index] for index in wanted))
        found: list[Tensor | None] = [None] * len(gradients)
        for index, mean in zip(wanted, means, strict=True):
            found[index] = mean
        return (None, *found)

    @staticmethod
    def jvp(ctx: Any, count: None, *tangents: Tensor) -> tuple[Tensor, ...]:
        return tuple(tangent.view_as(tangent) for tangent in tangents)
