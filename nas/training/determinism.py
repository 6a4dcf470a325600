"""Deterministic algorithms where PyTorch has them, and the names of what it cannot do so."""

import os
import re
import warnings
from collections.abc import Callable
from typing import TextIO

import torch

_CANNOT = re.compile(r"^(.+?) does not have a deterministic implementation")


def use_deterministic_algorithms(say: Callable[[str], None] = print) -> None:
    """Switch them on for this process. An operation that has none still runs, and is named once, when it is first used.

    On a GPU this must come before anything is computed there: cuBLAS reads its workspace's size only once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    named: set[str] = set()
    show = warnings.showwarning

    def telling(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        found = _CANNOT.match(str(message))
        if found is None:
            show(message, category, filename, lineno, file, line)
        elif found[1] not in named:
            named.add(found[1])
            say(f"training.deterministic: PyTorch has no deterministic {found[1]}; it may differ from run to run")

    warnings.showwarning = telling
    warnings.filterwarnings("always", message=r".* does not have a deterministic implementation")
