"""What the entry points share: the way from the command line to a run, exit codes, and where messages go.

Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped and resumable.
"""

import logging
import os
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from nas.configuration import known_settings, settings_of_options, unknown_setting
from nas.distributed import ShareDone, current_ranks, join
from nas.errors import InvalidValue, RunFailed, UnusableInput, fault_sentence, require
from nas.run.folder import RunFolder, own_run_folder, refuse_a_run
from nas.run.overrides import (
    as_typed,
    at_home,
    escaped,
    experiment_that_sets,
    hydra_path,
    overridden_key,
    parse_overrides,
    value_of,
)
from nas.run.ownership import claimed
from nas.run.recorded import (
    command_for,
    forget_configuration,
    record_configuration,
    recorded_overrides,
    resumed_configuration,
)
from nas.run.sweep import BAD_INPUT, FAILED, JobRecord, SweepRefused, led_sweep, refuse_other_job
from nas.stopping import STOPPED, Stopped
from nas.surroundings import typed_python

_HYDRA_ADVICE = re.compile("Config search path:|See https:")  # what comes next is no part of a sentence
_NOT_FOUND = re.compile(r"To append to your config use \+([^=]*)=(.*)", re.DOTALL)
_PLUGIN = re.compile(r"hydra/(launcher|sweeper)/(\w+)|hydra/\w+_logging/(colorlog)")
_PLUGINS = {  # what pip calls the packages of those options of Hydra that come in packages of their own
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
    "ray_aws": "hydra-ray-launcher",
    "rq": "hydra-rq-launcher",
    "optuna": "hydra-optuna-sweeper",
    "ax": "hydra-ax-sweeper",
    "nevergrad": "hydra-nevergrad-sweeper",
    "colorlog": "hydra-colorlog",
}
log = logging.getLogger(__name__)
Result = TypeVar("Result")


def start(
    command: str,
    run: Callable[[DictConfig, Path], None],
    compose: Callable[[], None],
    prepare: Callable[[Sequence[str]], Sequence[str]],
    inherit: Callable[[DictConfig, Sequence[str]], DictConfig] | None = None,
) -> None:
    """The way from the command line to a run: resume it, or check the arguments and let Hydra compose it.

    Args:
        command: The entry point's file name.
        run: Runs a configuration in a folder.
        compose: Hydra's main function, which ends in :func:`run_composed`.
        prepare: Refuses arguments for which Hydra prints a traceback, or which would overwrite a run. What it returns
            is what Hydra reads.
        inherit: Makes the configuration that runs from the one that Hydra composed and the overrides.
    """
    arguments = sys.argv[1:] = [at_home(one) for one in sys.argv[1:]]
    if not guarded(join, command).is_first:  # torchrun: the first rank composes, checks, prints and writes for all
        return follow(run, command)
    folder = guarded(lambda: resumed_folder(arguments), command)
    if guarded(lambda: run_resumed(arguments, on_all_ranks(run), inherit, command), command, folder):
        return None
    guarded(lambda: _refuse_flags(arguments), command)
    sys.argv[1:] = guarded(lambda: prepare(arguments), command)
    named = value_of(arguments, "hydra.run.dir") or ""
    _unread.append(CommandLine(tuple(arguments), os.path.abspath(named) if os.path.isdir(named) else None))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and they are told in one sentence
    code = 0
    try:
        guarded(lambda: _call_hydra(compose), command)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else FAILED
        if led_sweep() is None:
            raise
    sweep = led_sweep()
    if sweep is not None:
        code = sweep.conclude(command, code)
    if code:
        sys.exit(code)
    return None


def _refuse_flags(arguments: Sequence[str]) -> None:
    """Refuse flags that Hydra's parser would refuse with its whole usage, and words that are no settings.

    Raises:
        UnusableInput: It cannot read them.
    """
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        way_out = "flags go before or behind all settings"
        if message.startswith("unrecognized arguments: -"):  # those of other programs: --epochs 3
            way_out = "settings have no dashes: search.epochs=3"
        raise UnusableInput(f"{message[:1].upper()}{message[1:]}; {way_out} (--hydra-help).")

    parser.error = error  # type: ignore[method-assign]
    for word in parser.parse_args(list(arguments)).overrides:
        if "=" not in word and not word.startswith("~"):
            raise UnusableInput(f"{word!r} is no setting: it must be key=value, with no space beside the =.")


