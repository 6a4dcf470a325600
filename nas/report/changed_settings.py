"""What a run's configuration has that the default configuration has not."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nas

CONFIGURATION = Path(nas.__file__).resolve().parent.parent / "conf"


class ChangedSetting(NamedTuple):
    """One key with its value in the run and by default, as text; None where it is not there."""

    key: str
    default: str | None
    value: str | None


def default_configuration(entry: str) -> Mapping[str, Any] | None:
    """What ``train_search`` or ``train_final`` composes without overrides; None without the folder ``conf``."""
    return _composed(entry)


@cache
def _composed(entry: str) -> Mapping[str, Any] | None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if not (CONFIGURATION / f"{entry}.yaml").is_file():
        return None
    running = GlobalHydra.instance()
    application, running.hydra = running.hydra, None  # at the end of a run there is one already
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            config = OmegaConf.to_container(compose(entry), resolve=False)
    finally:
        GlobalHydra.instance().hydra = application  # the way out of the above has made a new one
    return config if isinstance(config, dict) else None  # type: ignore[return-value]


def changed_settings(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[ChangedSetting]:
    """The settings that differ, in the order of ``config``; those that only ``default`` has come last."""
    ours, theirs = dict(_leaves(config)), dict(_leaves(default))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [ChangedSetting(key, theirs.get(key), ours.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{key}.")
        else:
            found.append((key, shown(value)))
    return found


def shown(value: object) -> str:
    """``value`` as YAML has it on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {shown(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)
