"""Turning a configuration into objects, and saying in one sentence what is wrong with it.

Every component names its own limits: its constructor calls :func:`require`, which raises :class:`InvalidValue`. Types
need no such call, :func:`build` reads them from the constructor's annotations. The entry points turn an
:class:`InvalidValue` into its sentence and exit code 2.
"""

import contextlib
import difflib
import importlib
import inspect
import keyword
import os
import re
import sys
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.errors import InvalidValue, NotTrusted, RunFailed, UnusableInput, require, shown_value
from nas.surroundings import typed_python

Answer = TypeVar("Answer")
CONFIGURATION = Path(__file__).resolve().parent.parent / "conf"  # a folder of options for each group, in a clone
# Configurations of old runs name the module of a class (nas.bilevel.exact.Exact); today its package exports the class
# (nas.bilevel.Exact). Here are the packages that took classes over from another one, and the new names of classes.
HEIRS = {"nas.bilevel": ("nas.hyperparameters", "nas.search"), "nas.training": ("nas.run",)}
RENAMED = {"Perturbation": "Alone", "SeveralStarts": "MultiStart", "ArchitectureOptimiser": "Adam"}
# What other programs call settings.
LONG_FORMS = {"lr": "learning_rate", "wd": "weight_decay", "optimizer": "optimiser"}


def build(config: Any, key: str, /, **arguments: Any) -> Any:
    """Make the object that ``config["_target_"]`` names from the other entries of ``config``.

    Args:
        config: A mapping with ``_target_``; its entries are checked against the constructor's parameters and types.
            Entries that have a ``_target_`` themselves are built first. An entry with ``_partial_: true`` becomes a
            function, which the constructor calls with further parts (see :func:`assemble`).
        key: The place of ``config`` in the whole configuration, for messages.
        **arguments: Further arguments, which the program supplies and the user may not set.

    Raises:
        InvalidValue: An entry is unknown, missing, of the wrong type, or refused by the constructor.
    """
    if not isinstance(config, Mapping | DictConfig) or "_target_" not in config:
        raise InvalidValue(key, config, "it must be a group of settings with a _target_")
    try:
        composed = isinstance(config, DictConfig)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True) if composed else dict(config)
    except OmegaConfBaseException as error:
        place = str(getattr(error, "full_key", ""))
        place = place if place.startswith(f"{key}.") else key
        raise InvalidValue(place, "(unresolved)", _first_line(error)) from error
    entries = {str(name): value for name, value in plain.items()} if isinstance(plain, dict) else {}
    path = entries.pop("_target_")
    target = _resolve(path, f"{key}._target_")
    settings = {_parameter(name): _built(value, name, key) for name, value in entries.items()}
    _check_settings(target, settings, set(arguments), key)
    try:
        return target(**settings, **arguments)
    except InvalidValue as error:
        first = re.split(r"[.\[]", error.key)[0]
        own = inspect.signature(target).parameters.keys() - arguments.keys()
        if arguments and first and first not in own:
            raise  # a complaint about what it was given, whose key is complete
        raise error.below(key) from error
    except (UnusableInput, RunFailed):
        raise
    except Exception as error:
        if not is_own(target):
            raise
        raise InvalidValue(key, path, f"it {_raises(error)}") from error


def asked(key: str, value: object, what: str, compute: Callable[[], Answer]) -> Answer:
    """What a user's own code, which may fail in any way, gives where ``what`` of it is asked for.

    Raises:
        InvalidValue: ``key=value`` is not allowed, since it has failed, and where.
    """
    try:
        return compute()
    except InvalidValue:
        raise
    except Exception as error:
        raise InvalidValue(key, value, f"its {what} {_raises(error)}") from error


def is_own(target: object) -> bool:
    """Whether a class or function is a user's own, and none of this package."""
    return str(getattr(target, "__module__", "nas")).partition(".")[0] != "nas"


def assemble(config: Any, key: str, parts: Mapping[str, Any]) -> Any:
    """Build like :func:`build`; the constructor gets those of ``parts`` that it has a parameter for."""
    target = config.get("_target_") if isinstance(config, Mapping | DictConfig) else None
    wanted = inspect.signature(_resolve(target, f"{key}._target_")).parameters if target is not None else {}
    return build(config, key, **{name: part for name, part in parts.items() if name in wanted})


def build_or_none(config: Any, key: str) -> Any:
    """As :func:`build`; None where ``config`` is null or its ``_target_`` is."""
    none = config is None or (isinstance(config, DictConfig) and config.get("_target_") is None)
    return None if none else build(config, key)


