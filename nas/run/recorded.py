"""The configuration of an earlier run: read for resuming it, and for the retraining that inherits its settings."""

import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from nas.configuration import say_trust, trusted_packages
from nas.errors import InvalidValue, NotTrusted, UnusableInput, require
from nas.run.checkpoint import make_folder, write_atomically
from nas.run.overrides import (
    as_typed,
    escaped,
    hydra_path,
    overridden_key,
    parse_override,
    typed,
    typed_script,
    value_of,
)
from nas.run.ownership import NAME

OWN = ("candidate", "resume")  # what a retraining never inherits
DATA_PATHS = ("data.folder", "data.file", "data.test_file", "data.labels", "data.masks")
PATHS = ("candidate", "evaluation.path", "final.checkpoint", "search.from", *DATA_PATHS)
RECORDED = ("config", "hydra", "overrides")  # the files in .hydra, the last one written last
MOST_RUNS = 3  # that are named of many
# Settings that are gone, each with what its group has where that changes nothing: the value that is the only way today,
# or the class that decides nothing by it any more.
REMOVED = {"search.guard.pair": ("pair", "present"), "method.margin": ("_target_", "nas.search.Neighbours")}


def recorded_configuration(folder: Path) -> DictConfig:
    """The configuration of the run in ``folder``.

    Raises:
        InvalidValue: The folder holds no run.
        UnusableInput: The configuration cannot be read, or names something to call outside of this package.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        meant = meant_instead("resume", folder, ".hydra/config.yaml")
        raise InvalidValue("resume", folder, f"it must be the folder of a run, with .hydra/config.yaml in it{meant}")
    try:
        config = OmegaConf.load(path)
    except (OSError, OmegaConfBaseException, ValueError) as error:
        raise UnusableInput(f"The run's configuration {path} cannot be read.") from error
    except Exception as error:  # the YAML parser's own errors have no common base that omegaconf exports
        raise UnusableInput(f"The run's configuration {path} is not readable YAML.") from error
    if not isinstance(config, DictConfig):
        raise UnusableInput(f"The run's configuration {path} is not a group of settings.")
    _require_trusted(OmegaConf.to_container(config, resolve=False), path)
    _drop_removed_settings(config)
    _anchor_paths(config, folder)
    return config


def record_configuration(folder: Path, config: DictConfig, hydra: DictConfig, overrides: Sequence[str]) -> None:
    """Write what runs in ``folder``: ``config.yaml``, ``hydra.yaml`` and, last, ``overrides.yaml`` in ``.hydra``."""
    place = folder / ".hydra"
    make_folder(place)
    (place / "overrides.yaml").unlink(missing_ok=True)  # of a run that was killed before it began
    texts = OmegaConf.to_yaml(config), OmegaConf.to_yaml({"hydra": hydra}), OmegaConf.to_yaml(list(overrides))
    for name, text in zip(RECORDED, texts, strict=True):
        write_atomically(place / f"{name}.yaml", text.encode())


def forget_configuration(folder: Path) -> None:
    """Take back :func:`record_configuration` where nothing else has been written: the run was refused."""
    place = folder / ".hydra"
    inside = {one.name for one in folder.iterdir()} - {NAME}
    recorded = {one.name for one in place.iterdir()}
    if inside != {place.name} or not recorded <= {f"{name}.yaml" for name in RECORDED}:
        return
    for name in recorded:
        (place / name).unlink()
    place.rmdir()


def _anchor_paths(config: DictConfig, folder: Path) -> None:
    """Let relative paths be of the folder where the run's command was typed, if that has them."""
    try:
        typed_in = hydra_path(OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra, "cwd")
    except Exception:  # an older run, or one from elsewhere: there is no such folder to look in
        return
    if typed_in == Path.cwd():
        return
    for key in PATHS:
        path = OmegaConf.select(config, key, throw_on_missing=False)
        if isinstance(path, str) and not Path(path).is_absolute() and os.path.exists(typed_in / path):
            OmegaConf.update(config, key, escaped(str(typed_in / path)))


