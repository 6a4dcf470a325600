"""The C++ kernels in ``kernels/``: they are built at first use, loaded, called, and switched off.

The sources depend on nothing but a C++20 compiler, so they are built in seconds, once per machine, into
``~/.cache/nas`` (or ``$XDG_CACHE_HOME/nas``). Without a compiler, or with ``NAS_KERNELS=off``, everything runs on stock
PyTorch with the same numbers, slower.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import require

SOURCES = Path(__file__).with_name("kernels")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp")
COMPILERS = ("g++", "c++", "clang++")
LONGEST_BUILD = 300  # seconds
DTYPES = (torch.float32, torch.float64)
_switched_off = 0


@contextmanager
def without_kernels() -> Iterator[None]:
    """A context without the kernels, as on a machine without a compiler."""
    global _switched_off
    _switched_off += 1
    try:
        yield
    finally:
        _switched_off -= 1


def usable(x: Tensor) -> bool:
    """Whether the kernels can compute on ``x``."""
    if _switched_off or x.device.type != "cpu" or x.dtype not in DTYPES or torch.compiler.is_compiling():
        return False
    return library() is not None


@cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels, built where they are not yet; None where they cannot be built or are switched off.

    Raises:
        InvalidValue: ``NAS_KERNELS`` is neither on nor off.
    """
    compiler = _compiler()
    if _switch() == "off" or compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_built(compiler)))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None  # an old compiler, a read-only home or none, no room left


def lacking() -> str | None:
    """Why there are no kernels, in words; None where there are, or where they are switched off."""
    if _switch() == "off" or library() is not None:
        return None
    if _compiler() is None:
        return f"no C++ compiler is here ({', '.join(COMPILERS)})"
    folder = _cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return f"{folder} cannot be written, name another folder with XDG_CACHE_HOME"
    return "the compiler failed"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "nas"


def _switch() -> str:
    value = os.environ.get("NAS_KERNELS", "on")
    require(value in ("on", "off"), "NAS_KERNELS", value, "it must be on or off")
    return value


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def _built(compiler: str) -> Path:
    folder = _cache()
    path = folder / f"kernels-{_fingerprint(compiler)}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / path.name
            command = [compiler, *FLAGS, str(SOURCES / "library.cpp"), "-o", str(fresh)]
            subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_BUILD)
            os.replace(fresh, path)  # in one piece, even where several processes build at once
    return path


def _fingerprint(compiler: str) -> str:
    """A hash of everything that the binary depends on: a home folder may be shared by unlike machines."""
    sources = [path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.is_file()]
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    parts = [*sources, " ".join(FLAGS).encode(), version, platform.machine().encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


class Settings(ctypes.Structure):
    """What a kernel reads: numbers, and the addresses of tensors, which are kept alive as long as the settings."""

    def __init__(self, **values: "int | Tensor | Sequence[Tensor] | ctypes.Array[Any] | None") -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.fill(threads=torch.get_num_threads(), **values)

    def fill(self, **values: "int | Tensor | Sequence[Tensor] | ctypes.Array[Any] | None") -> None:
        """Set fields: a tensor stands for its address, a sequence of tensors for an array of their addresses."""
        for name, value in values.items():
            self.kept.append(value)
            if isinstance(value, Tensor):
                value = value.data_ptr()
            elif isinstance(value, list | tuple):
                addresses = (ctypes.c_void_p * len(value))(*(tensor.data_ptr() for tensor in value))
                self.kept.append(addresses)
                value = ctypes.addressof(addresses)
            setattr(self, name, value)

    def run(self, name: str, dtype: torch.dtype) -> None:
        """Call the kernel ``name``, which writes where the addresses lead."""
        run(self, name, dtype)


def run(settings: ctypes.Structure, name: str, dtype: torch.dtype) -> None:
    """Call the kernel ``name`` with ``settings``, whose addresses are those of tensors that live on."""
    loaded = library()
    assert loaded is not None
    getattr(loaded, name)(ctypes.byref(settings), ctypes.c_int64(dtype == torch.float64))


def numbers(*names: str) -> list[tuple[str, Any]]:
    """Fields of :class:`Settings` that hold whole numbers."""
    return [(name, ctypes.c_int64) for name in names]


def addresses(*names: str) -> list[tuple[str, Any]]:
    """Fields of :class:`Settings` that hold addresses."""
    return [(name, ctypes.c_void_p) for name in names]