def build_each(config: Any, key: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """The objects that the entries of ``config``, a group of groups at ``key``, name; those of ``without`` are not."""
    entries = {str(name): entry for name, entry in config.items() if name not in without}
    for name, entry in entries.items():
        place = f"{key}.{name}"
        is_group = isinstance(entry, Mapping | DictConfig)
        require(is_group, place, entry, f"it is a group of settings, and {place}.initial is its value")
    return {name: build(entry, f"{key}.{name}") for name, entry in entries.items()}


def _resolve(path: object, key: str) -> Any:
    allowed = "it must be the dotted path of a class or function"
    if not isinstance(path, str):
        raise InvalidValue(key, path, allowed)
    try:
        target = _imported(path)
    except Exception as error:  # a module may fail in any way while it is imported
        missing = isinstance(error, ModuleNotFoundError) and error.name == path.partition(".")[0]
        place = ": is its folder on PYTHONPATH?" if missing else _place(error)
        raise InvalidValue(key, path, f"{allowed} ({_first_line(error)}{place})") from error
    try:
        inspect.signature(target)
    except Exception as error:  # of what has none, or cannot be called
        raise InvalidValue(key, path, f"{allowed} ({_first_line(error)})") from error
    lacking = ", ".join(sorted(getattr(target, "__abstractmethods__", ())))
    lacks = f": it lacks {lacking}" if lacking else ""
    good = not inspect.isabstract(target) and not _is_protocol(target)
    require(good, key, path, f"{allowed}, this one is abstract{lacks}")
    return target


def _imported(path: str) -> Any:
    """The class or function at ``path``, which may be one of old: see ``HEIRS``."""
    module, _, name = path.rpartition(".")
    package, today = ".".join(module.split(".")[:2]), RENAMED.get(name, name)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError):
        packages = (package, *HEIRS.get(package, ())) if module.startswith("nas.") and module != package else ()
        for one in map(importlib.import_module, packages):
            if hasattr(one, today):
                return getattr(one, today)
        raise
    # A base class may have been given the name that one of its classes had.
    return getattr(importlib.import_module(package), today, found) if inspect.isabstract(found) else found


def trusted_packages() -> tuple[str, ...]:
    """The packages whose classes a recorded configuration may name: ours, and those of ``NAS_TRUST``."""
    listed = os.environ.get("NAS_TRUST", "").split(",")
    return ("nas", *filter(None, (one.strip().partition(".")[0] for one in listed)))


def say_trust(path: str) -> str:
    """How a user says that what lies at the dotted ``path`` is their own."""
    package = path.partition(".")[0]
    mine = f"NAS_TRUST={package}" if package.isidentifier() else "NAS_TRUST=<its package>"
    return f"if it is your own, say so with {mine} in front of the command"


def trusted_class(path: object, key: str) -> Any:
    """The class at ``path``, of a recorded file, which nothing is imported for but the packages that are trusted.

    Raises:
        InvalidValue: There is none.
        NotTrusted: Its package is not trusted, and its module is not in use already, as that of a running search is.
    """
    if not isinstance(path, str) or "." not in path:
        raise InvalidValue(key, path, "it must be the dotted path of a class")
    if path.partition(".")[0] not in trusted_packages() and path.rpartition(".")[0] not in sys.modules:
        raise NotTrusted(f"A recorded file has {key}={shown_value(path)}: {say_trust(path)}.")
    return _resolve(path, key)


def import_trusted() -> None:
    """Import the packages of ``NAS_TRUST``, which may add operations to those of a space; one that is not here is not.

    Raises:
        UnusableInput: One of them fails while it is imported.
    """
    for package in trusted_packages()[1:]:  # the first one is ours
        try:
            importlib.import_module(package)
        except Exception as error:  # it may fail in any way
            if isinstance(error, ModuleNotFoundError) and error.name == package:
                continue  # the variable may be set for other runs
            reason = f"{_first_line(error)}{_place(error)}"
            raise UnusableInput(f"NAS_TRUST names {package}, which fails: {reason}.") from error


