"""What may be missing around a run that it can do without: readers of its output, caches, a user's name, a display;
and how the user's shell calls this Python.

Call :func:`adapt_to_surroundings` before PyTorch is imported, which looks at some of this while it is.
"""

import getpass
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

_told: list[str] = []


def adapt_to_surroundings() -> None:
    """Let this process do without what is missing or cannot be used, and say so once."""
    os.environ["MPLBACKEND"] = "agg"  # drawings go to files: a display, or a name that matplotlib refuses, is no matter
    for descriptor in (0, 1, 2):  # a file of the run's must not take the place of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    closed = sys.stdout is None
    sys.stderr = Tolerant(sys.stderr or os.fdopen(2, "w", closefd=False), 2)
    sys.stdout = Tolerant(sys.stdout or os.fdopen(1, "w", closefd=False), 1)
    if closed:
        say("standard output is closed: what is printed is lost, the run goes on")
    _without_a_name()
    _without_the_cache("TORCHINDUCTOR_CACHE_DIR")


def say(sentence: str) -> None:
    """Print ``sentence`` on standard error, once, by the first process of a data-parallel run."""
    if sentence not in _told and os.environ.get("RANK", "0") == "0":
        _told.append(sentence)
        print(sentence, file=sys.stderr, flush=True)


class Tolerant:
    """A stream that is written to as long as that works: a run must not end because nobody reads what it prints.

    Args:
        stream: Standard output or standard error.
        descriptor: Its number.
    """

    def __init__(self, stream: TextIO, descriptor: int) -> None:
        self._stream, self._descriptor = stream, descriptor
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a locale that lacks a character, such as C

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._go_on_without(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._go_on_without(error)

    def _go_on_without(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._descriptor)  # what is still in buffers goes there, too
        os.close(nowhere)
        if self._descriptor == 1:
            reason = "nobody reads the output any more" if isinstance(error, BrokenPipeError) else error.strerror
            say(f"standard output cannot be written ({reason}): what is printed is lost, the run goes on")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _without_a_name() -> None:
    """Give this process's user a name where the machine knows none, as in a container: PyTorch asks for it."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user-{os.getuid()}"


def _without_the_cache(variable: str) -> None:
    """Let PyTorch choose its folder where ``variable`` names one that cannot be made or written."""
    folder = os.environ.get(variable)
    if not folder or can_be_written(folder):
        return
    del os.environ[variable]
    say(f"{variable}={folder} cannot be written: the run goes on without it; name a folder that can be")


def can_be_written(folder: str) -> bool:
    """Whether files can be made in ``folder``, which is made if it is missing."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def typed_path(path: Path | str) -> str:
    """``path`` as an argument in a shell that no command takes for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def typed_python() -> str:
    """How this interpreter is called in the user's shell, whose ``python`` may be another one."""
    found = shutil.which("python")
    if found is not None and _installation(found) == _installation(sys.executable):
        return "python"
    path = from_here(Path(sys.executable))
    return typed_path(path if "/" in str(path) else f"./{path}")


def _installation(interpreter: str) -> tuple[str, str]:
    """What two names of one interpreter share: those of two virtual environments are links to one file."""
    return os.path.realpath(os.path.dirname(interpreter)), os.path.realpath(interpreter)


def from_here(path: Path) -> Path:
    """``path``, relative where it is below the present folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
