"""Which space to take for given data where none was asked for."""

import logging
from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nas.errors import require
from nas.signature import Signature

log = logging.getLogger(__name__)
OF_RANK = {0: "macro_table", 1: "macro_series", 2: "macro"}
SMALL = "../scale/space/small_macro.yaml"  # the default chain of scale=small
DEFAULT_CHAINS = ("macro", "macro_debug")  # files in conf/space; experiment=debug is for any data
LARGE = 64  # pixels of a side, above which one weight per place of a map makes millions


def fitting_space(signature: Signature) -> str:
    """The name of the file in ``conf/space`` that suits data of ``signature``."""
    if signature.head == "sequence":
        return "recurrent"
    if signature.is_tokens:
        return "transformer"
    if signature.head == "dense":
        return "macro_dense"
    large = signature.rank == 2 and max(signature.input_shape[1:]) > LARGE
    return "macro_large" if large else OF_RANK[signature.rank]


def space_settings(chosen: DictConfig, signature: Signature, files: Path, typed: Collection[str] = ()) -> DictConfig:
    """``chosen``; where that is the default chain, in full or small, the settings of the space that fits ``signature``.

    The small one is for images of any size. Other settings than the layers that were typed, or that ``chosen`` does not
    have by default, are kept.

    Args:
        chosen: The settings of the configuration.
        signature: Of the data and the task.
        files: The folder ``conf/space``.
        typed: The settings that the user has typed.

    Raises:
        InvalidValue: The space that fits has no such setting.
    """
    name, layers = fitting_space(signature), chosen.get("layers")
    usual, fits, small = (OmegaConf.load(files / file) for file in ("macro.yaml", f"{name}.yaml", SMALL))
    assert isinstance(usual, DictConfig)
    assert isinstance(fits, DictConfig)
    fitting = ("macro", "macro_large") if layers == small.layers else ("macro",)
    if name in fitting or "layers" in typed or layers not in (usual.layers, small.layers):
        return chosen
    shape = "x".join(map(str, signature.input_shape))
    columns = "1 input" if shape == "1" else f"{shape} inputs"
    table = f"texts of {shape} tokens" if signature.is_tokens else f"tables with {columns}"
    data = f"inputs of {shape}" if signature.rank else table
    log.info(f"space: {name}, which fits {data}; space=... takes another")
    own = {str(key): value for key, value in chosen.items() if key not in ("_target_", "layers")}
    changed = {key: value for key, value in own.items() if key in typed or value != usual.get(key)}
    for key, value in changed.items():
        require(key in fits, f"space.{key}", value, f"space={name}, which fits {data}, has no such setting")
    merged = OmegaConf.merge(fits, changed)
    assert isinstance(merged, DictConfig)
    return merged
