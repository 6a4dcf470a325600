"""ImageNet's folders: what is read from them, how they are split, and what is wrong with them in one sentence."""

import logging
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from nas.configuration import build
from nas.data.augmentation import ImageFileAugmentation
from nas.data.data_splits import DataSource, DataSplits
from nas.data.pictures import image_files
from nas.data.pictures.image_files import Decoding, ImageFiles
from nas.data.pictures.images import imagenet_of_old as ImageNet
from nas.data.pictures.picture_folder import PICTURES
from nas.data.pictures.pictures import ELONGATED
from nas.data.sample_folder import class_folders
from nas.data.stratified_split import SplitSettings
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
    with pytest.raises(UnusableInput, match=r"1 class folder of .*train without a picture: dog \(read are"):
        load(copy)
    shutil.copy(next(copy.glob("train/ant/*")), copy / "train" / "dog")
    assert load(copy).class_names == ("ant", "bee", "cat", "dog")  # a test may lack a class
    shutil.rmtree(copy / "train" / "dog")
    shutil.copytree(copy / "train" / "ant", copy / "val" / "dog")
    with pytest.raises(UnusableInput, match=r"val has 1 class that .*train lacks: dog; the 3 classes of the training"):
        load(copy)
    for part in ("train", "val"):
        for name in ("bee", "cat", "dog"):
            shutil.rmtree(copy / part / name, ignore_errors=True)
    with pytest.raises(UnusableInput, match="needs at least two classes"):
        load(copy)
    shutil.rmtree(copy / "train" / "ant")
    with pytest.raises(UnusableInput, match=r"train has no folders of classes: it must be <class>"):
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


