"""Every command line in a README or a results file can be typed, every link leads somewhere, every name is a thing.

Hydra composes the settings of the two entry points, and they are built as a run builds them. The scripts' own argument
parsers read their flags, and the scripts end there. Nothing is run. Files and settings that are named in the text are
looked for, too.
"""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.configuration import InvalidValue, build
from nas.hyperparameters.building import NO_ENTRIES
from nas.operations.cell_operations import CELL_OPERATIONS
from nas.run.overrides import refuse_impossible_options

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("conf", "nas", "scripts", "tests")
COMMAND = re.compile(r"(?:\w+=\S* )*(?:python |bash scripts/|torchrun )")
PLACEHOLDER = re.compile(r"<[^<>]*>")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
QUOTED = re.compile(r"`([^`]+)`")
FILE = re.compile(r"[\w./{},-]+\.(?:py|sh|md|yaml|txt|cpp|jinja|css|toml)")
NOT_HERE = {"final/network.py", "conf/method/both.yaml"}  # what a run writes, and an example
SETTING = re.compile(r"(\w+)((?:\.\w+)*)(?:=(\w+))?")
LAUNCHERS = {"basic", "submitit_local", "submitit_slurm", "ray"}  # some come with the extra "cluster"
BUILT = ("data", "relaxation", "training", "final", "tracking", "search", "discretisation", "budget")


class Command(NamedTuple):
    """One command of a document, and the line that is printed below it where the document shows one."""

    text: str
    printed: str | None


class Parsed(BaseException):
    """A script's command line has been read; whatever the script would do next is left out."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.options = options


def documents() -> list[Path]:
    """The READMEs of all rooms, and the results."""
    found = [ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md"))]
    for folder in FOLDERS:
        found += sorted((ROOT / folder).rglob("*.md"))
    return found


def commands_in(text: str) -> Iterator[Command]:
    """The command lines of the fenced blocks of ``text``, with their continuation lines; ``$ `` begins a transcript."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            command = line.removeprefix("$ ")
            if COMMAND.match(command):
                yield Command(command, following if command != line else None)


def all_commands() -> list[Any]:
    """One parameter per command of any document; the same command in two documents is checked once."""
    known: dict[Command, Path] = {}
    for document in documents():
        for command in commands_in(document.read_text(encoding="utf-8")):
            known.setdefault(command, document)
    return [
        pytest.param(command, id=f"{document.relative_to(ROOT)}: {' '.join(command.text.partition('  #')[0].split())}")
        for command, document in known.items()
    ]


def check(command: Command) -> None:
    """Raise where an option of ``command`` does not exist, or where it prints another sentence than is shown."""
    words = shlex.split(PLACEHOLDER.sub("placeholder", command.text), comments=True)
    while "=" in words[0]:
        words = words[1:]  # variables of the environment
    if words[0] == "torchrun":
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    program, script, *arguments = words
    if program == "python" and script == "-m":
        check_script(arguments[0] + ".__main__", arguments[1:])
        return
    assert (ROOT / script).is_file(), f"there is no {script}"
    if script in ("train_search.py", "train_final.py", "scripts/search.sh"):
        name = "train_final" if script == "train_final.py" else "train_search"
        if command.printed is None:
            check_settings(name, arguments)
        else:
            with pytest.raises(InvalidValue) as refused:
                check_settings(name, arguments)
            assert command.printed == f"{script}: {refused.value}"
    elif program == "python":
        check_script(script, arguments)
    elif script == "scripts/test.sh":
        missing = [argument for argument in arguments if "/" in argument and not (ROOT / argument).exists()]
        assert not missing, f"there is no {missing}"


def check_settings(name: str, arguments: Sequence[str]) -> None:
    """Compose the configuration ``name`` with the overrides among ``arguments``, and build what needs nothing else."""
    refuse_impossible_options(arguments, ROOT / "conf")
    groups, settings = [], []
    for override in OverridesParser.create().parse_overrides(get_args_parser().parse_args(arguments).overrides):
        values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
        key = override.get_key_element()
        if key == "hydra/launcher":
            assert values[0] in LAUNCHERS, override.input_line
        elif (ROOT / "conf" / override.key_or_group).is_dir():
            groups.append([f"{key}={value}" for value in values])
        else:
            settings.append([(key, value) for value in values])
    for chosen in product(*groups):
        for given in product(*settings):
            build_parts(changed(composed(name, chosen), given))


