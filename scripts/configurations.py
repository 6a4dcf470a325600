"""The configurations of the entry points, for scripts that run them in their own process."""

from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent.parent / "conf"


def configuration(entry_point: str, overrides: Iterable[str]) -> DictConfig:
    """What ``entry_point``, such as ``train_search``, would have got on its command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entry_point, overrides=list(overrides))
