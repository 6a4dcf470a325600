"""Pictures, masks and classes that are called nearly alike, and masks of which each value would be a class."""

import logging
import os
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from nas.data import ImageFileAugmentation, Images, RowSplit
from nas.data.data_splits import DataSplits
from nas.data.pictures.masks import SMOOTHED, smoothed_edges
from nas.data.targets import Targets
from nas.errors import UnusableInput
from nas.tasks import DenseClassification

COMPOSED, PARTED = (unicodedata.normalize(form, "bäume") for form in ("NFC", "NFD"))


def save(file: Path, value: int | np.ndarray = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8), value, np.uint8) if isinstance(value, int) else value.astype(np.uint8)
    Image.fromarray(pixels).save(file)


def load(folder: Path, **settings: Any) -> DataSplits:
    return Images(RowSplit(), ImageFileAugmentation(), str(folder), workers=0, **settings).load()


def test_labels_find_pictures_whatever_their_capitals_and_accents(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / f"{PARTED}{index}.JPG", 20 * index)
    lines = [f"{COMPOSED.capitalize()}{index}.jpg,{'ab'[index % 2]}" for index in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,kind", *lines]))
    assert load(tmp_path, labels="labels.csv").class_names == ("a", "b")
    for index in range(6):
        save(tmp_path / f"{COMPOSED}{index}.jpg", 200)
    with pytest.raises(UnusableInput, match=r"row 1"):  # one of two that differ in accents alone
        load(tmp_path, labels="labels.csv", file_column="file")


def test_classes_are_matched_whatever_the_form_of_their_accents(tmp_path: Path) -> None:
    for part, name in (("train", COMPOSED), ("test", PARTED)):
        for index in range(5):
            save(tmp_path / part / name / f"{index}.png", 9 * index)
            save(tmp_path / part / "bush" / f"{index}.png", 100 + 9 * index)
    splits = load(tmp_path)
    assert splits.class_names == ("bush", COMPOSED)
    assert splits.test.targets.tolist() == [0] * 5 + [1] * 5


def test_names_that_are_not_in_utf_8_are_written_with_their_bytes(tmp_path: Path) -> None:
    for name, value in ((b"\xe4pfel", 9), (b"birnen", 100)):  # Latin 1, as older archives have it
        for index in range(8):
            file = tmp_path / os.fsdecode(name) / os.fsdecode(b"%d\xdf.png" % index)
            save(file, value + index)
    splits = load(tmp_path)
    assert splits.class_names == ("birnen", r"\xe4pfel")
    samples = [str(one) for one in splits.test_samples]
    assert all(one.encode() and one.endswith(r"\xdf.png") for one in samples), samples
    assert len(splits.test) == len(samples) > 0


def test_a_test_part_without_classes_is_refused_with_the_way_to_draw_one(tmp_path: Path) -> None:
    for index in range(5):
        save(tmp_path / "train" / "a" / f"{index}.png", 9 * index)
        save(tmp_path / "train" / "b" / f"{index}.png", 100 + 9 * index)
        save(tmp_path / "test" / f"{index}.png")
    way = r"if nobody knows its classes, 'data\.parts=\{train: train\}' draws that part from training\.$"
    with pytest.raises(UnusableInput, match=f"test has no folders of classes, only 5 files: .*{way}"):
        load(tmp_path)
    save(tmp_path / "test" / "unknown" / "0.png")
    with pytest.raises(UnusableInput, match=f"1 class that .* lacks: unknown; .*{way}"):
        load(tmp_path)
    assert len(load(tmp_path, parts={"train": "train"}).test) == 2


def test_a_folder_around_the_parts_is_named(tmp_path: Path) -> None:
    save(tmp_path / "data" / "train" / "a" / "0.png")
    with pytest.raises(UnusableInput, match=f"has data alone; if train has them, say data.folder={tmp_path / 'data'}"):
        load(tmp_path)


def test_data_are_called_as_their_folder_in_any_alphabet(tmp_path: Path) -> None:
    folder = tmp_path / "Gr\N{LATIN SMALL LETTER O}\N{COMBINING DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e 花"
    for index in range(10):
        save(folder / "ab"[index % 2] / f"{index}.png", 9 * index)
    assert load(folder).name == "Größe_花"


def test_parts_of_other_names_are_no_classes_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for part in ("train", "judge"):
        for index in range(5):
            save(tmp_path / "own" / part / "a" / f"{index}.png", 9 * index)
            save(tmp_path / "own" / part / "b" / f"{index}.png", 100 + 9 * index)
    load(tmp_path / "own")
    assert "what is in judge; parts are named by 'data.parts={train: train, validation: judge}'" in caplog.text
    (tmp_path / "own" / "judge").rename(tmp_path / "own" / "Größe 2's")
    load(tmp_path / "own")
    told = re.findall(r"parts are named by (.*)\.$", caplog.text, re.MULTILINE)[-1]
    (override,) = OverridesParser.create().parse_overrides(shlex.split(told))
    assert override.value() == {"train": "train", "validation": "Größe 2's"}
    (tmp_path / "own" / "Größe 2's").rename(tmp_path / "own" / "judge")
    (tmp_path / "own" / "train").rename(tmp_path / "own" / "train_set")
    (tmp_path / "own" / "judge").rename(tmp_path / "own" / "test_set")
    way = r"has test_set, train_set, and each has the folders a, b: if a, b are the classes, say 'data\.parts=\{train: "
    with pytest.raises(
        UnusableInput, match=way + r"train_set, test: test_set\}'; if test_set, train_set are, rename them"
    ):
        load(tmp_path / "own")
    assert load(tmp_path / "own", parts={"train": "train_set", "test": "test_set"}).class_names == ("a", "b")
    for name in ("one", "two"):
        for kind in ("train_freight", "train_passenger"):
            for index in range(2):
                save(tmp_path / "rails" / kind / name / f"{index}.png", 9 * index + len(name))
    assert load(tmp_path / "rails").class_names == ("train_freight", "train_passenger")
    assert (
        "the classes are train_freight, train_passenger, of which each has the folders one, two; parts are named by"
        in caplog.text
    )
    for name in ("valley", "testa"):  # classes with folders of their own
        save(tmp_path / "land" / name / "one" / "0.png", 7)
        for index in range(4):
            save(tmp_path / "land" / name / "two" / f"{index}.png", 9 * index + len(name))
    assert load(tmp_path / "land").class_names == ("testa", "valley")


def masked(folder: Path, mask: np.ndarray, name: str = "{}_mask.png") -> Path:
    for index in range(6):
        save(folder / "images" / f"{index}.png", 9 * index)
        save(folder / "masks" / name.format(index), np.roll(mask, index, axis=1))
    return folder


DISC = np.zeros((8, 8))
DISC[2:6, 2:6] = 1


def test_a_mask_may_be_called_so_and_255_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    void = DISC.copy()
    void[0] = 255
    splits = load(masked(tmp_path, void), masks="masks")
    assert DenseClassification().fitted(splits)[1].class_names == ("0", "1", "255")
    assert "255 is a class as the others are; task.ignore=255 leaves it out" in caplog.text
    caplog.clear()
    DenseClassification(ignore=255).fitted(splits)
    assert not caplog.text


def test_smoothed_edges_of_masks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    smooth = 255 * DISC
    smooth[1, 1:7], smooth[6, 1:7] = range(20, 80, 10), range(21, 81, 10)
    load(masked(tmp_path, smooth), masks="masks")
    assert "values of the masks are nowhere wider than two pixels, as if edges had been smoothed" in caplog.text


def test_masks_of_few_classes_are_never_looked_at_for_smoothed_edges() -> None:
    thin = torch.arange(SMOOTHED + 2).remainder(SMOOTHED).view(1, 2, -1)
    classes = tuple(map(str, range(SMOOTHED)))
    assert str(smoothed_edges(Targets(thin.byte(), classes))).startswith("8 of 8 values")
    beyond = torch.full((1, 3, 3), SMOOTHED - 1, dtype=torch.uint8)  # a value beyond the classes, if anybody looks
    assert smoothed_edges(Targets(beyond, classes[1:])) is None


def test_several_things_are_added_to_the_names_of_masks(tmp_path: Path) -> None:
    for index in range(6):
        save(tmp_path / "images" / f"image_{index}.png", 9 * index)
        save(tmp_path / "masks" / f"gt_image_{index}_seg_mask.png", np.roll(DISC, index, axis=1))
    assert load(tmp_path, masks="masks").class_names == ("0", "1")
    save(tmp_path / "images" / "IMG_3.png")
    with pytest.raises(
        UnusableInput, match=r"pictures IMG_3 and image_3 below .* differ only in .*: call each mask as"
    ):
        load(tmp_path, masks="masks")
    for folder in ("one", "two"):
        save(tmp_path / "split" / folder / "1.png")
    save(tmp_path / "masks" / "1.png")
    with pytest.raises(UnusableInput, match=r"1 of 2 pictures below .* are called as one in another folder"):
        load(tmp_path / "split", masks=str(tmp_path / "masks"))


def test_masks_that_are_no_pictures_are_told_by_their_kind(tmp_path: Path) -> None:
    folder = masked(tmp_path, DISC)
    for index in range(6):
        (folder / "masks" / f"{index}_mask.png").rename(folder / "masks" / f"{index}.npy")
    with pytest.raises(UnusableInput, match=r"; there is no picture at all, only 6 \.npy\.$"):
        load(folder, masks="masks")