@cache
def composed(name: str, groups: tuple[str, ...]) -> DictConfig:
    """The configuration ``name`` with these choices of groups; Hydra takes a while, and commands differ in little."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=list(groups), return_hydra_config=True)


def changed(config: DictConfig, settings: Sequence[tuple[str, Any]]) -> DictConfig:
    """A copy of ``config`` with other values; a key that is not there is refused, as Hydra does."""
    config = deepcopy(config)
    for key, value in settings:
        OmegaConf.update(config, key, value)
    return config


def build_parts(config: DictConfig) -> None:
    """Build what needs nothing but its own settings, which refuses wrong names, types and values."""
    for group in BUILT:
        build(config[group], group)
    for name, entry in config.hyperparameters.items():
        if name not in NO_ENTRIES:
            build(entry, f"hyperparameters.{name}")


def check_script(script: str, arguments: Sequence[str]) -> None:
    """Let ``script``, a file or the name of a module, read ``arguments``, and compose the settings among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", reading(argparse.ArgumentParser.parse_known_args))
        patch.setattr(argparse.ArgumentParser, "parse_known_args", reading(argparse.ArgumentParser.parse_known_args))
        patch.syspath_prepend(str(ROOT / "scripts"))
        run, name = (runpy.run_path, str(ROOT / script)) if script.endswith(".py") else (runpy.run_module, script)
        with pytest.raises(Parsed) as parsed:
            run(name, run_name="__main__")
    if overrides := getattr(parsed.value.options, "overrides", []):
        check_settings("train_search", overrides)


def reading(parse: Any) -> Any:
    """The parser's method ``parse``, whose result ends the script; what no argument takes is refused."""

    def read(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_known_args", parse)  # for the parsers of subcommands
            options, rest = parse(parser, args, namespace)
        unknown = [argument for argument in rest if argument.startswith("-")]
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        raise Parsed(options)

    return read


@pytest.mark.parametrize("command", all_commands())
def test_the_options_of_every_command_exist(command: Command) -> None:
    check(command)


@pytest.mark.parametrize(
    "text",
    [
        "python train_search.py searches.epochs=2",
        "python train_search.py search.epoch=2",
        "python train_search.py method=no_such_method",
        "python train_search.py search.stop=never",
        "python train_search.py --multiruns seed=0,1",
        "python train_search.py --multirun no_such_setting=0,1",
        "python train_final.py candidate=runs/mine final.epoch=3",
        "python no_such_script.py",
        "python scripts/reproduce_darts_cells.py --seed-of-all 1",
        "python scripts/compare_methods.py --no-such-flag 1",
        "python scripts/compare_methods.py scale=medium",
        "python -m nas.report compare runs/one --no-such-flag",
        "torchrun --nproc-per-node 2 train_search.py no_such_setting=1",
        "bash scripts/search.sh no_such_setting=1",
    ],
)
def test_an_option_that_does_not_exist_is_found(text: str) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException, InvalidValue, AssertionError, SystemExit)):
        check(Command(text, None))


def test_commands_are_found_in_fenced_blocks_with_their_continuation_lines() -> None:
    text = "python none.py\n```\n$ python a.py x=1\na.py: no.\nA= bash scripts/b.sh \\\n    y=2  # why\nls\n```\n"
    assert list(commands_in(text)) == [
        Command("python a.py x=1", "a.py: no."),
        Command("A= bash scripts/b.sh      y=2  # why", None),
    ]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_are_whole_modules(document: Path, tmp_path: Path) -> None:
    """What a reader copies into a module can be imported."""
    for example in PYTHON.findall(document.read_text(encoding="utf-8")):
        (tmp_path / "mine.py").write_text(example, encoding="utf-8")
        with patch.dict(CELL_OPERATIONS):  # one of them adds its own
            runpy.run_path(str(tmp_path / "mine.py"), run_name="mine")


def quoted(document: Path) -> set[str]:
    """What stands between backticks in the text of ``document``, on one line or on two, outside of fenced blocks."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {" ".join(found.split()) for found in QUOTED.findall(text)}


def alternatives(text: str) -> list[str]:
    """``a/b.py`` and ``a/c.py`` for ``a/{b,c}.py``."""
    before, brace, rest = text.partition("{")
    if not brace:
        return [text]
    inside, _, after = rest.partition("}")
    return [one for name in inside.split(",") for one in alternatives(before + name + after)]


@cache
def known_settings() -> dict[str, set[str]]:
    """By group of ``conf/`` all that a file of it sets, such as ``split.train``, inner groups included."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        entries = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        known = found.setdefault(path.parent.name, set())
        known |= set(flattened(entries)) if isinstance(entries, dict) else set()
    found["hyperparameters"] |= {"gradient"}  # composed from the group hypergradient
    return found


def flattened(entries: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for name, entry in entries.items():
        yield f"{prefix}{name}"
        if isinstance(entry, dict):
            yield from flattened(entry, f"{prefix}{name}.")


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    """A path begins at the top, in ``nas/`` or in the document's own folder; a bare name is one from anywhere."""
    named = {one for text in quoted(document) if FILE.fullmatch(text) for one in alternatives(text)} - NOT_HERE
    known = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}
    places = ROOT, ROOT / "nas", document.parent
    assert {one for one in named - known if not any((place / one).exists() for place in places)} == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_that_are_named_exist(document: Path) -> None:
    """``group.key`` is in a file of the group, and ``group=option`` is a file of it."""
    missing = set()
    for text in quoted(document):
        match = SETTING.fullmatch(text)
        if match is None or match[1] not in known_settings() or FILE.fullmatch(text):
            continue
        group, keys, value = match.groups()
        if keys and keys.removeprefix(".") not in known_settings()[group]:
            missing.add(text)
        if not keys and value is not None and not (ROOT / "conf" / group / f"{value}.yaml").is_file():
            missing.add(text)
    assert missing == set()