@dataclass(frozen=True)
class CommandLine:
    """A command line before Hydra has read it.

    Attributes:
        arguments: Those that were typed, without what goes along with them.
        folder: The run folder's absolute path if it is there already; Hydra makes one that is missing.
    """

    arguments: tuple[str, ...] = ()
    folder: str | None = None


_unread: list[CommandLine] = []  # until a run begins: from then on, a failure is none of the command line's


def _call_hydra(compose: Callable[[], None]) -> None:
    """Call Hydra's main function.

    Raises:
        UnusableInput: Hydra has failed before any run began, in a way that is none of its own errors.
        RunFailed: A sweep's launcher has.
    """
    try:
        compose()
    except SweepRefused as refused:
        raise refused.reason from refused
    except (HydraException, OmegaConfBaseException, InvalidValue, UnusableInput):
        raise
    except Exception as error:
        if not _unread or fault_sentence(error) is not None:
            raise
        sweep = led_sweep()
        if sweep is not None and (sweep.folder / "multirun.yaml").exists():
            raise RunFailed(f"The launcher has failed: {_in_one_line(str(error))}.") from error
        raise UnusableInput(f"The configuration cannot be composed: {_in_one_line(str(error))}.") from error


def run_composed(
    command: str,
    run: Callable[[DictConfig, Path], None],
    config: DictConfig,
    inherit: Callable[[DictConfig, Sequence[str]], DictConfig] | None = None,
) -> int:
    """Run what Hydra composed, in the folder that it names; the arguments are those of :func:`start`.

    Returns:
        The exit code of a job of a multirun. A single run ends the process instead if it is not 0.
    """
    hydra: Any = HydraConfig.get()
    job = _Job(command, on_all_ranks(run), inherit, config, hydra, as_typed(hydra.overrides.task))
    path = hydra_path(hydra, "output_dir")
    given = _unread.pop() if _unread else CommandLine()
    if given.arguments:
        sys.argv[1:] = given.arguments  # Hydra has read them, and from here on they are only told
    # Paths are of the folder where the command was typed, whatever hydra.job.chdir says.
    with chdir(hydra_path(hydra, "cwd")):
        if hydra.mode == RunMode.MULTIRUN:
            return _run_job(job)
        guarded(lambda: _run_alone(job, given), command, path)
    return 0


@dataclass(frozen=True)
class _Job:
    """A run that Hydra has composed.

    Attributes:
        command, run, inherit: Those of :func:`start`.
        config: The run's configuration.
        hydra: Hydra's own.
        overrides: What was typed.
    """

    command: str
    run: Callable[[DictConfig, Path], None]
    inherit: Callable[[DictConfig, Sequence[str]], DictConfig] | None
    config: DictConfig
    hydra: Any
    overrides: Sequence[str]


def _run_alone(job: _Job, given: CommandLine) -> None:
    """Run in the folder that Hydra names, or in one beside it; what was made for a run that is refused goes again."""
    hydra = job.hydra
    own = path = hydra_path(hydra, "output_dir")
    explicit = value_of(as_typed(hydra.overrides.hydra), "hydra.run.dir") is not None
    try:
        with own_run_folder(path, "hydra.run.dir", explicit, refuse_a_run) as own:
            guarded(lambda: _run_fresh(job, own), job.command, own)
    except SystemExit as end:
        made_for_it = not hydra.job.chdir and os.path.abspath(own) != given.folder
        if end.code == BAD_INPUT and made_for_it:
            with suppress(OSError):  # it is not empty
                own.rmdir()
        raise


def _run_fresh(job: _Job, folder: Path) -> None:
    """Begin a run in ``folder``, which is this process's own and holds none; what runs is what is recorded."""
    hydra, overrides = job.hydra, job.overrides
    settings = job.config if job.inherit is None else job.inherit(job.config, overrides)
    with read_write(hydra.runtime):
        hydra.runtime.output_dir = escaped(str(folder))
    record_configuration(folder, settings, hydra, overrides)
    try:
        job.run(settings, folder)
    except Exception as error:
        ending = _code_and_sentence(error, "", None)
        if ending is not None and ending[0] == BAD_INPUT and hydra.mode == RunMode.RUN:
            forget_configuration(folder)
        if isinstance(error, InvalidValue) and (name := _experiment_behind(error, hydra, overrides)):
            allowed = f"{error.allowed}; experiment={name} sets it"
            raise InvalidValue(error.key, error.value, allowed) from error
        raise


def _experiment_behind(error: InvalidValue, hydra: DictConfig, overrides: Sequence[str]) -> str:
    """The experiment that sets what ``error`` is about, where the command line does not: it goes with another space."""
    folders = [
        Path(one.path) for one in hydra.runtime.config_sources if one.schema == "file" and one.provider == "main"
    ]
    return experiment_that_sets(error.key, overrides, folders[0]) if folders else ""


