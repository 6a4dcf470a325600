"""What both entry points share: exit codes, and the way from the command line to a run.

Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped and resumable.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig

from nas.configuration import InvalidValue, UnusableInput
from nas.training.interruption import Stopped
from nas.training.run_folder import argument_value, resumed_configuration

FAILED, BAD_INPUT, STOPPED = 1, 2, 75

Result = TypeVar("Result")


class RunFailed(Exception):  # noqa: N818
    """The run cannot go on, through no fault of its input; told in one sentence."""


def run_resumed(arguments: Sequence[str], run: Callable[[DictConfig, Path], None]) -> bool:
    """Continue the run that ``resume=<run folder>`` names, if it is among ``arguments``; Hydra has no part in it."""
    folder = argument_value(arguments, "resume")
    if folder is None:
        return False
    run(resumed_configuration(arguments, Path(folder)), Path(folder))
    return True


def guarded(work: Callable[[], Result], command: str) -> Result:
    """The result of ``work``, or the end of the process with one sentence and its exit code."""
    try:
        return work()
    except (InvalidValue, UnusableInput) as error:
        _leave(BAD_INPUT, f"{command}: {error}")
    except Stopped as stop:
        _leave(STOPPED, f"stopped at step {stop.step}; go on with: python {command} resume={stop.folder}")
    except FloatingPointError as error:
        _leave(FAILED, f"{command}: {error}.")
    except RunFailed as error:
        _leave(FAILED, f"{command}: {error}")
    except KeyboardInterrupt:
        _leave(STOPPED, f"{command}: interrupted between steps; go on with resume=<run folder> if it had begun")
    raise AssertionError("unreachable")


def _leave(code: int, sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(code)
