"""Random configurations end in a run or in one sentence; random macro spaces can be searched, retrained and exported.

A short profile runs in every suite. The long one (500 configurations, 40 spaces): bash scripts/test.sh -m slow
"""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import nas.run.loop as loop_module
import train_search
from nas.data.data_splits import DataSplits
from nas.data.dataset import ImageDataset
from nas.errors import InvalidValue, UnusableInput
from nas.operations.mixed import ACTIVATIONS
from nas.run.candidate_file import CandidateFile, read_candidate_file
from nas.run.overrides import refuse_impossible_options
from nas.run.randomness import Randomness
from nas.search.gradient_search import GradientSearch
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.stopping import Stopped, StopRequest
from nas.training.settings import TrainingSettings
from tests.problems import retraining_of, search_parts

CONF = str(Path(__file__).resolve().parent.parent / "conf")
BASE = (
    "experiment=debug",
    "tracking={console: quiet, tensorboard: false}",
    "data.split={train: 192, validation: 64, test: 64}",
    "training.batch_size=16",
)
LEFT_ALONE = ("device", "resume", "tracking.profiler", "scale")  # device=cuda would depend on the machine
Override = str
PROFILE = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train_search", overrides=[*BASE, *overrides])


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of ``config`` with its value, groups too."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        yield key, value
        if isinstance(value, dict):
            yield from leaves(value, f"{key}.")


KEYS = {
    key: value
    for key, value in leaves(OmegaConf.to_container(composed(), resolve=False))
    if not any(key == one or key.startswith(f"{one}.") for one in LEFT_ALONE)
}
GROUPS = {
    "hypergradient": ("first_order", "exact", "finite_difference", "none", "exakt"),
    "hyperparameters": ("learned", "fixed", "everything", "layer_dropout", "nothing"),
    "relaxation": ("softmax", "gumbel_softmax", "gumbel_softmax_hard", "dirichlet", "gdas", "sigmoid"),
    "hypergradient@hyperparameters.gradient": ("exact", "finite_difference", "first_order", "none"),
    "data": ("digits", "mnist5k", "cifar10", "mnist6k"),
    "space": ("macro", "darts", "nasbench201"),
    "objective": ("accuracy", "minus_loss", "dynamic"),
}
JUNK = (
    "null",
    "true",
    "''",
    "[]",
    "{}",
    "abc",
    "-1",
    "0",
    "1e400",
    ".nan",
    "-.inf",
    "9" * 30,
    "[1, 2]",
    "{a: 1}",
    "1.5",
    "ü\n",
)


@st.composite
def overrides(draw: st.DrawFn) -> Override:
    """One override: a group's option, a number near the default, or something that may be of another type."""
    kind = draw(st.sampled_from(("group", "near", "near", "near", "junk", "unknown")))
    if kind == "group":
        group = draw(st.sampled_from(sorted(GROUPS)))
        return f"{group}={draw(st.sampled_from(GROUPS[group]))}"
    key = draw(st.sampled_from(sorted(KEYS)))
    if kind == "unknown":
        return f"+{key}{draw(st.sampled_from(('x', '.x', '.0')))}={draw(st.sampled_from(JUNK))}"
    value = KEYS[key]
    if kind == "near" and isinstance(value, bool):
        return f"{key}={str(not value).lower()}"
    if kind == "near" and isinstance(value, int):
        return f"{key}={draw(st.integers(-1, 2 * value + 3))}"
    if kind == "near" and isinstance(value, float):
        factor = draw(st.sampled_from((-1.0, 0.0, 0.5, 0.9, 1.1, 2.0, 10.0)))
        return f"{key}={value * factor}"
    return f"{key}={draw(st.sampled_from(JUNK))}"


class TwoSteps(StopRequest):
    """Asks to stop after two steps."""

    asked = 0

    @property
    def requested(self) -> bool:
        self.asked += 1
        return self.asked >= 2

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def outcome(chosen: list[Override]) -> str:
    """What becomes of a run with these overrides; anything but a run or one sentence is an error."""
    try:
        refuse_impossible_options(chosen, Path(CONF))
        config = composed(*chosen)
    except HydraException:
        return "refused by Hydra"
    except InvalidValue:
        return "refused"
    with tempfile.TemporaryDirectory() as folder, patch.object(loop_module, "StopRequest", TwoSteps):
        path = Path(folder) / "run"
        try:
            train_search.run(config, path)
        except (InvalidValue, UnusableInput) as error:
            return refused(str(error), path, chosen)
        except (Stopped, FloatingPointError) as end:
            return run_of_two_steps(end)
    return "run"


def refused(sentence: str, path: Path, chosen: list[Override]) -> str:
    assert sentence.isprintable(), sentence
    assert sentence.endswith("."), sentence
    assert len(sentence) < 800, sentence
    assert not path.exists(), f"{chosen}: {sentence}"
    return "refused"


def run_of_two_steps(end: Exception) -> str:
    assert str(end).startswith(("stopped at step 2", "step 1: ", "step 2: ")), end
    return "run"


