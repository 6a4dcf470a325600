"""From the group ``hyperparameters`` of a configuration to its entries."""

from collections.abc import Collection
from typing import Any

from nas.candidate import Categorical
from nas.configuration import build_each, build_or_none
from nas.errors import keys_below, require
from nas.hyperparameters.collection import HyperparameterSet

NO_ENTRIES = ("gradient", "relations")  # of the group


def built_hyperparameters(
    config: Any, absent: Collection[str] = ()
) -> tuple[HyperparameterSet, dict[str, Categorical]]:
    """The entries of the group ``hyperparameters``: those with a gradient, and the categorical ones.

    Args:
        absent: Those that the optimiser of the weights does not have; they are left out.

    Raises:
        InvalidValue: An entry cannot be built, a search lacks one, or an absent one is to be learned.
    """
    entries = build_each(config, "hyperparameters", without=NO_ENTRIES)
    for name in absent:
        entry = entries.pop(name, None)
        learned = entry is not None and entry.learn
        require(not learned, f"hyperparameters.{name}.learn", True, f"training.optimiser has no {name}")
    relations = config.get("relations") or {}
    related = {str(name): build_or_none(one, f"hyperparameters.relations.{name}") for name, one in relations.items()}
    categorical = {name: entry for name, entry in entries.items() if isinstance(entry, Categorical)}
    continuous = {name: entry for name, entry in entries.items() if name not in categorical}
    with keys_below("hyperparameters"):
        return HyperparameterSet(continuous, related), categorical