def _run_job(job: _Job) -> int:
    """Run, resume or skip a job of a multirun, and note how it ended: it must not decide over the others.

    Returns:
        Its exit code.
    """
    command, hydra, overrides = job.command, job.hydra, job.overrides
    folder, sweep = hydra_path(hydra, "output_dir"), Path(hydra.sweep.dir)
    name = f"job {hydra.job.num}"

    def work() -> None:
        with claimed(folder, "hydra.sweep.dir", "wait until it has ended or name another"):
            found = RunFolder(folder)
            if not found.holds_a_run():
                return _run_fresh(job, folder)
            refuse_other_job(folder, overrides, name)
            if found.is_finished():
                return log.info(f"{name} is done already: {folder}")
            tracking = [one for one in overrides if overridden_key(one).startswith("tracking.")]
            job.run(resumed_configuration(tracking, folder), folder)

    record = JobRecord(hydra.job.num, list(overrides), None)
    record.write(sweep)
    code = 0
    try:
        with messages_on_console():
            work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED
    except BaseException as error:
        ending = _code_and_sentence(error, command, folder)
        if ending is None:
            traceback.print_exc()
        code, sentence = ending or (FAILED, f"{command}: {name} failed: {type(error).__name__}.")
        print(sentence, file=sys.stderr, flush=True)
    replace(record, code=code).write(sweep)
    if code == STOPPED and led_sweep() is not None:  # whoever stops the process of the sweep stops the sweep
        sys.exit(STOPPED)
    return code


def resumed_folder(arguments: Sequence[str]) -> Path | None:
    """The run folder that ``resume=`` names, if it is among ``arguments``."""
    named = value_of(arguments, "resume")
    return None if named is None else Path(named)


def on_all_ranks(run: Callable[[DictConfig, Path], None]) -> Callable[[DictConfig, Path], None]:
    """``run``, begun by the first rank of a data-parallel run for all of them, with its configuration and folder."""

    def running(config: DictConfig, folder: Path) -> None:
        current_ranks().share((OmegaConf.to_yaml(config), str(folder)))
        run(config, folder)

    return running


def follow(run: Callable[[DictConfig, Path], None], command: str) -> None:
    """What the other ranks do: wait for what the first one was told to run, and run it, too."""

    def work() -> None:
        text, folder = current_ranks().share()
        config = OmegaConf.create(text)
        assert isinstance(config, DictConfig)
        with suppress(ShareDone):
            run(config, Path(folder))

    guarded(work, command)


def run_resumed(
    arguments: Sequence[str],
    run: Callable[[DictConfig, Path], None],
    inherit: Callable[[DictConfig, Sequence[str]], DictConfig] | None = None,
    command: str = "",
) -> bool:
    """Continue the run that ``resume=<run folder>`` names, if it is among ``arguments``; Hydra has no part in it.

    Args:
        run: Called with the run's configuration and folder.
        inherit: See :func:`start`; for a run that was killed before its first checkpoint, and may not have recorded it.
        command: The entry point's file name; a run of the other one is refused.
    """
    folder = resumed_folder(arguments)
    if folder is None:
        return False
    config = resumed_configuration(arguments, folder)
    other = "train_final.py" if "candidate" in config else "train_search.py"
    allowed = f"it is a run of {other}: {command_for(other, 'resume', folder)}"
    require(command in ("", other), "resume", folder, allowed)
    with claimed(folder, "resume", "wait until it has ended"):
        if not RunFolder(folder).checkpoints.files():
            overrides = recorded_overrides(folder)
            config = config if inherit is None else inherit(config, overrides)
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
    except (Exception, KeyboardInterrupt) as error:
        ending = _code_and_sentence(error, command, folder)
        if ending is None:
            raise
        if not current_ranks().is_first and isinstance(error, torch.distributed.DistError):
            sys.exit(FAILED)  # whoever has gone, and the first rank, tell it
        _leave(*ending)


