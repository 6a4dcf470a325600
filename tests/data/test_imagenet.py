"""ImageNet's folders: what is read from them, how they are split, and what is wrong with them in one sentence."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nas.configuration import build
from nas.data.augmentation import ImageFileAugmentation
from nas.data.dataset import DataSource, DataSplits
from nas.data.image_files import Decoding, ImageFiles, ImageNet
from nas.data.splits import SplitSettings
from nas.errors import InvalidValue, UnusableInput


def load(folder: Path, validation: int = 6) -> DataSplits:
    augmentation = ImageFileAugmentation(flip=True, smallest_area=0.08, colour_jitter=(0.4, 0.4, 0.4, 0.2))
    split = SplitSettings(train=None, validation=validation, test=None)
    source: DataSource = ImageNet(split, augmentation, Decoding(12, 16, 0), str(folder))
    return source.load()


def names(images: object) -> set[str]:
    assert isinstance(images, ImageFiles)
    return set(images.files)


def test_train_is_split_and_val_is_the_test(image_folder: Path) -> None:
    splits = load(image_folder)
    assert splits.name == "imagenet"
    assert splits.input_shape == (3, 12, 12)
    assert splits.classes == 3
    assert names(splits.train) | names(splits.validation) == set(map(str, image_folder.glob("train/*/*")))
    assert names(splits.test) == set(map(str, image_folder.glob("val/*/*")))
    assert not names(splits.train) & names(splits.validation)
    for part, count in ((splits.train, 6), (splits.validation, 2), (splits.test, 2)):
        assert torch.bincount(part.labels).tolist() == [count] * 3
    assert len(splits.train_and_validation()) == 24


def test_the_classes_are_numbered_by_their_folders_names(image_folder: Path) -> None:
    splits = load(image_folder)
    for part in (splits.train, splits.validation, splits.test):
        assert isinstance(part, ImageFiles)
        for file, label in zip(part.files, part.labels.tolist(), strict=True):
            assert Path(file).parent.name == ("ant", "bee", "cat")[label]


def test_the_split_is_the_same_every_time(image_folder: Path) -> None:
    first, second = load(image_folder), load(image_folder)
    assert isinstance(first.train, ImageFiles)
    assert isinstance(second.train, ImageFiles)
    assert first.train.files == second.train.files


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_folder_is_told_in_one_sentence(image_folder: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(image_folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / part)
    with pytest.raises(UnusableInput) as caught:
        load(tmp_path / "copy")
    assert str(caught.value) == (
        f"The data set imagenet is not on disk, {tmp_path / 'copy' / part} was looked for: "
        "name the folder that has train/<class>/ and val/<class>/ with data.folder=<path>."
    )


def test_folders_that_do_not_fit_are_told_in_one_sentence(image_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(image_folder, tmp_path / "copy")
    (copy / "train" / "dog").mkdir()
    with pytest.raises(UnusableInput, match=r"cannot be read from .*train \(Found no valid file for the classes dog"):
        load(copy)
    shutil.copy(next(copy.glob("train/ant/*")), copy / "train" / "dog")
    with pytest.raises(UnusableInput, match=r"needs the same classes in train and val below .*: dog is in one"):
        load(copy)
    for part in ("train", "val"):
        for name in ("bee", "cat", "dog"):
            shutil.rmtree(copy / part / name, ignore_errors=True)
    with pytest.raises(UnusableInput, match="needs at least two classes"):
        load(copy)
    shutil.rmtree(copy / "train" / "ant")
    with pytest.raises(UnusableInput, match=r"cannot be read from .*train \(Couldn't find any class folder"):
        load(copy)


def test_what_does_not_fit_the_images_is_refused(image_folder: Path) -> None:
    with pytest.raises(InvalidValue, match=r"split\.validation=25"):
        load(image_folder, validation=25)
    too_large = ImageFileAugmentation(cutout=13)
    with pytest.raises(InvalidValue, match=r"augmentation\.cutout=13 is not allowed: it must be at most .* 12"):
        ImageNet(SplitSettings(None, 6, None), too_large, Decoding(12, 16, 0), str(image_folder)).load()


def test_its_configuration_wants_an_augmentation_of_image_files() -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "imagenet.yaml")
    config.augmentation = {"_target_": "nas.data.Augmentation", "flip": True}
    with pytest.raises(
        InvalidValue, match=r"data\.augmentation=.* it must be a group with the _target_ of an ImageFileAugmentation"
    ):
        build(config, "data")
