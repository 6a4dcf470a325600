"""What a machine does to a run, in one sentence: a full disk, a vanished folder, no memory left, a killed worker."""

import errno
import re
from concurrent.futures.process import BrokenProcessPool

import torch

from nas.distributed import RanksDiffer

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


def fault_sentence(error: BaseException, command: str = "train_search.py") -> str | None:
    """What has happened, without a full stop, or None where ``error`` is no fault of the machine's.

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
        return "A process that decodes images was killed, perhaps for lack of memory: lower data.decoding.workers"
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
