"""What the entry points share: the way from the command line to a run, exit codes, and where messages go.

Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped and resumable.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.distributed import ShareDone, join, present
from nas.errors import InvalidValue, RunFailed, UnusableInput, fault_sentence
from nas.run.checkpoint import write_atomically
from nas.run.folder import RunFolder
from nas.run.overrides import typed, value_of
from nas.run.recorded import recorded_overrides, resumed_configuration
from nas.stopping import STOPPED, Stopped

FAILED, BAD_INPUT = 1, 2
_HYDRA_ADVICE = re.compile("Config search path:|See https:")  # what comes next is no part of a sentence
Result = TypeVar("Result")


def start(
    command: str,
    run: Callable[[DictConfig, Path], None],
    compose: Callable[[], None],
    check: Callable[[Sequence[str]], None],
    begin: Callable[[DictConfig, Sequence[str]], DictConfig] | None = None,
) -> None:
    """The way from the command line to a run: resume it, or check the arguments and let Hydra compose it.

    Args:
        command: The entry point's file name.
        run: Runs a configuration in a folder.
        compose: Hydra's main function, which ends in :func:`run_composed`.
        check: Refuses arguments for which Hydra prints a traceback, or which would overwrite a run.
        begin: Makes the configuration that runs from the one that Hydra composed and the overrides.
    """
    arguments = sys.argv[1:]
    if not join().is_first:  # torchrun: the first rank composes, checks, prints and writes for all
        return follow(run, command)
    folder = guarded(lambda: resumed_folder(arguments), command)
    if guarded(lambda: run_resumed(arguments, on_all_ranks(run), begin), command, folder):
        return None
    guarded(lambda: check(arguments), command)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on, and they are told in one sentence
    return guarded(compose, command)


def run_composed(
    command: str,
    run: Callable[[DictConfig, Path], None],
    config: DictConfig,
    begin: Callable[[DictConfig, Sequence[str]], DictConfig] | None = None,
) -> None:
    """Run what Hydra composed, in the folder that Hydra made for it; the arguments are those of :func:`start`."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)

    def work() -> None:
        settings = config if begin is None else begin(config, hydra.overrides.task)
        RunFolder(folder).refuse_if_occupied()  # again: only now are interpolations in its name resolved
        if begin is not None:  # what runs is what is resumed
            write_atomically(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(settings).encode())
        on_all_ranks(run)(settings, folder)

    guarded(work, command, folder)


def resumed_folder(arguments: Sequence[str]) -> Path | None:
    """The run folder that ``resume=`` names, if it is among ``arguments``."""
    named = value_of(arguments, "resume")
    return None if named is None else Path(named)


def on_all_ranks(run: Callable[[DictConfig, Path], None]) -> Callable[[DictConfig, Path], None]:
    """``run``, begun by the first rank of a data-parallel run for all of them, with its configuration and folder."""

    def running(config: DictConfig, folder: Path) -> None:
        present().share((OmegaConf.to_yaml(config), str(folder)))
        run(config, folder)

    return running


def follow(run: Callable[[DictConfig, Path], None], command: str) -> None:
    """What the other ranks do: wait for what the first one was told to run, and run it, too."""

    def work() -> None:
        text, folder = present().share()
        config = OmegaConf.create(text)
        assert isinstance(config, DictConfig)
        with suppress(ShareDone):
            run(config, Path(folder))

    guarded(work, command)


def run_resumed(
    arguments: Sequence[str],
    run: Callable[[DictConfig, Path], None],
    begin: Callable[[DictConfig, Sequence[str]], DictConfig] | None = None,
) -> bool:
    """Continue the run that ``resume=<run folder>`` names, if it is among ``arguments``; Hydra has no part in it.

    Args:
        run: Called with the run's configuration and folder.
        begin: See :func:`start`. A run that was killed before its first checkpoint may not have recorded what it made.
    """
    folder = resumed_folder(arguments)
    if folder is None:
        return False
    config = resumed_configuration(arguments, folder)
    if not RunFolder(folder).checkpoints.files():
        overrides = recorded_overrides(folder)
        config = config if begin is None else begin(config, overrides)
    run(config, folder)
    return True


def guarded(work: Callable[[], Result], command: str, folder: Path | None = None) -> Result:
    """The result of ``work``, or the end of the process with one sentence and its exit code.

    Args:
        work: What may fail.
        command: The entry point's file name.
        folder: The run folder, whose last checkpoint is named where the machine fails the run.
    """
    threading.excepthook = _silent_where_told_elsewhere
    try:
        with messages_on_console():
            return work()
    except (InvalidValue, UnusableInput) as error:
        _leave(BAD_INPUT, f"{command}: {error}")
    except HydraException as error:
        paragraphs = _HYDRA_ADVICE.split(str(error))[0].strip().split("\n\n")
        reason = "; ".join(" ".join(one.split()) for one in paragraphs).removesuffix(".")
        _leave(BAD_INPUT, f"{command}: The configuration cannot be composed: {reason}.")
    except OmegaConfBaseException as error:
        _leave(BAD_INPUT, f"{command}: The configuration cannot be read: {str(error).splitlines()[0]}.")
    except Stopped as stop:
        _leave(STOPPED, f"stopped at step {stop.step}; go on with: python {command} {typed('resume', stop.folder)}")
    except FloatingPointError as error:
        _leave(FAILED, f"{command}: {error}.")
    except RunFailed as error:
        _leave(FAILED, f"{command}: {error}")
    except KeyboardInterrupt:
        _leave(STOPPED, f"{command}: interrupted between steps; go on with resume=<run folder> if it had begun")
    except Exception as error:
        sentence = fault_sentence(error, command)
        if sentence is None:
            raise
        if not present().is_first and isinstance(error, torch.distributed.DistError):
            sys.exit(FAILED)  # whoever has gone, and the first rank, tell it
        _leave(FAILED, f"{command}: {sentence}{_way_on(command, folder)}.")
    raise AssertionError("unreachable")


class _Console(logging.Handler):
    """Prints messages on standard output as it is at the time, which a progress bar or a test may have replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(lambda record: present().is_first)  # what the ranks do together is told once

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


@contextmanager
def messages_on_console() -> Iterator[None]:
    """In the block, what the package logs (logger ``nas``, level INFO) is printed; in a block inside another, once."""
    logger = logging.getLogger("nas")
    if any(isinstance(handler, _Console) for handler in logger.handlers):
        yield
        return
    level, propagate, console = logger.level, logger.propagate, _Console()
    logger.addHandler(console)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Hydra gives the root logger a handler of its own
    try:
        yield
    finally:
        logger.removeHandler(console)
        logger.setLevel(level)
        logger.propagate = propagate


def _way_on(command: str, folder: Path | None) -> str:
    steps = [] if folder is None else RunFolder(folder).checkpoints.steps()
    return f"; the checkpoint of step {steps[-1]} is kept: python {command} {typed('resume', folder)}" if steps else ""


def _silent_where_told_elsewhere(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread hands what goes wrong on to the run, which tells it: no traceback beside that."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)


def _leave(code: int, sentence: str) -> None:
    if present().is_first or code == FAILED:  # what the ranks do together is told once
        print(sentence, file=sys.stderr)
    sys.exit(code)