def optional_module(name: str, extra: str) -> Any:
    """The module ``name``, which comes with the optional dependencies ``extra`` of this project.

    Raises:
        UnusableInput: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        command = f'{typed_python()} -m pip install -e ".[{extra}]"'
        raise UnusableInput(f"This needs the package {error.name}: {command}") from error


def _is_protocol(target: object) -> bool:
    return bool(getattr(target, "_is_protocol", False))


def _place(error: Exception) -> str:
    """Where in a module of a user's own ``error`` was raised; empty where in none."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(__file__).parent
    own = [one for one in frames if ours not in Path(one.filename).parents and not _is_library(one.filename)]
    return f", {own[-1].filename}, line {own[-1].lineno}" if own else ""


def _raises(error: Exception) -> str:
    """``raises ValueError: ...`` and where, in one line."""
    return f"raises {type(error).__name__}: {' '.join(str(error).split())}{_place(error)}"


def _is_library(filename: str) -> bool:
    """Whether ``filename`` is of Python itself or of an installed package."""
    installed = {"site-packages", "dist-packages"} & set(Path(filename).parts)
    return filename.startswith(("<frozen", f"{sysconfig.get_path('stdlib')}{os.sep}")) or bool(installed)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _built(value: Any, key: str, owner: str) -> Any:
    """``value`` with every ``_target_`` in it built. ``key`` is its place below ``owner``."""
    if isinstance(value, dict) and value.get("_partial_") is True:
        rest = {name: entry for name, entry in value.items() if name != "_partial_"}
        return lambda **parts: assemble(rest, key, parts)  # called by the owner, whose key comes in front there
    if isinstance(value, dict) and "_target_" in value:
        return build(value, f"{owner}.{key}")
    if isinstance(value, dict):
        return {name: _built(entry, f"{key}.{name}", owner) for name, entry in value.items()}
    if isinstance(value, list):
        return [_built(entry, f"{key}[{index}]", owner) for index, entry in enumerate(value)]
    return value


def _parameter(name: str) -> str:
    """The parameter that takes the setting ``name``: ``from_`` for ``from``, which Python keeps for itself."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _setting(parameter: str) -> str:
    return parameter[:-1] if keyword.iskeyword(parameter[:-1]) else parameter


def _check_settings(target: Any, settings: dict[str, Any], supplied: set[str], key: str) -> None:
    parameters = inspect.signature(target).parameters
    hints = _hints(target.__init__ if inspect.isclass(target) else target)
    names = {
        name
        for name, parameter in parameters.items()
        if name not in supplied and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, value in settings.items():
        if name not in names:
            if open_ended and name not in supplied:
                continue
            raise InvalidValue(f"{key}.{name}", value, known_settings(key, name, list(map(_setting, names))))
        if name in hints and not matches(value, hints[name]):
            setting = f"{key}.{_setting(name)}"
            allowed = f"it must be {described(hints[name])}{_in_quotes(setting, value, hints[name])}"
            raise InvalidValue(setting, value, allowed)
        if isinstance(value, int) and hints.get(name) is float:
            settings[name] = float(value)
    for name in names - settings.keys():
        if parameters[name].default is inspect.Parameter.empty:
            of_program = parameters[name].kind is parameters[name].KEYWORD_ONLY and not supplied
            way = "; if the program gives it, put _partial_: true beside _target_" if of_program else ""
            raise InvalidValue(f"{key}.{name}", None, f"{key} needs it{way}")


def _hints(function: Any) -> dict[str, Any]:
    """By parameter its type; without a type that names what its module imports for type checkers alone."""
    found: dict[str, Any] = {}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        with contextlib.suppress(Exception):  # an annotation of a user's own may fail in any way
            found |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}), names)
    return found


def _in_quotes(setting: str, value: object, hint: Any) -> str:
    """How to type a number that is meant as a text, such as a column called 3; nothing where ``hint`` has no text."""
    several = isinstance(value, list | tuple | ListConfig)
    texts = list(map(str, value)) if several else str(value)  # type: ignore[call-overload]
    if isinstance(value, str) or not matches(texts, hint):
        return ""
    typed = f"[{','.join(map(repr, texts))}]" if several else repr(texts)
    return f'; in quotes it is a text, "{setting}={typed}"'


def known_settings(key: str, name: str, names: Sequence[str], group: DictConfig | None = None) -> str:
    """The settings at ``key``, and which one is meant: one called nearly so, or so elsewhere around ``group``."""
    if not names:
        return f"{key} has no settings"
    parts = LONG_FORMS.get(name, name).split("_")
    meant = difflib.get_close_matches(name, names, n=1) or [one for one in names if one in parts]
    meant = meant or _elsewhere(group, name)
    question = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return f"{key} knows {', '.join(sorted(names))}{question}"


def _elsewhere(group: DictConfig | None, name: str) -> list[str]:
    """The keys of what is called ``name`` in the configuration that ``group`` is a part of."""
    if group is None:
        return []
    name, found = LONG_FORMS.get(name, name), []
    groups: list[tuple[str, Any]] = [("", OmegaConf.to_container(group._get_root(), resolve=False))]
    for path, entries in groups:
        for key, value in (entries if isinstance(entries, dict) else {}).items():
            place = f"{path}{key!s}"
            if key == name:
                found.append(f"{place}.initial" if isinstance(value, dict) and "initial" in value else place)
            elif place != "hydra":
                groups.append((f"{place}.", value))
    return found


def unknown_setting(group: DictConfig, key: str, name: str) -> str | None:
    """What is allowed instead of ``name`` in ``group`` at ``key``; None where its constructor could take it.

    The whole configuration is at the empty key.
    """
    names = [str(one) for one in group if not str(one).startswith("_") and (key or one != "hydra")]
    target = group.get("_target_")
    if target is None:
        further = f"; a + in front, +{key}.{name}=..., adds another one" if key else ""
        return known_settings(key or "the configuration", name, names, group) + further
    try:
        parameters = inspect.signature(_resolve(target, key)).parameters
    except InvalidValue:
        return None  # told once the key is right
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if open_ended or _parameter(name) in parameters:
        return None
    # A part of a group, such as data.csv, has no options.
    files = [] if "." in key else (CONFIGURATION / key).glob("*.yaml")
    others = sorted(one.stem for one in files if name in OmegaConf.load(one))
    if others:
        return f"{known_settings(key, name, names)}; it is a setting of {key}={', '.join(others)}"
    return known_settings(key, name, names, group)


def files_of_options(
    group: str, options: Sequence[str], folder: Path = CONFIGURATION
) -> Iterator[tuple[str, DictConfig]]:
    """What is behind ``options`` of ``group``: each that has a file in ``folder``, with its content, and once more with
    that of every option it begins with."""
    named = [(option, option) for option in options]
    for option, name in named:
        file = folder / group / f"{name}.yaml"
        if file.is_file():
            content = OmegaConf.load(file)
            assert isinstance(content, DictConfig)
            bases = [(option, base) for base in content.get("defaults", ()) if isinstance(base, str)]
            named += [one for one in bases if one not in named]
            yield option, content


def settings_of_options(group: str, options: Sequence[str]) -> list[str]:
    """What ``options`` of ``group`` set, with what they begin with; none where one of them is a user's own."""
    found = list(files_of_options(group, options))
    if {option for option, _ in found} != set(options):
        return []
    names = dict.fromkeys(str(name) for _, content in found for name in content)
    return [name for name in names if name != "defaults" and not name.startswith("_")]


