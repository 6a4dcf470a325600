"""What a search was put together from, in words."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nas.report.composition import composition_in_words

CONF = str(Path(__file__).resolve().parents[2] / "conf")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("", "alone or strongest"),
        ("experiment=darts_first_order", None),
        ("experiment=darts_second_order", "finite difference"),
        ("experiment=beta_darts", "beta decay"),
        ("experiment=gaea", "simplex, exponentiated gradient, partial channels 4, edge normalisation"),
        ("experiment=sdarts_adv", "adversarial perturbation"),
        ("regulariser=dirichlet_kl relaxation=dirichlet", "dirichlet, dirichlet KL, alone or strongest"),
        ("experiment=gdas", "gumbel softmax, official gradient, sampled"),
        ("experiment=fair_darts", "sigmoid, zero one, threshold, optional edges"),
        ("method=random", None),
    ],
)
def test_it_names_what_is_not_as_in_darts(overrides, expected):
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("train_search", overrides=overrides.split())
    assert composition_in_words(OmegaConf.to_container(config, resolve=False)) == expected


@pytest.mark.parametrize("config", [{}, {"relaxation": 3}, {"method": None, "relaxation": {"_target_": "a.B"}}])
def test_configurations_that_say_nothing(config):
    assert composition_in_words(config) is None