def resumed_configuration(arguments: Sequence[str], folder: Path) -> DictConfig:
    """The configuration of the run in ``folder``, with the overrides among ``arguments`` of ``tracking``, and of where
    the data lie by now.

    Raises:
        InvalidValue: An argument would change what is computed, or the folder holds no run.
        UnusableInput: See :func:`recorded_configuration`.
    """
    config = recorded_configuration(folder)
    allowed = "with resume= only tracking.* and where its data lie, data.folder say, may be set; the run keeps the rest"
    for argument in arguments:
        require(not argument.startswith("-"), argument, "", allowed)  # a flag of Hydra
        override = parse_override(argument)
        if override.key_or_group == "resume":
            continue
        name, value = override.get_key_element(), override.value()
        text = "" if override.value_type is None else override.get_value_string()
        longer = (
            "; for more epochs begin a new run from it: search.from=<run folder>" if name == "search.epochs" else ""
        )
        require(name.startswith("tracking.") or name in DATA_PATHS, name, text, allowed + longer)
        require(not override.is_sweep_override(), name, text, "with resume= it must be a single value")
        group, setting = name.split(".", 1)
        settings = config.get(group)
        if not isinstance(settings, DictConfig) or setting not in settings:
            raise InvalidValue(name, text, "there is no such setting")
        settings[setting] = value
    return config


