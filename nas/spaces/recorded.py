"""How a candidate file finds its space again."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nas.configuration import asked, import_trusted, trusted_class
from nas.errors import InvalidValue, require
from nas.signature import Signature
from nas.spaces.space import SearchSpace


def space_from_description(description: object) -> SearchSpace:
    """The space that :meth:`SearchSpace.describe` described.

    Nothing is imported but packages of ``nas.spaces`` and those that the user trusts (``NAS_TRUST``).

    Raises:
        InvalidValue: The description is not one of a space known here.
        NotTrusted: Its class is a user's own, of a package that is neither trusted nor in use already.
    """
    if not isinstance(description, dict):
        raise InvalidValue("space", description, "it must be an object")
    import_trusted()
    named = description.get("_target_")
    kind = _class_called(description.get("name")) if named is None else trusted_class(named, "space._target_")
    is_space = inspect.isclass(kind) and issubclass(kind, SearchSpace)
    require(is_space, "space._target_", named, "it must be a subclass of nas.spaces.SearchSpace")
    signature, settings = _described_signature(description), description.get("settings")
    try:
        if not isinstance(settings, dict):
            raise InvalidValue("", settings, "it must be an object")
        rebuild = partial(kind.from_settings, settings, signature)
        space: SearchSpace = rebuild() if named is None else asked("", settings, "from_settings", rebuild)
    except InvalidValue as error:
        raise (error if error.key == "space" else error.below("space.settings")) from error
    return space


def _class_called(name: object) -> Any:
    """The space of ours that is called ``name``: it lies in the package of that name."""
    found = [one.name for one in pkgutil.iter_modules([str(Path(__file__).parent)]) if one.ispkg]
    if not isinstance(name, str) or name not in found:
        raise InvalidValue("space.name", name, f"it must be one of {', '.join(sorted(found))}")
    exported = vars(importlib.import_module(f"nas.spaces.{name}")).values()
    return next(one for one in exported if isinstance(one, type) and getattr(one, "name", "") == name)


def _described_signature(description: Mapping[str, Any]) -> Signature:
    """The inverse of :func:`_described`."""
    if "signature" in description:
        try:
            return Signature.from_json(description["signature"])
        except InvalidValue as error:
            raise error.below("space" if error.key == "signature" else "space.signature") from error
    shape: Any = description.get("input_shape")
    classes: Any = description.get("classes")
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n <= 4096 for n in shape)
    allowed = "it must be [channels, height, width], whole numbers from 1 to 4096"
    require(whole, "space.input_shape", shape, allowed)
    good = type(classes) is int and 2 <= classes <= 100_000
    require(good, "space.classes", classes, "it must be a whole number from 2 to 100000")
    return Signature(tuple(shape), classes)