def _code_and_sentence(error: BaseException, command: str, folder: Path | None) -> tuple[int, str] | None:
    """The exit code and the sentence that ``error`` ends the process with; None for a mistake in the program."""
    if isinstance(error, InvalidValue | UnusableInput):
        return BAD_INPUT, f"{command}: {error}"
    if isinstance(error, HydraException):
        if (unknown := _unknown_setting(error)) is not None:
            return BAD_INPUT, f"{command}: {unknown}"
        return BAD_INPUT, f"{command}: The configuration cannot be composed: {_in_one_line(str(error))}."
    if isinstance(error, OmegaConfBaseException):
        first, *rest = str(error).splitlines() or [type(error).__name__]
        keys = (line.partition("full_key: ")[2] for line in rest)
        if (gone := _taken_away(first)) is not None:
            return BAD_INPUT, f"{command}: ~{gone} is not allowed: a run needs {gone}."
        where = next((f"{key}: " for key in keys if key and key not in first), "")
        return BAD_INPUT, f"{command}: The configuration cannot be read: {where}{first.removesuffix('.')}."
    if isinstance(error, Stopped):
        return STOPPED, f"stopped at step {error.step}; go on with: {command_for(command, 'resume', error.folder)}"
    if isinstance(error, FloatingPointError):
        return FAILED, f"{command}: {error}."
    if isinstance(error, RunFailed):
        return FAILED, f"{command}: {error}"
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, f"{command}: interrupted between steps; go on with resume=<run folder> if it had begun"
    sentence = fault_sentence(error, command)
    return None if sentence is None else (FAILED, f"{command}: {sentence}{_how_to_resume(command, folder)}.")


def _taken_away(message: str) -> str | None:
    """The key that is missing, as OmegaConf's ``message`` says, since ``~key`` was typed; None for any other."""
    found = re.match(r"Key '(.*)' is not in struct", message)
    typed = [one.key_or_group for one in parse_overrides(sys.argv[1:]) if one.is_delete()]
    return found[1] if found is not None and found[1] in typed else None


def _unknown_setting(error: HydraException) -> InvalidValue | None:
    """What the project says of a setting that ``error`` does not find; Hydra advises to add it, which fails, too."""
    cause, found = error.__cause__, _NOT_FOUND.search(str(error))
    if found is None or not isinstance(cause, OmegaConfBaseException):
        return None
    group = cause.parent_node
    if not isinstance(group, DictConfig) or str(cause.full_key).startswith("hydra."):
        return None
    key, _, name = str(cause.full_key).rpartition(".")
    allowed = unknown_setting(group, key, name)
    if allowed is not None and (swept := _swept(key)) is not None:
        listed = list(swept.sweep_string_iterator()) if isinstance(swept.value(), ChoiceSweep) else []
        names, command = settings_of_options(key, listed), swept.input_line or ""
        each = shlex.quote(f"{found[1]}=choice({found[2]})")
        of_jobs = f"a sweep over {command} reads it before there is a job with one of them; {each} is read in each job"
        allowed = of_jobs if not names or name in names or "." in key else known_settings(command, name, names)
    return None if allowed is None else InvalidValue(found[1], found[2], allowed)


def _swept(key: str) -> Override | None:
    """``data=table,arrays``, where the command line sweeps over the group that ``key`` is of."""
    group = key.partition(".")[0]
    swept = [one for one in parse_overrides(sys.argv[1:]) if one.key_or_group == group and one.is_sweep_override()]
    return swept[-1] if swept else None


def _in_one_line(text: str) -> str:
    """Hydra's message without its advice, and with the package that an option of Hydra's own needs."""
    paragraphs = _HYDRA_ADVICE.split(text)[0].strip().split("\n\n")
    reason = "; ".join(" ".join(one.split()) for one in paragraphs if one.strip()).removesuffix(".")
    reason = reason.replace("argument '++", "argument '")  # see with_keys_of_run: nobody has typed it
    missing = _PLUGIN.search(reason)
    option = (missing[2] or missing[3]) if missing else None
    if option not in _PLUGINS:
        return reason
    return f"{reason}; {option} needs: {typed_python()} -m pip install {_PLUGINS[option]}"


class _Console(logging.Handler):
    """Prints messages on standard output as it is at the time, which a progress bar or a test may have replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(lambda record: current_ranks().is_first)  # what the ranks do together is told once

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


def _how_to_resume(command: str, folder: Path | None) -> str:
    steps = [] if folder is None else RunFolder(folder).checkpoints.steps()
    if folder is None or not steps:
        return ""
    return f"; the checkpoint of step {steps[-1]} is kept: {command_for(command, 'resume', folder)}"


def _silent_where_told_elsewhere(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread hands what goes wrong on to the run, which tells it: no traceback beside that."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)


def _leave(code: int, sentence: str) -> NoReturn:
    if current_ranks().is_first or code == FAILED:  # what the ranks do together is told once
        print(sentence, file=sys.stderr)
    sys.exit(code)
