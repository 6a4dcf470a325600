"""Every group's mistakes, refused in-process before any work: the composed configuration is run in an empty folder."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from nas.errors import InvalidValue, UnusableInput
from nas.run.overrides import parse_override
from train_search import run

CONF = Path(__file__).resolve().parent.parent / "conf"

MISTAKES = [
    "seed=-1",
    "seed=1.5",
    "seed=abc",
    "device=cuda:99",
    "device=3",
    "search.epochs=0",
    "search.epochs=null",
    "search.epochs=2.5",
    "search.warmup_epochs=9",
    "search.stop=never",
    "search.settled_ratio=1.0",
    "search.hyperparameter_every=0",
    "search.architecture_every=0",
    "search.half_resolution=1.5",
    "search.checkpoint_every=0",
    "search.architecture.rate=0",
    "search.architecture.betas=[0.5]",
    "search.architecture=null",
    "search.guard.jump=0.5",
    "search.guard.restarts=-1",
    "training.batch_size=1",
    "training.batch_size=many",
    "training.batch_size=true",
    "training.momentum=1.0",
    "training.gradient_clip=0",
    "training.schedule=sawtooth",
    "training.compile=true",
    "training.compile=maybe",
    "training.precision=float16",
    "final.epochs=-1",
    "final.hyperparameters=guessed",
    "final.label_smoothing=1.0",
    "tracking.log_every=0",
    "tracking.console=loud",
    "tracking.profiler=maybe",
    "relaxation.temperature.initial=0",
    "relaxation.temperature=null",
    "relaxation=simplex",
    "hyperparameters.cutout.rises=maybe",
    "relaxation._target_=os.system",
    "relaxation._target_=nas.relaxations.softmax.Nothing",
    "data=table",
    "data=arrays",
    "data=time_series",
    "data.split.train=0",
    "data.split.train=100000",
    "data.augmentation.crop_padding=-1",
    "data.augmentation.cutout=99",
    "hyperparameters.dropout.initial=1.2",
    "hyperparameters.dropout=0.3",
    "hyperparameters.dropout.scale=cubic",
    "hyperparameters.learning_rate.initial=-1",
    "hyperparameters.learning_rate.initial=0.9",
    "hyperparameters.learning_rate.low=0",
    "hyperparameters.learning_rate.update=null",
    "hyperparameters.weight_decay.initial=.nan",
    "hyperparameters.dropout.cap=2",
    "hyperparameters.dropout.trust_region=0",
    "hyperparameters.cutout.learn=true",
    "hyperparameters.label_smoothing.initial=1.5",
    "hypergradient@hyperparameters.gradient=neumann",
    "hypergradient=forward_accumulation",
    "hypergradient@hyperparameters.gradient=first_order",
    "hypergradient@hyperparameters.gradient=none",
    "hyperparameters.gradient=null",
    "hyperparameters.gradient=.nan",
    "hyperparameters.gradient=[1]",
    "space.layers=[]",
    "space.layers=3",
    "space.layers=[{type: conv, filters: [], kernel_size: 3}]",
    "space.layers=[{type: conv, filters: 8, kernel_size: 4}]",
    "space.layers=[{type: cnn, filters: 8}]",
    "space.layers=[{type: dense, units: 8}, {type: pool, pool_size: 2}]",
    "space.activations=[]",
    "space.activations=[swishy]",
    "search=null",
    "+training.colour=red",
]


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", overrides=["experiment=debug", *overrides])


def configuration(mistake: str) -> DictConfig:
    """Composed with a choice of a group; a value is set afterwards, as Hydra sets it, since composing takes a while."""
    override = parse_override(mistake)
    if override.is_add() or (CONF / override.key_or_group).is_dir():
        return composed(mistake)
    config = deepcopy(composed())
    OmegaConf.update(config, override.key_or_group, override.value())
    return config


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_sentence_before_anything_is_written(mistake: str, tmp_path: Path) -> None:
    try:
        config = configuration(mistake)
    except Exception as error:
        pytest.skip(f"Hydra refuses it while composing: {type(error).__name__}")
    with pytest.raises((InvalidValue, UnusableInput)) as caught:
        run(config, tmp_path / "run")
    sentence = str(caught.value)
    assert "\n" not in sentence
    key = mistake.lstrip("+").partition("=")[0].partition("@")[-1] or mistake.lstrip("+").partition("=")[0]
    assert sentence.startswith(key.split(".")[0])
    assert not (tmp_path / "run").exists()
