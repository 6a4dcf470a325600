"""The space of a run, from its configuration and the data that were found."""

from collections.abc import Collection, Mapping
from pathlib import Path

from omegaconf import DictConfig

from nas.candidate import Domain
from nas.configuration import build, is_own
from nas.errors import require
from nas.signature import Signature
from nas.spaces.fitting import space_settings
from nas.spaces.promises import check_promises
from nas.spaces.space import SearchSpace


def built_space(
    chosen: DictConfig,
    signature: Signature,
    files: Path,
    ranges: Mapping[str, Domain] | None = None,
    asked_for: bool = False,
    typed: Collection[str] = (),
) -> SearchSpace:
    """The space that ``chosen`` names; the default chain depends on the data (:func:`space_settings`).

    Args:
        chosen: The group ``space`` of the configuration.
        signature: Of the data and the task.
        files: The folder ``conf/space``.
        ranges: The hyperparameters that are part of the joint space.
        asked_for: Whether the user, or an experiment, has asked for this space, so that it is no default.
        typed: The settings of the default chain that the user has typed.

    Raises:
        InvalidValue: A setting is not allowed, or a user's own space does not keep what a space promises.
    """
    ranges = {} if ranges is None else ranges
    settings = chosen if asked_for else space_settings(chosen, signature, files, typed)
    space = build(settings, "space", signature=signature, ranges=ranges)
    is_space = isinstance(space, SearchSpace)
    require(is_space, "space._target_", chosen.get("_target_"), "it must be a subclass of nas.spaces.SearchSpace")
    if is_own(type(space)):  # ours are tested
        check_promises(space, signature, ranges)
    found: SearchSpace = space
    return found
