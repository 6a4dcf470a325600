"""The files in ``conf/data``: each builds its data source, and mistakes in it are named."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from nas.configuration import build
from nas.data.augmentation import Augmentation, ImageFileAugmentation
from nas.data.data_splits import DataSource
from nas.data.row_split import RowSplit
from nas.data.stratified_split import SplitSettings
from nas.errors import InvalidValue

FOLDER = Path(__file__).parents[2] / "conf" / "data"

EXPECTED = {
    "digits": (SplitSettings(1000, 400, 397), Augmentation()),
    "mnist5k": (SplitSettings(3000, 1000, 1000), Augmentation(crop_padding=2)),
    "mnist": (SplitSettings(50000, 10000, None), Augmentation(crop_padding=2)),
    "fashion_mnist": (SplitSettings(50000, 10000, None), Augmentation(crop_padding=2, flip=True)),
    "cifar10": (SplitSettings(25000, 25000, None), Augmentation(crop_padding=4, flip=True)),
    "cifar100": (SplitSettings(25000, 25000, None), Augmentation(crop_padding=4, flip=True)),
    "imagenet": (
        SplitSettings(None, 50000, None),
        ImageFileAugmentation(flip=True, smallest_area=0.08, colour_jitter=[0.4, 0.4, 0.4, 0.2]),
    ),
    "images": (RowSplit(), ImageFileAugmentation(colour_jitter=[0.0, 0.0, 0.0, 0.0])),
}
OTHERS = {"arrays", "table", "text", "time_series", "small_images", "small_text"}  # these have their own tests
OF_FILES = ("imagenet", "images")


def configuration(name: str) -> DictConfig:
    loaded = OmegaConf.load(FOLDER / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    if name == "images":
        loaded.folder = "images"
    return loaded


def test_every_file_is_checked_here() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(EXPECTED) | OTHERS


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_builds_the_source_of_its_name(name: str) -> None:
    source: DataSource = build(configuration(name), "data")
    assert source.name == name
    assert (source.split, source.augmentation) == EXPECTED[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_setting_can_be_overridden_without_a_plus(name: str) -> None:
    config = configuration(name)
    assert {"_target_", "train", "validation", "test", "seed"} <= set(config.split)
    of_batches, of_files = {"_target_", "crop_padding", "flip", "cutout"}, {"smallest_area", "colour_jitter"}
    assert set(config.augmentation) == (of_batches | of_files if name in OF_FILES else of_batches)
    if name not in ("digits", "mnist5k"):
        assert {"folder", "workers" if name in OF_FILES else "download"} < set(config)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("split.train", 0, "data.split.train=0 is not allowed: it must be at least 1, or null for all that is left."),
        ("split.test", "all", "data.split.test=all is not allowed: it must be a whole number or null."),
        ("split.seed", None, "data.split.seed=null is not allowed: it must be a whole number."),
        ("augmentation.flip", 1, "data.augmentation.flip=1 is not allowed: it must be true or false."),
        ("augmentation.cutout", -1, "data.augmentation.cutout=-1 is not allowed: it must be 0 (off) or above."),
        ("download", "yes", "data.download=yes is not allowed: it must be true or false."),
    ],
)
def test_a_mistake_is_told_with_its_whole_key(key: str, value: object, sentence: str) -> None:
    config = configuration("cifar10")
    OmegaConf.update(config, key, value)
    with pytest.raises(InvalidValue) as caught:
        build(config, "data")
    assert str(caught.value) == sentence