@pytest.fixture
def copy(image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """A folder of pictures to be written to; what is logged is captured."""
    caplog.set_level(logging.INFO, logger="nas")
    return Path(shutil.copytree(image_folder, tmp_path / "copy"))


def test_the_classes_names_are_those_of_their_folders(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = load(copy)
    assert splits.class_names == ("ant", "bee", "cat")
    assert caplog.messages == [
        "imagenet: pictures of 3 classes (ant, bee, cat), 12 x 12, RGB; 18 to train, 6 to validate, 6 to test; decoded "
        "for each batch anew"
    ]


def test_the_preset_is_prepared_and_recognised_as_other_pictures_are(copy: Path) -> None:
    splits, again = load(copy), load(copy)
    assert splits.preparation["shorter_side"] == 16
    assert splits.preparation["mean"] == [0.485, 0.456, 0.406]
    assert splits.digest == again.digest
    assert [str(name).split("/")[:2] for name in splits.test_samples] == [
        ["val", ("ant", "bee", "cat")[one]] for one in splits.test.targets
    ]
    shutil.copy(copy / "val" / "ant" / "0.jpg", copy / "val" / "ant" / "more.jpg")
    assert load(copy).digest != splits.digest


def test_hidden_names_are_neither_classes_nor_pictures(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = names(load(copy).train_and_validation())
    picture = copy / "train" / "ant" / "0.jpg"
    for part in ("train", "val"):
        for folder in (".ipynb_checkpoints", "__MACOSX", "ant/.ipynb_checkpoints", "ant/.cache/deep"):
            (copy / part / folder).mkdir(parents=True)
            shutil.copy(picture, copy / part / folder)
        (copy / part / ".DS_Store").write_bytes(b"junk")
        (copy / part / "bee" / "._0.jpg").write_bytes(b"junk")
        shutil.copy(picture, copy / part / "bee" / ".copy.jpg")
    splits = load(copy)
    assert names(splits.train_and_validation()) == expected
    assert splits.class_names == ("ant", "bee", "cat")
    assert len(splits.test) == 6
    assert "10 files (10 hidden; read are .jpg" in caplog.text


def test_a_hidden_folder_above_is_no_matter(image_folder: Path, tmp_path: Path) -> None:
    hidden = shutil.copytree(image_folder, tmp_path / ".cache" / "data")
    assert len(load(hidden).train_and_validation()) == 24


def test_what_is_left_out_is_told_in_one_line(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        file = copy / "train" / "bee" / f"{number}.{('jpg', 'png', 'jpeg')[number]}"
        file.rename(file.with_suffix(".heic"))
    (copy / "val" / "cat" / "Thumbs.DB").write_bytes(b"")
    (copy / "val" / "cat" / "README").write_bytes(b"")
    (copy / "val" / "0.jpg").write_bytes(b"")
    (copy / "test" / "ant").mkdir(parents=True)
    load(copy)
    line, _ = caplog.messages
    assert line == (
        f"imagenet: left out below {copy}: 6 files (3 .heic, 1 .db, 1 in no class, 1 without an extension; read are "
        ".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .jfif .jpe .gif .pbm .pnm) and what is in test."
    )


def test_jpegs_of_other_names_and_still_gifs_are_pictures(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    ants = copy / "train" / "ant"
    with Image.open(ants / "0.jpg") as picture:
        for name in ("a.jfif", "b.JPE", "c.gif", "d.pbm", "e.pnm"):
            kind = {".jfif": "JPEG", ".JPE": "JPEG", ".gif": "GIF"}.get(Path(name).suffix, "PPM")
            picture.convert("1" if name == "d.pbm" else "RGB").save(ants / name, kind)
    splits = load(copy)
    assert {"a.jfif", "b.JPE", "c.gif", "d.pbm", "e.pnm"} <= {
        Path(file).name for file in names(splits.train_and_validation())
    }
    assert "left out" not in caplog.text
    next(iter(splits.train.evaluation_batches(64, splits.mean, splits.std)))
    frames = [Image.new("L", (20, 20), value) for value in (0, 255)]
    frames[0].save(ants / "moves.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(
        UnusableInput, match=r"moves\.gif cannot be read \(it is an animation of 2 frames\): replace or"
    ):
        load(copy)


def test_the_order_is_that_of_torchvision(copy: Path) -> None:
    from torchvision.datasets import ImageFolder

    (copy / "train" / "bee" / "more.png").mkdir()
    shutil.copy(copy / "train" / "ant" / "1.png", copy / "train" / "bee" / "more.png" / "Z.PNG")
    os.symlink(copy / "train" / "cat", copy / "train" / "ant" / "linked")
    classes, pictures = class_folders(copy / "train", Counter(), PICTURES)
    expected = ImageFolder(str(copy / "train"))
    assert classes == expected.classes
    assert [(file, label) for label, files in enumerate(pictures) for file in files] == expected.samples


def test_a_folder_that_cannot_be_read_is_told(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidden(path: str) -> object:
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(UnusableInput, match=r"cannot be read from .*train \(.*Permission denied: .*bee"):
        load(copy)


@pytest.mark.parametrize("part", ["train", "val"])
def test_pictures_that_cannot_be_read_are_found_before_the_first_step(copy: Path, part: str) -> None:
    first = copy / part / "ant" / "1.png"
    first.write_bytes(first.read_bytes()[:300])
    with pytest.raises(UnusableInput) as caught:
        load(copy)
    assert str(caught.value) == f"The image {first} cannot be read (image file is truncated): replace or remove it."
    for name in ("bee", "cat"):
        (copy / part / name / "0.jpg").write_bytes(b"")
        Image.new("F", (20, 20), 3.0).save(copy / part / name / "9.tif")
        os.symlink("nowhere", copy / part / name / "broken.png")
    with pytest.raises(UnusableInput) as caught:
        load(copy)
    sentence = str(caught.value)
    assert sentence.startswith("7 of 34 images cannot be read: ")
    assert sentence.endswith(" and 4 more; replace or remove them.")
    assert sentence.count(str(copy)) == 3
    assert "\n" not in sentence


def test_many_files_are_shared_among_processes(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(image_files, "FEW", 1)
    monkeypatch.setattr(image_files, "LOOKED_AT_ONCE", 5)
    state = torch.get_rng_state()
    files = sorted(map(str, copy.glob("train/*/*")))
    Image.new("RGB", (90, 30)).save(files[3])
    Path(files[7]).write_bytes(b"")
    for workers in (0, 2):
        found = ImageFiles(files, torch.arange(24), 24, Decoding(12, 16, workers)).look()
        assert [file for file, _ in found.unreadable] == [files[7]]
        assert dict(found.remarks) == {ELONGATED.format("12 x 12"): 1}
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_without_an_image_in_a_part_is_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in sorted((copy / "train" / "cat").iterdir())[1:]:
        file.unlink()
    load(copy, validation=4)
    assert re.search(r"imagenet: (train|validation) has no image of cat\.", caplog.text)
