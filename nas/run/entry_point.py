"""What both entry points share: exit codes, and the way from the command line to a run.

Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped and resumable.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.distributed import ShareDone, present
from nas.errors import InvalidValue, RunFailed, UnusableInput, fault_sentence
from nas.run.folder import RunFolder, argument_value, overrides_of, resumed_configuration
from nas.stopping import STOPPED, Stopped

FAILED, BAD_INPUT = 1, 2
Result = TypeVar("Result")


def refuse_groups_without_option(arguments: Sequence[str], conf: Path) -> None:
    """Refuse ``data=null``, ``data=3`` and the like, which Hydra tells with a traceback.

    Args:
        arguments: The command line.
        conf: The folder of the configuration, a folder per group.

    Raises:
        InvalidValue: A group is given no option.
    """
    for argument in arguments:
        name, separator, value = argument.partition("=")
        group = name.lstrip("+").partition("@")[0]
        if separator and group and _names_no_option(value) and (conf / group).is_dir():
            options = ", ".join(sorted(file.stem for file in (conf / group).glob("*.yaml")))
            shown = None if value in ("", "null") else value
            raise InvalidValue(name.lstrip("+"), shown, f"it must be one of {options}, or left out")


def _names_no_option(value: str) -> bool:
    """Whether Hydra reads ``value``, or one in it where it is a list, as nothing, a truth value or a number."""
    if value.startswith("[") and value.endswith("]"):
        return any(_names_no_option(one.strip()) for one in value[1:-1].split(","))
    try:
        float(value)
    except ValueError:
        return value.lower() in ("", "null", "true", "false")
    return True


def resumed_folder(arguments: Sequence[str]) -> Path | None:
    """The run folder that ``resume=`` names, if it is among ``arguments``."""
    named = argument_value(arguments, "resume")
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
        begin: What the entry point does to the configuration, given its overrides, before a run begins: a run that was
            killed before its first checkpoint may not have come so far as to record what it did.
    """
    folder = resumed_folder(arguments)
    if folder is None:
        return False
    config = resumed_configuration(arguments, folder)
    if not RunFolder(folder).checkpoints.files():
        overrides = overrides_of(folder)
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
        return work()
    except (InvalidValue, UnusableInput) as error:
        _leave(BAD_INPUT, f"{command}: {error}")
    except OmegaConfBaseException as error:
        _leave(BAD_INPUT, f"{command}: The configuration cannot be read: {str(error).splitlines()[0]}.")
    except Stopped as stop:
        _leave(STOPPED, f"stopped at step {stop.step}; go on with: python {command} resume={stop.folder}")
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


def _way_on(command: str, folder: Path | None) -> str:
    steps = [] if folder is None else RunFolder(folder).checkpoints.steps()
    return f"; the checkpoint of step {steps[-1]} is kept: python {command} resume={folder}" if steps else ""


def _silent_where_told_elsewhere(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread hands what goes wrong on to the run, which tells it: no traceback beside that."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)


def _leave(code: int, sentence: str) -> None:
    if present().is_first or code == FAILED:  # what the ranks do together is told once
        print(sentence, file=sys.stderr)
    sys.exit(code)
