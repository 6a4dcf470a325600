"""What a gradient search was put together from, in words."""

import re
from collections.abc import Mapping
from typing import Any

from nas.configuration import RENAMED

# Per place in the configuration what DARTS has there, which goes without saying.
USUAL = {
    "method": "GradientSearch",
    "relaxation": "Softmax",
    "hypergradient": "FirstOrder",
    "regulariser": None,
    "search.architecture": "Adam",
    "perturbation": None,
    "shrinking": None,
    "stopping": None,
    "discretisation": "Strongest",
}
# Settings that are off at 1, false or null.
FURTHER = (
    "relaxation.sampled",
    "space.partial_channels",
    "space.edge_normalisation",
    "space.auxiliary_skip",
    "space.optional_edges",
)


def composition_in_words(config: Mapping[str, Any]) -> str | None:
    """``simplex, exponentiated gradient, partial channels 4``: what is not as in DARTS; None where all of it is.

    Args:
        config: The configuration of a run; empty, and of another method, gives None.
    """
    parts = {place: _class(_at(config, place)) for place in USUAL}
    if parts["relaxation"] is None or parts["method"] in (None, "BlackBoxSearch"):
        return None
    words = [_words(name) for place, name in parts.items() if name is not None and name != USUAL[place]]
    gradient = _at(config, "relaxation.gradient")
    if gradient not in (None, "dense"):
        words.append(f"{gradient} gradient".replace("_", " "))
    for place in FURTHER:
        value, setting = _at(config, place), place.rpartition(".")[2].replace("_", " ")
        if value is True:
            words.append(setting)
        elif isinstance(value, int) and value > 1:
            words.append(f"{setting} {value}")
    return ", ".join(words) or None


def _at(config: Mapping[str, Any], place: str) -> Any:
    value: Any = config
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _class(entry: Any) -> str | None:
    target = entry.get("_target_") if isinstance(entry, Mapping) else None
    name = target.rpartition(".")[2] if isinstance(target, str) else None
    return RENAMED.get(name, name) if name else None


def _words(name: str) -> str:
    """``exponentiated gradient`` for ``ExponentiatedGradient``, ``dirichlet KL`` for ``DirichletKL``."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]+", name)
    return " ".join(part if part.isupper() else part.lower() for part in parts) or name
