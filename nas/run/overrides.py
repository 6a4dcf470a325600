"""The overrides on a command line, ``group=option`` and ``key=value``, as Hydra's own parser reads them."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from nas.configuration import files_of_options
from nas.errors import InvalidValue, require
from nas.surroundings import from_here, typed_path, typed_python
from nas.typed_settings import in_quotes, in_shell

OLD_OPTIONS = {
    "method=rehearsed": "it is called tuned now",
    "method=several_starts": "it is called multi_start now",
    "method=refined": "it has been removed, as it found nothing better than method=tuned",
    "discretisation=perturbation": "it is called alone now",
}
_PARSER = OverridesParser.create()


def parse_override(argument: str) -> Override:
    """What ``argument`` sets, and to what.

    Raises:
        InvalidValue: Hydra cannot read it.
    """
    try:
        return _PARSER.parse_override(argument)
    except HydraException as error:
        key, _, value = argument.partition("=")
        reason = str(error).splitlines()[0]
        lists = value[:1] in ("[", "{")
        quotes = '"...", around each text that has them' if lists else in_shell(f"{key}={in_quotes(value)}")
        allowed = f"Hydra cannot read it ({reason}); special characters need quotes inside of the shell's: {quotes}"
        dotted = re.sub(r"\[(\d+)\]", r".\1", key)
        if dotted != key:
            allowed = f"Hydra counts the entries of a list behind a dot: {dotted}={value}"
        if not argument.isascii() and argument != argument.encode(errors="replace").decode():
            allowed = "this locale cannot read its characters; the environment variable PYTHONUTF8=1 helps"
        raise InvalidValue(key, value, allowed) from error


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """The overrides among ``arguments``; the flags of Hydra and their values are left out.

    Raises:
        InvalidValue: Hydra cannot read one of them.
    """
    return [
        parse_override(argument)
        for argument in arguments
        if not argument.startswith("-") and ("=" in argument or argument.startswith("~"))
    ]


def value_of(arguments: Sequence[str], key: str) -> str | None:
    """The text that the last ``key=value`` among ``arguments`` gives to ``key``; None for none, nothing and null.

    Raises:
        InvalidValue: Hydra cannot read one of the arguments.
    """
    given = [one for one in parse_overrides(arguments) if one.key_or_group == key and not one.is_delete()]
    if not given or given[-1].value() is None:
        return None
    value = given[-1].value()
    text = str(value) if isinstance(value, str) else given[-1].get_value_string()
    return re.sub(r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text) or None


def as_typed(overrides: Any) -> list[str]:
    """The texts of a list of overrides that Hydra keeps as a configuration, interpolations in them as they are."""
    texts = OmegaConf.to_container(overrides, resolve=False)
    return [str(text) for text in texts] if isinstance(texts, list) else []


def hydra_path(hydra: Any, key: str) -> Path:
    """The path that Hydra has written into its configuration as ``hydra.runtime.<key>``.

    Hydra writes what it is, and OmegaConf would take a folder called ``${x}`` for an interpolation.
    """
    entries = OmegaConf.to_container(hydra.runtime, resolve=False)
    assert isinstance(entries, dict)
    return Path(str(entries[key]))


def overridden_key(override: str) -> str:
    """What ``override`` sets: ``data`` for ``data=digits``, ``hyperparameters.gradient`` for
    ``hypergradient@hyperparameters.gradient=exact``."""
    parsed = parse_override(override)
    return parsed.package or parsed.key_or_group.replace("/", ".")


def escaped(text: str) -> str:
    """The path ``text`` as a value that OmegaConf takes neither for an interpolation nor for a missing value."""
    return "./???" if text == "???" else re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def typed(key: str, value: object) -> str:
    """``key=value`` as it is typed in a shell, in quotes where the shell or Hydra needs them."""
    return in_shell(_readable(key, str(value)))


def _readable(key: str, value: str) -> str:
    """``key=value`` as Hydra reads it, in quotes where it needs them."""
    text = escaped(value)
    try:
        plain = parse_override(f"{key}={text}").value() == text
    except InvalidValue:
        plain = False
    return f"{key}={text if plain else in_quotes(text)}"


def at_home(argument: str) -> str:
    """``argument`` with the home folder in the place of ``~`` in ``key=~/...``, which bash leaves and Hydra refuses."""
    key, _, value = argument.partition("=")
    if not re.match(r"~(/|$)", value):
        return argument
    if argument.startswith("-"):  # a flag, which Hydra takes as it is
        return f"{key}={os.path.expanduser(value)}"
    if ",~" in value or "${" in value:  # a sweep, or a name that Hydra makes: theirs is the syntax
        return re.sub(r"(^|=|,)~(?=[/,]|$)", lambda found: found[1] + os.path.expanduser("~"), argument)
    return _readable(key, os.path.expanduser(value))


def typed_script(script: str) -> str:
    """How ``train_search.py`` and its siblings are called from where this process was started."""
    running = Path(sys.argv[0])
    if running.suffix != ".py" or not (running.parent / script).is_file():
        beside_the_package = from_here(Path(__file__).resolve().parents[2] / script)
        return f"{typed_python()} {typed_path(beside_the_package) if beside_the_package.is_file() else script}"
    return f"{typed_python()} {typed_path(running.parent / script)}"


def experiment_that_sets(key: str, overrides: Sequence[str], conf: Path) -> str:
    """The experiment of ``overrides`` that sets ``key``, or what lies below it; empty if the key was typed, too.

    Args:
        conf: The folder of the configuration.
    """
    values = (one for one in map(overridden_key, overrides) if "." in one)  # the others choose an option of a group
    if any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in values):
        return ""
    experiments = re.findall(r"[\w-]+", value_of(overrides, "experiment") or "")
    files = files_of_options("experiment", experiments, conf)
    return next((name for name, content in files if OmegaConf.select(content, key) is not None), "")


def refuse_impossible_options(arguments: Sequence[str], conf: Path) -> None:
    """Refuse ``data=null``, ``data=3`` and the like, for which Hydra prints a traceback, and old names of options.

    Args:
        arguments: The command line.
        conf: The folder of the configuration, a folder per group.

    Raises:
        InvalidValue: A group is given no option, or one that no longer exists, or is added, as it is there already;
            something is added that nobody reads; or Hydra cannot read an argument.
    """
    overrides = parse_overrides(arguments)
    # A file of the user's own may read what is added, and need not have all groups.
    has_own_files = any(re.match("-(cn|cd|cp|-config-)|hydra.searchpath=", one) for one in arguments)
    if not has_own_files:
        _refuse_unread_additions(overrides, arguments, conf)
    for override in overrides:
        group, value = override.key_or_group, override.value()
        if override.is_delete() or not group or not (conf / group).is_dir():
            continue
        name, text = override.get_key_element().lstrip("+"), override.get_value_string()
        named = value if isinstance(value, list) else [value]
        if not named or any(_names_no_option(one) for one in named):
            options = ", ".join(sorted(file.stem for file in (conf / group).glob("*.yaml")))
            shown = None if text in ("", "null") else text
            raise InvalidValue(name, shown, f"it must be one of {options}, or left out")
        renamed = OLD_OPTIONS.get(f"{group}={value}")
        if renamed is not None and not (conf / group / f"{value}.yaml").is_file():
            raise InvalidValue(name, value, renamed)
        added = override.is_add() and override.package is None and "/" not in group and not has_own_files
        require(not added, f"+{name}", text, f"every group is there already, {name}={text} chooses its option")


def _refuse_unread_additions(overrides: Sequence[Override], arguments: Sequence[str], conf: Path) -> None:
    """Refuse ``+epochs=3``, which Hydra adds at the top of the configuration, where nothing reads it.

    It is left alone where one of the ``arguments`` refers to it, ``${epochs}``.
    """
    for override in overrides:
        name = re.split("[./]", override.key_or_group)[0]
        if not (override.is_add() or override.is_force_add()) or (conf / name).is_dir():
            continue
        read = any(name in OmegaConf.load(file) for file in conf.glob("*.yaml"))
        referred_to = any(f"${{{name}" in one for one in arguments)
        allowed = "nothing reads it; without the + the answer says which settings there are"
        require(read or referred_to, f"+{override.key_or_group}", override.get_value_string(), allowed)


def _names_no_option(value: object) -> bool:
    return value is None or value == "" or isinstance(value, bool | int | float)