def check_configurations(examples: int) -> None:
    seen: dict[str, int] = {}

    @settings(max_examples=examples, **PROFILE)
    @given(st.lists(overrides(), min_size=1, max_size=3))
    def check(chosen: list[Override]) -> None:
        result = outcome(chosen)
        seen[result] = seen.get(result, 0) + 1

    check()
    assert seen["run"] >= 0.05 * examples, seen
    assert seen["refused"] >= 0.1 * examples, seen
    assert sum(seen.values()) >= examples


def test_random_overrides_give_a_run_or_one_sentence() -> None:
    check_configurations(30)


@pytest.mark.slow
def test_five_hundred_random_overrides_give_a_run_or_one_sentence() -> None:
    check_configurations(500)


def options(values: list[Any]) -> st.SearchStrategy[Any]:
    """One of ``values``, or several of them."""
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))


@st.composite
def layers(draw: st.DrawFn, stride: int) -> dict[str, Any]:
    """A convolution or pooling layer of this stride."""
    if draw(st.booleans()):
        layer = {"type": "conv", "filters": draw(options([1, 2, 3, 5])), "kernel_size": draw(options([1, 3, 5]))}
        if draw(st.booleans()):
            layer["dilation"] = draw(options([1, 2]))
        if draw(st.booleans()):
            layer["activations"] = draw(options(sorted(ACTIVATIONS)))
        return layer | {"stride": stride}
    sizes = [1, 3] if stride == 1 else [1, 2, 3]
    return {
        "type": "pool",
        "pool_size": draw(options(sizes)),
        "kind": draw(options(["max", "average"])),
        "stride": stride,
    }


@st.composite
def macro_spaces(draw: st.DrawFn) -> Macro:
    slots: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 3))):
        stride = draw(st.sampled_from((1, 2)))
        if draw(st.booleans()):
            slot = {"choose": draw(st.lists(layers(stride), min_size=1, max_size=3))}
        else:
            slot = draw(layers(stride))
        if slots and stride == 1:
            slot["optional"] = draw(st.booleans())
        slots.append(slot)
    if slots and draw(st.booleans()):
        slots.append({"type": "global_pool", "kind": draw(options(["max", "average"]))})
    for _ in range(draw(st.integers(0 if slots else 1, 2))):
        dense: dict[str, Any] = {"type": "dense", "units": draw(options([1, 2, 4, 7]))}
        if slots:
            dense["optional"] = draw(st.booleans())
        slots.append(dense)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    activations = draw(st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=1, max_size=3, unique=True))
    return Macro(slots, activations, signature=Signature(shape, draw(st.integers(2, 4))))


def noise_images(space: Macro) -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def dataset(count: int) -> ImageDataset:
        images = torch.randint(256, (count, *space.input_shape), generator=generator).to(torch.uint8)
        return ImageDataset(images, torch.arange(count) % space.classes, space.classes)

    channels = space.input_shape[0]
    return DataSplits("noise", dataset(16), dataset(16), dataset(16), (0.5,) * channels, (0.3,) * channels)


def searched(space: Macro, splits: DataSplits, folder: Path) -> CandidateFile:
    search = GradientSearch(
        search_parts(
            folder,
            space=space,
            splits=splits,
            search={"epochs": 1, "checkpoint_every": 10},
            training=TrainingSettings(8, 0.9, 5.0, "cosine"),
        )
    )
    assert search.total_steps == 2
    CandidateFile(search.search().candidate, space, "noise", "cosine").write(folder / "candidate.json")
    return read_candidate_file(folder / "candidate.json")


def retrained(found: CandidateFile, splits: DataSplits, folder: Path) -> torch.nn.Module:
    randomness = Randomness(1)
    network = found.space.network(found.candidate.architecture)
    both = splits.train_and_validation()
    retraining_of(
        network,
        folder,
        found.candidate.hyperparameters,
        randomness=randomness,
        stream=both.stream(16, splits.mean, splits.std, randomness.on_cpu("training order")),
        schedule="cosine",
        training=TrainingSettings(16, 0.9, 5.0, "cosine"),
    ).train()
    return network


def check_spaces(examples: int) -> None:
    @settings(max_examples=examples, **PROFILE)
    @given(macro_spaces())
    def check(space: Macro) -> None:
        splits = noise_images(space)
        with tempfile.TemporaryDirectory() as folder:
            found = searched(space, splits, Path(folder))
            assert all(math.isfinite(value) for value in found.candidate.hyperparameters.values())
            network = retrained(found, splits, Path(folder) / "final").eval()
        x = torch.rand(2, *space.input_shape)
        exported = torch.export.export(network, (x,)).module()
        torch.testing.assert_close(exported(x), network(x), rtol=1e-5, atol=1e-5)
        assert network(x).shape == (2, space.classes)

    check()


def test_random_macro_spaces_can_be_searched_retrained_and_exported() -> None:
    check_spaces(3)


@pytest.mark.slow
def test_forty_random_macro_spaces_can_be_searched_retrained_and_exported() -> None:
    check_spaces(40)
