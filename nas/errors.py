"""What goes wrong, in one sentence: a setting, an input, a run, the machine.

A machine fails a run by a full disk, a vanished folder, too little memory, a killed worker.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

SMALLER = {
    "train_search.py": (
        "training.batch_size, space.channels or space.cells (in a macro space, filters and units), "
        "or take hypergradient=first_order, which keeps no second graph"
    ),
    "train_final.py": "training.batch_size, or search a smaller network (space.final_channels, space.final_cells)",
}
_WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file has reached the largest size that is allowed here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "it may not be read or written",
    errno.EPERM: "it may not be read or written",
    errno.ENOENT: "the file or its folder has vanished",
    errno.EMFILE: "too many files are open",
    errno.EIO: "the disk cannot be read or written",
    errno.EPIPE: "nobody reads the output any more",
}


class InvalidValue(ValueError):  # noqa: N818 - it names what it is about, as ValueError does
    """A setting that cannot be used: ``key``, the ``value`` given and what is ``allowed``."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(key, value, allowed)  # what pickle calls it with again in another process
        self.key, self.value, self.allowed = key, value, allowed
        self._sentence = f"{_printable(key)}={shown_value(value)} is not allowed: {allowed}."

    def __str__(self) -> str:
        return self._sentence

    def below(self, prefix: str) -> "InvalidValue":
        """The same complaint with its key seen from one level further up (``temperature`` in ``relaxation``)."""
        separator = "." if prefix and self.key and not self.key.startswith("[") else ""
        return InvalidValue(f"{prefix}{separator}{self.key}", self.value, self.allowed)


class UnusableInput(Exception):  # noqa: N818
    """Something outside the configuration that stops a run before it starts, told in one sentence."""


class NotTrusted(UnusableInput):
    """A recorded file names something to import that the user has not said to be their own."""


class RunFailed(Exception):  # noqa: N818
    """The run cannot go on, through no fault of its input; told in one sentence."""


class RanksDiffer(RuntimeError):  # noqa: N818
    """The processes of a data-parallel run no longer have equal weights: the run must end."""


@contextmanager
def keys_below(prefix: str) -> Iterator[None]:
    """In the block, an :class:`InvalidValue` is raised :meth:`~InvalidValue.below` ``prefix``."""
    try:
        yield
    except InvalidValue as error:
        raise error.below(prefix) from error


def shown_value(value: object) -> str:
    """``value`` as a sentence shows it: as YAML writes it, on one line, in 120 characters at most."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return _printable(text if len(text) <= 120 else text[:117] + "...")


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first ``most`` names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _printable(text: str) -> str:
    """``text`` without line breaks and terminal codes: a candidate's file may come from anywhere."""
    return text if text.isprintable() else repr(text)


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise :class:`InvalidValue` unless ``condition`` holds."""
    if not condition:
        raise InvalidValue(key, value, allowed)


def fault_sentence(error: BaseException, command: str = "train_search.py") -> str | None:
    """What has happened, without a full stop, or None where ``error`` may be a mistake of this program.

    Args:
        error: What ended the work.
        command: The entry point, whose settings are named where there was too little memory.
    """
    text = " ".join(str(error).split())
    smaller = SMALLER.get(command, SMALLER["train_search.py"])
    if isinstance(error, torch.OutOfMemoryError):
        wanted = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
        return f"The GPU is out of memory{f' ({wanted[1]} more were needed)' if wanted else ''}: lower {smaller}"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        wanted = re.search(r"tried to allocate (\d+) bytes", text)
        more = f" ({int(wanted[1]) / 2**30:.3g} GiB more were needed)" if wanted else ""
        return f"The machine is out of memory{more}: lower {smaller}"
    if isinstance(error, BrokenProcessPool):
        return "A worker process was killed, perhaps for lack of memory: fewer at a time need less"
    if isinstance(error, RuntimeError) and re.search(r"DataLoader worker .*(exited|killed)", text):
        return "A process that decodes images was killed, perhaps for lack of memory: lower data.workers"
    once = re.search(r"derivative for (?:aten::)?(\w+) is not implemented|(once_differentiable)", text)
    if isinstance(error, RuntimeError) and once:
        return (
            f"An operation of the network has no second derivative ({once[1] or once[2]}): hypergradient=first_order "
            "and hypergradient=finite_difference need none, and neither does hyperparameters=fixed"
        )
    if isinstance(error, RanksDiffer):
        return text[:1].upper() + text[1:]
    if isinstance(error, torch.distributed.DistError) or "Connection closed by peer" in text:
        return f"Another process of this data-parallel run has gone ({text[:120]})"
    if isinstance(error, RuntimeError) and text.startswith("CUDA error"):
        return f"The GPU failed ({text.partition(' CUDA kernel errors')[0][:120]})"
    if isinstance(error, OSError):
        why = _WHY.get(error.errno or 0, error.strerror or text)
        return f"{error.filename}: {why}" if error.filename else why[:1].upper() + why[1:]
    return None
