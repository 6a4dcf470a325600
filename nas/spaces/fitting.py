"""Which space to take for given data where none was asked for."""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nas.signature import Signature

log = logging.getLogger(__name__)
OF_RANK = {0: "macro_table", 1: "macro_series", 2: "macro"}
SMALL = "scale/space/small_macro.yaml"  # the default chain of scale=small, in conf/
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


def space_settings(chosen: DictConfig, signature: Signature, files: Path) -> DictConfig:
    """``chosen``; where that is the default chain, in full or small, the settings of the chain that fits ``signature``.

    The small one is for images of any size.

    Args:
        chosen: The settings of the configuration.
        signature: Of the data and the task.
        files: The folder ``conf/space``.
    """
    name, layers = fitting_space(signature), chosen.get("layers")
    full, small = (OmegaConf.load(file).layers for file in (files / "macro.yaml", files.parent / SMALL))
    if layers not in (full, small) or name == "macro" or (layers == small and name == "macro_large"):
        return chosen
    shape = "x".join(map(str, signature.input_shape))
    columns = "1 input" if shape == "1" else f"{shape} inputs"
    table = f"texts of {shape} tokens" if signature.is_tokens else f"tables with {columns}"
    fits = f"inputs of {shape}" if signature.rank else table
    log.info(f"space: {name}, which fits {fits}; space=... takes another")
    found = OmegaConf.load(files / f"{name}.yaml")
    assert isinstance(found, DictConfig)
    return found