def matches(value: object, hint: Any) -> bool:
    """Whether ``value`` is of type ``hint``: the plain types, lists, mappings, ``Literal`` and unions of them.

    A whole number passes as a float; a truth value never passes as a number. For a ``Protocol`` any object will do
    that no plain YAML value is. Other hints are left to the constructor.
    """
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(hint))
    if origin in (Union, types.UnionType):
        return any(matches(value, option) for option in get_args(hint))
    if hint in (None, types.NoneType):
        return value is None
    if hint is float:
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return whole or isinstance(value, float)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple | ListConfig):
            return False
        inner = get_args(hint)
        if origin is tuple and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(matches, value, inner))
        return all(matches(entry, inner[0]) for entry in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(matches(entry, get_args(hint)[1]) for entry in value.values())
    if hint is Callable or origin is Callable:
        return callable(value)
    if _is_protocol(hint):
        return value is not None and not isinstance(value, bool | int | float | str | list | dict)
    return isinstance(value, hint) if inspect.isclass(hint) else True


def described(hint: Any) -> str:
    """``hint`` in words for a message."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(shown_value(option) for option in get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(described(option) for option in get_args(hint))
    if hint in (None, types.NoneType):
        return "null"
    if origin in (list, tuple, Sequence):
        inner = get_args(hint)
        if origin is tuple and Ellipsis not in inner:
            return f"a list of {len(inner)} ({', '.join(map(described, inner))})"
        return "a list" if inner[0] is Any else f"a list ({described(inner[0])} each)"
    if origin in (dict, Mapping):
        return "a group of settings"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    name = str(getattr(hint, "__name__", hint))
    return words.get(hint, f"a group with the _target_ of {'an' if name[0] in 'AEIOU' else 'a'} {name}")
