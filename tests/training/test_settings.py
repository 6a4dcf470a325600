"""Limits of the training settings, the seed and the device."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from nas.configuration import build
from nas.errors import InvalidValue
from nas.run.environment import checked_device
from nas.run.randomness import checked_seed
from nas.training.settings import TrainingSettings

CONFIGURATION = Path(__file__).parents[2] / "conf" / "training" / "default.yaml"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 1),
        ("batch_size", 2.0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("momentum", math.nan),
        ("gradient_clip", 0.0),
        ("gradient_clip", -1),
        ("gradient_clip", math.inf),
        ("gradient_clip", math.nan),
        ("schedule", "step"),
        ("schedule_end", -0.1),
        ("schedule_end", 1.5),
        ("schedule_end", math.nan),
        ("keep_checkpoints", 0),
        ("keep_checkpoints", 2.5),
    ],
)
def test_impossible_settings_are_named(key: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(OmegaConf.merge(OmegaConf.load(CONFIGURATION), {key: value}), "training")
    assert caught.value.key == f"training.{key}"


def test_an_exponential_schedule_needs_an_end_above_0() -> None:
    config = OmegaConf.merge(OmegaConf.load(CONFIGURATION), {"schedule": "exponential", "schedule_end": 0})
    with pytest.raises(InvalidValue, match=r"^training\.schedule_end=0\.0 is not allowed"):
        build(config, "training")
    config.schedule_end = 0.01
    assert build(config, "training").schedule_end == 0.01


def test_possible_settings() -> None:
    assert TrainingSettings(2, 0.0, None, "constant").gradient_clip is None
    assert build(OmegaConf.load(CONFIGURATION), "training").schedule == "cosine"


@pytest.mark.parametrize("seed", [None, True, 1.0, "1", -1, 2**63, [1]])
def test_seeds_that_are_none(seed: object) -> None:
    with pytest.raises(InvalidValue, match=r"^seed="):
        checked_seed(seed)


def test_seeds() -> None:
    assert [checked_seed(seed) for seed in (0, 2**63 - 1)] == [0, 2**63 - 1]


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cuda:-1", "meta", "mps:x", None, 3, True, ["cpu"]])
def test_devices_that_are_not_here(name: object) -> None:
    with pytest.raises(InvalidValue, match=r"^device=.* is not allowed: it must be auto, cpu, or cuda"):
        checked_device(name)


def test_devices() -> None:
    assert checked_device("cpu") == torch.device("cpu")
    assert checked_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
