"""The source of a class together with everything that it needs of this package, as the text of one file."""

import ast
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import resolve_name
from typing import Any

from nas.errors import InvalidValue, require

PACKAGE = "nas"


def bundled_source(entry: Callable[..., Any], entries: Mapping[str, Collection[str]] | None = None) -> str:
    """Import statements and definitions, each before its use, from which ``entry`` can be made or called.

    Annotations are left out, and with them what only they need; docstrings stay.

    Args:
        entry: A class or function of this package.
        entries: The keys of a dictionary that are kept, by the dictionary's name, where not all are needed.

    Raises:
        InvalidValue: Two things that are needed have the same name, or one has none, or is not seen at the top level of
            its module.
    """
    bundle = _Bundle(entries or {})
    bundle.add(entry.__module__, entry.__name__)
    return bundle.text()


@dataclass
class _Module:
    """The definitions of a module at its top level, and where its other names come from."""

    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    of_package: dict[str, tuple[str, str]] = field(default_factory=dict)  # name to (module, name there)
    imports: dict[str, str] = field(default_factory=dict)  # name to the statement that imports it


@cache
def _parsed(name: str) -> _Module:
    module, loaded = _Module(), importlib.import_module(name)
    for statement in ast.parse(inspect.getsource(loaded)).body:
        if isinstance(statement, ast.ImportFrom):
            source = resolve_name("." * statement.level + (statement.module or ""), loaded.__package__)
            for alias in statement.names:
                known = alias.asname or alias.name
                if source.split(".")[0] in (PACKAGE, name.split(".")[0]):  # the latter has what is a user's own
                    module.of_package[known] = (source, alias.name)
                else:
                    module.imports[known] = ast.unparse(ast.ImportFrom(source, [alias], 0))
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                module.imports[(alias.asname or alias.name).split(".")[0]] = ast.unparse(ast.Import([alias]))
        else:
            for defined in _defined_names(statement):
                module.definitions[defined] = statement
    return module


def _defined_names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


class _Bundle:
    """Definitions in the order in which they can stand in one file."""

    def __init__(self, entries: Mapping[str, Collection[str]]) -> None:
        self._entries = entries
        self._module_of: dict[str, str] = {}
        self._imports: dict[str, None] = {}
        self._definitions: list[ast.stmt] = []
        self._begun: set[tuple[str, str]] = set()

    def add(self, module: str, name: str) -> None:
        """``name`` of ``module``, after everything that it needs."""
        source = _parsed(module)
        passed_on = source.of_package.get(name, (module, name))
        if name not in source.definitions and passed_on[1] == name and passed_on[0] != module:
            return self.add(*passed_on)
        other = self._module_of.setdefault(name, module)
        require(other == module, module, name, f"{other} defines that name, too, and both would be in one file")
        allowed = "one file can have what a class, a def or an assignment at the top level of a module defines"
        require(name in source.definitions, module, name, allowed)
        if (module, name) in self._begun:
            return
        self._begun.add((module, name))
        statement = _Stripped(self._entries).visit(ast.parse(ast.unparse(source.definitions[name]))).body[0]
        if name in self._entries:
            self._add_registered(module, name, statement)
        for needed in dict.fromkeys(node.id for node in ast.walk(statement) if isinstance(node, ast.Name)):
            if needed in source.definitions:
                self.add(module, needed)
            elif needed in source.of_package:
                place, known = source.of_package[needed]
                require(known == needed, module, f"{known} as {needed}", "one file can have it by its own name only")
                self.add(place, known)
            elif needed in source.imports:
                self._imports[source.imports[needed]] = None
            else:  # such as what ``import *`` brings
                hidden = needed in vars(importlib.import_module(module))
                require(not hidden, module, needed, "it must be defined or imported by name at the top level")
        self._definitions.append(statement)

    def _add_registered(self, module: str, name: str, statement: Any) -> None:
        """Give the dictionary that ``statement`` makes the entries that other modules, of a user's own, have added."""
        written = {key.value for key in statement.value.keys}
        made = getattr(importlib.import_module(module), name)
        for key in [one for one in made if one in self._entries[name] and one not in written]:
            entry = made[key]
            known = getattr(entry, "__name__", "")  # a functools.partial has none, that of a lambda is none
            if known not in _parsed(entry.__module__).definitions:
                shown = getattr(entry, "__qualname__", type(entry).__name__)
                raise InvalidValue(f"{name}[{key!r}]", shown, "it must be a class or a def of a module")
            self.add(entry.__module__, entry.__name__)
            statement.value.keys.append(ast.Constant(key))
            statement.value.values.append(ast.Name(entry.__name__))

    def text(self) -> str:
        return "\n".join(sorted(self._imports)) + "\n\n\n" + "\n\n\n".join(map(_written, self._definitions)) + "\n"


def _written(statement: ast.stmt) -> str:
    """``statement`` as text; a dictionary's entries on lines of their own."""
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
        pairs = zip(statement.value.keys, statement.value.values, strict=True)
        entries = "".join(f"    {ast.unparse(key)}: {ast.unparse(value)},\n" for key, value in pairs if key is not None)
        return f"{ast.unparse(statement.targets[0])} = {{\n{entries}}}"
    return ast.unparse(statement)


class _Stripped(ast.NodeTransformer):
    """Removes annotations, and the unneeded entries of dictionaries."""

    def __init__(self, entries: Mapping[str, Collection[str]]) -> None:
        self._entries = entries

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        marks = [*node.bases, *(one.func if isinstance(one, ast.Call) else one for one in node.decorator_list)]
        if {one.id for one in marks if isinstance(one, ast.Name)} & {"NamedTuple", "dataclass"}:  # fields: annotations
            node.body = [one if isinstance(one, ast.AnnAssign) else self.visit(one) for one in node.body]
            return node
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.visit(ast.fix_missing_locations(ast.copy_location(ast.Assign([node.target], node.value), node)))

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in self._entries and isinstance(node.value, ast.Dict):
            wanted = self._entries[target.id]
            pairs = [
                (key, value)
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in wanted
            ]
            node.value = ast.Dict([key for key, _ in pairs], [value for _, value in pairs])
        return self.generic_visit(node)
