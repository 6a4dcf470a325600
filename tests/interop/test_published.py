"""Published genotypes and the sizes of their networks."""

import json
from pathlib import Path

import pytest
import torch

from nas.errors import InvalidValue
from nas.interop.published import PUBLISHED, published_genotype
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.network import DartsNetwork

NAMES = {
    "darts_v1": "DARTS_V1",
    "darts_v2": "DARTS_V2",
    "nasnet": "NASNet",
    "amoebanet": "AmoebaNet",
    "pc_darts_cifar": "PC_DARTS_cifar",
    "pc_darts_imagenet": "PC_DARTS_image",
}


@pytest.mark.parametrize("name", NAMES)
def test_genotype_and_parameter_counts(name: str, data_folder: Path) -> None:
    reference = json.loads((data_folder / "published_genotypes.json").read_text())[NAMES[name]]
    assert published_genotype(name) == Genotype.from_mapping(reference["genotype"])
    settings = {"in_channels": 3, "channels": 36, "cells": 20, "classes": 10, "kind": "cifar"}
    imagenet = {"in_channels": 3, "channels": 48, "cells": 14, "classes": 1000, "kind": "imagenet"}
    for network, arguments in {"cifar10_C36_L20": settings, "imagenet_C48_L14": imagenet}.items():
        with torch.device("meta"):
            module = DartsNetwork(published_genotype(name), **arguments, auxiliary=True)  # type: ignore[arg-type]
        counts = {key: sum(p.numel() for p in part.parameters()) for key, part in module.named_children()}
        assert sum(counts.values()) == reference[network]["parameters_total"]
        assert sum(counts.values()) - counts["auxiliary_head"] == reference[network]["parameters_without_auxiliary"]


def test_an_unknown_name_is_told_the_known_ones() -> None:
    assert set(PUBLISHED) == set(NAMES)
    with pytest.raises(InvalidValue, match="darts_v1, darts_v2, nasnet, amoebanet, pc_darts_cifar, pc_darts_imagenet"):
        published_genotype("darts_v3")