def inherited_configuration(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``config`` with everything that was not overridden taken from the run folder ``config.candidate``.

    Args:
        config: What Hydra composed for the retraining; it has the search's groups.
        overrides: The command line's overrides, ``group=option`` and ``key=value``.

    Returns:
        ``config`` itself where the candidate is a lone file.
    """
    folder = Path(str(config.candidate))
    if not os.path.isfile(folder / ".hydra" / "config.yaml"):  # pathlib raises: a genotype is too long for a name
        return config
    run_config = recorded_configuration(folder)
    merged = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    assert isinstance(merged, DictConfig)
    overridden = [overridden_key(override) for override in overrides]
    everything = "experiment" in overridden  # an experiment may set anything, so it replaces the run's settings
    with open_dict(merged):
        for group in run_config:
            name = str(group)
            if everything or name in OWN or name in overridden:
                continue
            merged[name] = run_config[name]
            for key in overridden:
                if key.startswith(f"{name}."):
                    OmegaConf.update(merged, key, OmegaConf.select(config, key))
    return merged


def refuse_search_from(arguments: Sequence[str]) -> None:
    """Refuse ``search.from``: a retraining inherits it with the other settings of the search, and never looks at it.

    Raises:
        InvalidValue: It is among the ``arguments`` of a retraining.
    """
    given = value_of(arguments, "search.from")
    way = "a retraining begins with fresh weights, or with those of final.checkpoint=<weights.pt>"
    require(given is None, "search.from", given, f"it is for train_search.py; {way}")


def with_keys_of_run(arguments: Sequence[str], candidate: str) -> list[str]:
    """``arguments`` with ``++`` in front of each key that the run ``candidate`` has, so that Hydra takes it.

    Hydra composes the default data before the run's own are inherited, and refuses ``data.folder`` where the default
    data have no folder.
    """
    folder = Path(candidate)
    if not os.path.isfile(folder / ".hydra" / "config.yaml"):
        return list(arguments)
    config = recorded_configuration(folder)
    keys = [parse_override(one).key_or_group if "=" in one and one[0] not in "-+~" else "" for one in arguments]
    return [
        f"++{one}" if "." in key and key.split(".")[0] not in keys and _has(config, key) else one
        for one, key in zip(arguments, keys, strict=True)
    ]


def _has(config: DictConfig, key: str) -> bool:
    group, _, name = key.rpartition(".")
    settings = OmegaConf.select(config, group)
    return isinstance(settings, DictConfig) and name in settings


def recorded_overrides(folder: Path) -> list[str]:
    """The command line that began the run in ``folder``.

    Raises:
        InvalidValue: It was killed before Hydra had written its configuration.
    """
    path = folder / ".hydra" / "overrides.yaml"  # what Hydra writes last
    try:
        return as_typed(OmegaConf.load(path))
    except Exception as error:  # as above
        raise InvalidValue("resume", folder, "that run was killed before it began: start it again") from error


def is_asked_for(folder: Path, group: str, defaults: Collection[str]) -> bool:
    """Whether the option of ``group`` of the run in ``folder`` was typed, or is none of ``defaults``."""
    with suppress(InvalidValue):
        if value_of(recorded_overrides(folder), group) is not None:
            return True
        hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml")
        return bool(OmegaConf.select(hydra, f"hydra.runtime.choices.{group}") not in defaults)
    return False  # of a run that Hydra has not begun


def typed_settings(folder: Path, group: str) -> set[str]:
    """The settings of ``group`` that the command line of the run in ``folder`` names, whatever it gives them."""
    with suppress(InvalidValue):
        keys = [overridden_key(one).split(".") for one in recorded_overrides(folder)]
        return {key[1] for key in keys if key[0] == group and len(key) > 1}
    return set()


def _require_trusted(entry: object, path: Path) -> None:
    """Refuse a recorded configuration, which may come from elsewhere, that names something to call in other packages.

    Raises:
        NotTrusted: It does, and ``NAS_TRUST`` does not list that package.
    """
    trusted = trusted_packages()
    for target in _targets_in(entry):
        package = target.partition(".")[0]
        if package not in trusted:
            raise NotTrusted(f"The run's configuration {path} would call {target[:120]!r}: {say_trust(target)}.")


def _targets_in(entry: object) -> Iterator[str]:
    """The dotted path of everything that ``entry`` names to be called."""
    if isinstance(entry, dict):
        target = str(entry.get("_target_"))
        if "." in target:  # without a dot there is nothing to call
            yield target
    for one in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _targets_in(one)


def meant_instead(key: str, named: object, file: str) -> str:
    """Which run may be meant by ``key=named``, which is none: a question to put behind a sentence, or nothing.

    Args:
        file: What a run that will do has in its folder. It is looked for around ``named`` and one folder below it, as
            the jobs of a sweep lie.
    """
    path = Path(str(named))
    if not os.path.exists(path):
        return ""
    if os.path.isdir(path / "checkpoints") and file == "candidate.json" and not os.path.exists(path / "result.json"):
        return f"; that search has not finished, go on with {command_for('train_search.py', 'resume', path)}"
    around = [one for one in [*path.parents][:2] if os.path.isfile(one / file)]
    runs = around or sorted(one for one in path.glob("*") if os.path.isfile(one / file))[:MOST_RUNS]
    return f" (did you mean {' or '.join(typed(key, run) for run in runs)}?)" if runs else ""


def command_for(script: str, key: str, folder: Path) -> str:
    """How ``script`` is given the run in ``folder`` as ``key``.

    Classes of the user's own have to be trusted there. Where the data lie by now, which a resumed run was told, is not
    recorded, and is told again.
    """
    names = [one.partition("=")[0].lstrip("+") for one in sys.argv[1:]]
    moved = [one for one, name in zip(sys.argv[1:], names, strict=True) if "resume" in names and name in DATA_PATHS]
    trust = trust_prefix(*recorded_configurations([folder]))
    return " ".join([f"{trust}{typed_script(script)}", typed(key, folder), *map(shlex.quote, moved)])


def trust_prefix(*recorded: object) -> str:
    """What a command begins with that reads these configurations and spaces: trust in the classes of the user's own."""
    packages = sorted({target.partition(".")[0] for one in recorded for target in _targets_in(one)} - {"nas"})
    return f"NAS_TRUST={shlex.quote(','.join(packages))} " if packages else ""


def recorded_configurations(folders: Iterable[Path]) -> Iterator[object]:
    """What the runs in ``folders`` have recorded, as far as it can be read."""
    for folder in folders:
        with suppress(Exception):  # this is said where something else has gone wrong, the disk maybe
            yield OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=False)


def _drop_removed_settings(config: DictConfig) -> None:
    for key, (beside, value) in REMOVED.items():
        group, _, name = key.rpartition(".")
        settings = OmegaConf.select(config, group)
        if isinstance(settings, DictConfig) and name in settings and settings.get(beside) == value:
            del settings[name]
