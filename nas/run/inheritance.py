"""How a retraining takes over the settings of the search that found its candidate."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from nas.run.folder import resumed_configuration

OWN = ("candidate", "resume")


def overridden_key(override: str) -> str:
    """What ``override`` sets: ``data`` for ``data=digits``, ``hyperparameters.gradient`` for
    ``hypergradient@hyperparameters.gradient=exact``."""
    group, _, package = override.partition("=")[0].lstrip("+~").partition("@")
    return package or group.replace("/", ".")


def inherited_configuration(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``config`` with everything that was not overridden taken from the run folder ``config.candidate``.

    Args:
        config: What Hydra composed for the retraining; it has the search's groups.
        overrides: The command line's overrides, ``group=option`` and ``key=value``.

    Returns:
        ``config`` itself where the candidate is a lone file.
    """
    folder = Path(str(config.candidate))
    if not (folder / ".hydra" / "config.yaml").is_file():
        return config
    run_config = resumed_configuration([], folder)
    merged = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    assert isinstance(merged, DictConfig)
    overridden = [overridden_key(override) for override in overrides]
    everything = "experiment" in overridden  # an experiment may set anything, so it replaces the run's settings
    with open_dict(merged):
        for group in run_config:
            name = str(group)
            if everything or name in OWN or name in overridden:
                continue
            merged[name] = run_config[name]
            for key in overridden:
                if key.startswith(f"{name}."):
                    OmegaConf.update(merged, key, OmegaConf.select(config, key))
    return merged
