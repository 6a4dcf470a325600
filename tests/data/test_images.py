"""Pictures of a user's own: what is found in folders, files of labels and masks, and every mistake in one sentence."""

import csv
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from nas.data.augmentation import UNKNOWN_CLASS, ImageFileAugmentation
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset, ImageDataset
from nas.data.pictures.image_files import FilesWithTargets, ImageFiles
from nas.data.pictures.images import Images
from nas.data.row_split import RowSplit
from nas.data.stratified_split import SplitSettings
from nas.errors import InvalidValue, UnusableInput

OFF = ImageFileAugmentation()
CLASSES = ("ant", "bee", "cat")
NUMBERS = np.random.default_rng(0)


def save(pixels: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def pictures(folder: Path, count: int = 10, names: Sequence[str] = CLASSES, shape: tuple[int, ...] = (6, 4)) -> Path:
    """``count`` PNGs below a folder per class; those of class k are about as bright as k."""
    for number, name in enumerate(names):
        for index in range(count):
            save(NUMBERS.integers(60 * number, 60 * number + 50, shape, dtype=np.uint8), folder / name / f"{index}.png")
    return folder


def load(folder: Path, split: RowSplit | SplitSettings | None = None, **settings: Any) -> DataSplits:
    augmentation = settings.pop("augmentation", OFF)
    return Images(split or RowSplit(), augmentation, str(folder), **{"workers": 0, **settings}).load()


def rows(file: Path, columns: Mapping[str, Sequence[object]]) -> None:
    with open(file, "w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def table(folder: Path, **columns: Sequence[object]) -> Path:
    """12 loose pictures below ``folder`` and a file of labels of them."""
    for index in range(12):
        save(np.full((5, 7), 10 * index, np.uint8), folder / "pictures" / f"p{index}.png")
    names = [f"p{index}.png" for index in range(12)]
    rows(folder / "labels.csv", {"file": names, **columns})
    return folder


ANGLES = [index / 4 - 1 for index in range(12)]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nas")


def refused(kind: type[Exception], folder: Path, *fragments: str, **settings: Any) -> None:
    """Loading ends in one sentence with all ``fragments``."""
    with pytest.raises(kind) as caught:
        load(folder, **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for fragment in fragments:
        assert fragment in sentence, sentence


def test_class_folders_are_split_and_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = load(pictures(tmp_path / "bugs"))
    assert (splits.name, splits.input_shape, splits.class_names) == ("bugs", (1, 6, 4), CLASSES)
    for part, count in ((splits.train, 6), (splits.validation, 2), (splits.test, 2)):
        assert isinstance(part, ImageDataset)
        assert part.labels.bincount().tolist() == [count] * 3
        assert torch.equal(part.images.float().mean((1, 2, 3)).div(60).long(), part.labels)  # as bright as their class
    assert caplog.messages == [
        "bugs: pictures of 3 classes (ant, bee, cat), 6 x 4, grey; 18 to train, 6 to validate, 6 to test; in memory"
    ]
    assert [str(name).split("/")[0] for name in splits.test_samples] == [CLASSES[one] for one in splits.test.targets]
    assert splits.preparation["size"] == [6, 4]
    assert len(splits.digest) == 64


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_ready_parts_are_taken_and_classes_matched_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, validation: str
) -> None:
    pictures(tmp_path / "train")
    pictures(tmp_path / validation, 4, ("ant", "cat"))  # numbered by itself, cat would be 1
    pictures(tmp_path / "test", 3, ("bee", "cat"))
    splits = load(tmp_path)
    sizes = [(len(part), part.targets.unique().tolist()) for part in splits.parts.values()]
    assert sizes == [(30, [0, 1, 2]), (8, [0, 2]), (6, [1, 2])]
    assert "validation has no image of bee; test has no image of ant." in caplog.text


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    assert load(pictures(tmp_path / "vehicles", names=("bus", "train"))).class_names == ("bus", "train")
    assert load(pictures(tmp_path / "patients", names=("control", "test"))).class_names == ("control", "test")


@pytest.mark.parametrize(("missing", "sizes"), [("val", (24, 6, 9)), ("test", (24, 9, 6)), ("both", (18, 6, 6))])
def test_parts_that_are_not_ready_are_cut_from_training(tmp_path: Path, missing: str, sizes: tuple[int, ...]) -> None:
    pictures(tmp_path / "train")
    for part in ("val", "test"):
        if missing not in (part, "both"):
            pictures(tmp_path / part, 3)
    assert tuple(map(len, load(tmp_path).parts.values())) == sizes


def test_a_class_that_training_lacks_is_refused_with_both_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 4)
    pictures(tmp_path / "test", 2, (*CLASSES, "dog"))
    both = f"{tmp_path / 'test'} has 1 class that {tmp_path / 'train'} lacks: dog"
    refused(UnusableInput, tmp_path, both, "ant, bee, cat", "matched by name")


def test_folders_that_mean_nothing_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="folder=null is not allowed: it must be the folder of the pictures"):
        Images(RowSplit(), OFF)
    refused(UnusableInput, tmp_path / "nowhere", str(tmp_path / "nowhere"), "data.folder=<path>")
    whole = pictures(tmp_path / "bugs", 3)
    (whole / "dog").mkdir()
    (whole / "dog" / ".hidden.png").write_bytes(b"")
    refused(UnusableInput, whole, "1 class folder of", "without a picture: dog")
    shutil.rmtree(whole / "dog")
    save(np.zeros((6, 4), np.uint8), tmp_path / "loose" / "1.png")
    refused(UnusableInput, tmp_path / "loose", "no folders of classes, only 1 files", "data.labels", "data.masks")
    pictures(tmp_path / "one", 3, ("ant",))
    refused(UnusableInput, tmp_path / "one", "at least two classes", "ant alone")
    pictures(tmp_path / "ready" / "val", 3)
    refused(UnusableInput, tmp_path / "ready", "has val but no train")
    pictures(tmp_path / "ready" / "train", 3)
    pictures(tmp_path / "ready" / "valid", 3)
    refused(UnusableInput, tmp_path / "ready", "has val, valid, which are all names of the validation part")


def test_pictures_of_several_sizes_need_one_that_is_said(tmp_path: Path) -> None:
    pictures(tmp_path)
    save(np.zeros((9, 8), np.uint8), tmp_path / "cat" / "odd.png")
    odd = f"9 x 8 (1, {tmp_path / 'cat' / 'odd.png'})"
    refused(InvalidValue, tmp_path, "size=null", "31 pictures have 2 sizes", "6 x 4 (30, ", odd, "data.size=[6, 4]")
    splits = load(tmp_path, size=[5, 8])
    assert splits.input_shape == (1, 5, 8)
    assert load(tmp_path, size=3).input_shape == (1, 3, 3)
    refused(InvalidValue, tmp_path, "size=[5]", "two such numbers, [height, width]", size=[5])


def test_long_pictures_that_are_kept_as_they_are_lose_no_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, 4, shape=(9, 3))
    assert load(tmp_path).input_shape == (1, 9, 3)
    assert "leaves out both ends" not in caplog.text
    load(tmp_path, size=3)
    assert "leaves out both ends" in caplog.text


def test_a_picture_of_the_size_is_left_as_it_is_and_others_cover_it(tmp_path: Path) -> None:
    steps = (np.arange(12)[:, None] * 20 + np.zeros((12, 4))).astype(np.uint8)  # brighter downwards
    for name in CLASSES:
        for index in range(5):
            save(steps, tmp_path / name / f"{index}.png")
    same = load(tmp_path, size=[12, 4]).train
    assert isinstance(same, ImageDataset)
    assert torch.equal(same.images[0, 0], torch.from_numpy(steps))
    halved = load(tmp_path, size=[3, 2]).train  # covers 6 x 2, and the middle is cut out
    assert isinstance(halved, ImageDataset)
    assert halved.images[0, 0, :, 0].tolist() == pytest.approx([90, 130, 170], abs=12)


@pytest.mark.parametrize(
    ("channels", "shape", "expected"),
    [("auto", (6, 4), 1), ("auto", (6, 4, 3), 3), ("auto", (6, 4, 4), 3), ("grey", (6, 4, 3), 1), ("rgba", (6, 4), 4)],
)
def test_channels_are_found_or_said(tmp_path: Path, channels: str, shape: tuple[int, ...], expected: int) -> None:
    splits = load(pictures(tmp_path, 5, shape=shape), channels=channels)
    assert splits.input_shape == (expected, 6, 4)
    assert len(splits.mean) == len(splits.std) == expected


def test_16_bits_are_kept(tmp_path: Path) -> None:
    values = [0, 1, 300, 65535]
    for number, name in enumerate(("dark", "light")):
        for index in range(5):
            save(np.array([values, values[::-1]], np.uint16)[:, :: 1 - 2 * number], tmp_path / name / f"{index}.png")
    train = load(tmp_path).train
    assert isinstance(train, ImageDataset)
    assert train.images.dtype == torch.float32
    dark = train.images[train.labels == 0][0, 0, 0]
    assert (dark * 65535).tolist() == pytest.approx(values, rel=1e-6)
    save(np.full((2, 4), 128, np.uint8), tmp_path / "dark" / "8bit.png")  # among them, 8 bits mean the same grey
    streamed = load(tmp_path, RowSplit(validation=1, test=1), memory=0.0)
    assert isinstance(streamed.train, ImageFiles)
    assert streamed.digest == load(tmp_path, RowSplit(validation=1, test=1)).digest  # the same data, wherever they are
    batches = list(streamed.train.evaluation_batches(4, (0.0,), (1.0,)))
    assert any(abs(float(image.max()) - 128 / 255) < 1e-6 for batch in batches for image in batch.inputs)


def test_pictures_are_recognised_whatever_is_kept_or_drawn(tmp_path: Path) -> None:
    pictures(tmp_path, 5)
    first = load(tmp_path)
    turned = replace(OFF, smallest_area=0.5)
    assert {load(tmp_path, memory=0.0).digest, load(tmp_path, augmentation=turned).digest} == {first.digest}
    # What runs with data.memory=0 recorded: names, sizes and targets in place of contents.
    classes = sorted(folder.name for folder in tmp_path.iterdir())
    files = [file for name in classes for file in sorted((tmp_path / name).iterdir())]
    whole = hashlib.sha256()
    for file in files:
        whole.update(json.dumps([file.relative_to(tmp_path).as_posix(), file.stat().st_size]).encode())
    whole.update(torch.arange(len(classes)).repeat_interleave(5).numpy().tobytes())
    assert first.digests == (first.digest, whole.hexdigest())
    pixels = np.asarray(Image.open(files[0])) ^ 1
    save(pixels, files[0])
    assert first.digest not in load(tmp_path).digests


def test_statistics_are_those_of_training_whatever_the_test_holds(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        pictures(tmp_path / part, 5)
    before = load(tmp_path)
    for part in ("val", "test"):
        for file in (tmp_path / part).glob("*/*"):
            save(np.full((6, 4), 255, np.uint8), file)
    after = load(tmp_path)
    assert (after.mean, after.std) == (before.mean, before.std)
    assert after.preparation == before.preparation
    assert after.digest != before.digest
    assert isinstance(before.train, ImageDataset)
    assert before.mean == before.train.channel_statistics()[0]


def test_pictures_in_files_are_the_same_as_in_memory(tmp_path: Path) -> None:
    folder = pictures(tmp_path, shape=(6, 4, 3))
    kept, streamed = load(folder), load(folder, memory=0.0)
    assert isinstance(streamed.train, ImageFiles)
    assert streamed.mean == pytest.approx(kept.mean, rel=1e-12)
    assert streamed.std == pytest.approx(kept.std, rel=1e-9)
    for part, other in zip(kept.parts.values(), streamed.parts.values(), strict=True):
        for batch, same in zip(
            part.evaluation_batches(4, kept.mean, kept.std),
            other.evaluation_batches(4, kept.mean, kept.std),
            strict=True,
        ):
            assert torch.equal(batch.inputs, same.inputs)
            assert torch.equal(batch.targets, same.targets)
    assert isinstance(load(folder, augmentation=ImageFileAugmentation(smallest_area=0.5)).train, ImageFiles)


def test_given_statistics_are_taken(tmp_path: Path) -> None:
    splits = load(pictures(tmp_path), mean=[0.25], std=[0.5])
    assert (splits.mean, splits.std) == ((0.25,), (0.5,))
    refused(InvalidValue, tmp_path, "std=null", "both given or both null", mean=[0.25])
    refused(InvalidValue, tmp_path, "mean=[0.5]", "3 numbers, for channels=rgb", mean=[0.5], std=[0.5], channels="rgb")
    two = {"mean": [0.5, 0.5], "std": [0.5, 0.5]}
    refused(InvalidValue, tmp_path, "mean=[0.5, 0.5] is not allowed: it must be 1 ", "number, for channels=grey", **two)


def test_colour_jitter_is_for_colour_and_cutout_for_the_size(tmp_path: Path) -> None:
    pictures(tmp_path)
    jitter = ImageFileAugmentation(colour_jitter=(0.1, 0, 0, 0))
    refused(InvalidValue, tmp_path, "augmentation.colour_jitter", "the pictures are grey", augmentation=jitter)
    refused(InvalidValue, tmp_path, "augmentation.cutout=5", "side, 4", augmentation=ImageFileAugmentation(cutout=5))
    moving = ImageFileAugmentation(crop_padding=2, flip=True, cutout=2)
    splits = load(tmp_path, augmentation=moving)
    draws = [Generator().manual_seed(seed) for seed in (0, 1)]
    batch = splits.train.stream(6, splits.mean, splits.std, draws[0], moving, draws[1]).next()
    assert batch.inputs.shape == (6, 1, 6, 4)


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_a_column_of_numbers_is_a_regression(tmp_path: Path, memory: float) -> None:
    splits = load(table(tmp_path, angle=ANGLES), RowSplit(seed=3), labels="labels.csv", memory=memory)
    assert isinstance(splits.train, ArrayDataset if memory else FilesWithTargets)
    assert splits.class_names is None
    assert splits.target_names == ("angle",)
    for part in splits.parts.values():
        (batch,) = part.evaluation_batches(12, (0.0,), (1.0,))
        assert torch.allclose(batch.inputs[:, 0, 0, 0] * 255 / 40 - 1, batch.targets.float())  # each its own angle


def test_columns_of_labels_and_texts(tmp_path: Path) -> None:
    colours = ["red", "blue", "red", "blue"] * 3
    folder = table(tmp_path, angle=ANGLES, colour=colours, a=[0, 1, 1] * 4, b=[1, 0, 1] * 4)
    both = load(folder, labels="labels.csv", target=["a", "b"])
    assert both.train.targets.dtype == torch.int64
    assert both.train.targets.shape == (8, 2)
    named = load(folder, labels="labels.csv", target="colour")
    assert named.class_names == ("blue", "red")
    refused(InvalidValue, folder, "target=null", "angle, colour, a, b", "say which", labels="labels.csv")
    refused(InvalidValue, folder, "target=angel", "did you mean angle?", labels="labels.csv", target="angel")
    refused(UnusableInput, folder, "colour", "texts", labels="labels.csv", target=["a", "colour"])
    refused(InvalidValue, folder, "target=a", "data.labels=<file>.csv", target="a")


def test_rows_and_pictures_that_do_not_fit_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = table(tmp_path, angle=["", *ANGLES[1:]])
    refused(UnusableInput, folder, "angle", "missing in 1 of 12 rows (row 1", labels="labels.csv")
    refused(UnusableInput, folder, "other.csv is not there", "data.labels=<file>.csv", labels="other.csv")
    (folder / "pictures" / "p3.png").unlink()
    table_ = {"file": [f"p{index}" for index in range(12)], "angle": ANGLES}
    rows(folder / "labels.csv", table_)  # names without their ending
    refused(UnusableInput, folder, "1 of the 12 pictures", "p3 in row 4", "column file", labels="labels.csv")
    rows(folder / "labels.csv", {"file": ["p1.png", "p1.png", "p2.png"], "angle": ANGLES[:3]})
    refused(UnusableInput, folder, "more than one row for 1 of the pictures, for", "rows 1, 2", labels="labels.csv")
    rows(folder / "labels.csv", {"id": ["x", "y", "z"], "angle": ANGLES[:3]})
    refused(
        InvalidValue, folder, "file_column=null", "none of the columns id, angle", "11 pictures", labels="labels.csv"
    )
    rows(folder / "labels.csv", {"file": [f"pictures/p{index}.png" for index in range(4, 12)], "angle": ANGLES[4:]})
    assert len(load(folder, labels="labels.csv").train) == 4
    assert "3 of 11 pictures are not in labels.csv and are left out" in caplog.text


def test_labels_that_could_be_pictures_are_no_file_names_beside_names_with_endings(tmp_path: Path) -> None:
    pictures(tmp_path, 12, ("all",))
    names = sorted(one.name for one in (tmp_path / "all").iterdir())
    for place, name in enumerate(names):
        (tmp_path / "all" / name).rename(tmp_path / "all" / f"{place:04}.png")
    columns = {"label": [place % 3 for place in range(12)], "file": [f"{place:04}.png" for place in range(12)]}
    rows(tmp_path / "labels.csv", columns)
    splits = load(tmp_path, labels="labels.csv")
    assert splits.target_names == ("label",)
    assert [int(str(name)[4:8]) % 3 for name in splits.test_samples] == splits.test.targets.tolist()
    rows(tmp_path / "labels.csv", {"label": columns["label"], "file": [str(place) for place in range(12)]})
    refused(InvalidValue, tmp_path, "file_column=null", "label, file have names", labels="labels.csv")


def test_rows_of_ready_parts_and_of_numbers_for_names(tmp_path: Path) -> None:
    for part, start, count in (("train", 0, 8), ("test", 8, 3)):
        for number in range(start, start + count):
            save(np.full((5, 7), 10 * number, np.uint8), tmp_path / part / f"{number:04}.png")
    order = [9, 3, 0, 10, 1, 2, 8, 4, 5, 6, 7]
    rows(tmp_path / "labels.csv", {"id": order, "angle": [number / 4 for number in order]})
    splits = load(tmp_path, RowSplit(validation=2), labels="labels.csv", file_column="id")
    assert sorted(splits.test.targets.tolist()) == [2.0, 2.25, 2.5]
    assert len(splits.train) == 6
    for part in splits.parts.values():
        (batch,) = part.evaluation_batches(12, (0.0,), (1.0,))
        assert torch.allclose(batch.inputs[:, 0, 0, 0] * 255 / 40, batch.targets.float())
    save(np.zeros((5, 7), np.uint8), tmp_path / "0011.png")
    rows(tmp_path / "labels.csv", {"id": [*order, 11], "angle": [number / 4 for number in (*order, 11)]})
    refused(
        UnusableInput, tmp_path, "1 of 12 pictures lie in none of train, test", labels="labels.csv", file_column="id"
    )


def test_groups_stay_together_and_time_is_cut_in_order(tmp_path: Path) -> None:
    days = [f"2024-01-{1 + index // 2:02}" for index in reversed(range(12))]
    folder = table(tmp_path, angle=ANGLES, day=days)
    settings: dict[str, Any] = {"labels": "labels.csv", "target": "angle"}
    by = load(folder, RowSplit(by="day"), **settings)
    groups = [{days[ANGLES.index(angle)] for angle in part.targets.tolist()} for part in by.parts.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    in_time = load(folder, RowSplit(order="day", validation=2, test=2), **settings)
    assert sorted(in_time.test.targets.tolist()) == ANGLES[:2]  # the last days
    refused(InvalidValue, folder, "split.by=week", labels="labels.csv", target="angle", split=RowSplit(by="week"))
    refused(InvalidValue, folder, "split.by=day", "data.labels=<file>.csv", split=RowSplit(by="day"))


def masked(folder: Path, values: Sequence[int] = (0, 78, 255), count: int = 10, palette: bool = False) -> Path:
    """Pictures whose left half is black, and masks of other values there."""
    for index in range(count):
        pixels = NUMBERS.integers(100, 256, (6, 4), dtype=np.uint8)
        pixels[:, :2] = 0
        mask = np.full((6, 4), values[1 + index % (len(values) - 1)], np.uint8)
        mask[:, :2] = values[0]
        save(pixels, folder / f"{index}.png")
        image = Image.fromarray(mask)
        if palette:
            image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
        (folder / "masks").mkdir(exist_ok=True)
        image.save(folder / "masks" / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("values", "palette", "names"),
    [((0, 78, 255), False, ("0", "78", "255")), ((0, 1, 2), True, ("0", "1", "2")), ((7, 0), False, ("0", "7"))],
)
@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_the_values_of_masks_are_numbered_in_order(
    tmp_path: Path, values: Sequence[int], palette: bool, names: tuple[str, ...], memory: float
) -> None:
    splits = load(masked(tmp_path, values, palette=palette), masks="masks", memory=memory)
    assert splits.head == "dense"
    assert splits.preparation["mask_values"] == list(names)
    assert splits.class_names == names
    for part in splits.parts.values():
        assert part.targets.shape[1:] == (6, 4)
        assert part.targets[:, :, :2].unique().tolist() == [names.index(str(values[0]))]
        (batch,) = part.evaluation_batches(12, (0.0,), (1.0,))
        assert torch.equal(batch.inputs[:, 0] == 0, batch.targets == names.index(str(values[0])))


def test_masks_may_lie_beside_the_folder_of_the_pictures(tmp_path: Path) -> None:
    folder = masked(tmp_path)
    (folder / "images").mkdir()
    for file in folder.glob("*.png"):
        file.rename(folder / "images" / file.name)
    beside = load(folder, masks="masks")
    assert beside.preparation["mask_values"] == ["0", "78", "255"]
    assert torch.equal(load(folder / "images", masks=str(folder / "masks")).train.targets, beside.train.targets)


def test_colours_of_masks_are_values(tmp_path: Path) -> None:
    masked(tmp_path)
    for index in range(10):
        mask = np.zeros((6, 4, 3), np.uint8)
        mask[:, 2:] = (255, 0, 0) if index % 2 else (0, 255, 0)
        save(mask, tmp_path / "masks" / f"{index}.png")
    assert load(tmp_path, masks="masks").preparation["mask_values"] == ["0", "#00ff00", "#ff0000"]


def test_masks_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = masked(tmp_path / "cells")
    (folder / "masks" / "3.png").rename(folder / "masks" / "3_mask.png")
    missing = f"1 of 10 pictures have no mask of the same name below {folder / 'masks'}: {folder / '3.png'}"
    refused(UnusableInput, folder, missing, masks="masks")
    (folder / "masks" / "3_mask.png").rename(folder / "masks" / "3.png")
    refused(UnusableInput, folder, "The folder of masks", "data.masks=<folder>", masks="mask")
    save(np.zeros((4, 6), np.uint8), folder / "masks" / "3.png")
    refused(
        UnusableInput, folder, "3.png", "it is 4 x 6, and its picture 3.png is 6 x 4: resize without", masks="masks"
    )
    for index in range(10):
        save(np.full((6, 4), 9, np.uint8), folder / "masks" / f"{index}.png")
    refused(UnusableInput, folder, "All masks have the one value 9", masks="masks")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_masks_in_the_alpha_channel_are_told_as_such(mode: str, tmp_path: Path) -> None:
    masks = masked(tmp_path) / "masks"
    for file in masks.iterdir():
        with Image.open(file) as mask:
            whole = Image.new("L", mask.size, 255)
            Image.merge(mode, [*([whole] * (len(mode) - 1)), mask]).save(file)
    told = "All masks have the one value 255: there are no classes", "0.png has an alpha channel of several values"
    refused(UnusableInput, tmp_path, *told, 'save it by itself, as Image.open(file).getchannel("A")', masks="masks")


@pytest.mark.parametrize("name", ["masks", "labels", "bees"])
def test_pictures_and_their_masks_are_no_classes(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, names=("images", name))
    if name == "bees":
        assert load(tmp_path).class_names == ("bees", "images")
        return
    told = f"{tmp_path} has images and {name} of the same 10 names: for a class per pixel say data.masks={name};"
    refused(UnusableInput, tmp_path, told, "rename one of them")
    assert load(tmp_path, masks=name).head == "dense"
    (tmp_path / name / "3.png").rename(tmp_path / name / "other.png")
    assert load(tmp_path).class_names == ("images", name)


@pytest.mark.parametrize("name", ["4.jpg", "4.jfif", "4.png"])
def test_masks_in_jpeg_are_refused_whatever_their_names(tmp_path: Path, name: str) -> None:
    masks = masked(tmp_path) / "masks"
    with Image.open(masks / "4.png") as mask:
        mask.load()
    (masks / "4.png").unlink()
    mask.save(masks / name, "JPEG")
    refused(UnusableInput, tmp_path, str(masks / name), "it is a JPEG", "lossless format such as PNG", masks="masks")


def test_more_than_256_values_are_no_mask(tmp_path: Path) -> None:
    folder = masked(tmp_path, count=13)
    for index in range(13):
        save((np.arange(24).reshape(6, 4) + 18 * index).astype(np.uint16), folder / "masks" / f"{index}.png")
    assert len(load(folder, masks="masks").preparation["mask_values"]) == 240  # many, but could be classes
    for index in range(13):
        save((np.arange(24).reshape(6, 4) + 300 * index).astype(np.uint16), folder / "masks" / f"{index}.png")
    refused(UnusableInput, folder, "more than 256 values", "one value per class, and JPEG smears", masks="masks")


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_crop_and_flip_move_masks_with_their_pictures(tmp_path: Path, memory: float) -> None:
    moving = ImageFileAugmentation(crop_padding=2, flip=True)
    splits = load(masked(tmp_path), masks="masks", memory=memory, augmentation=moving)
    order, noise = Generator().manual_seed(0), Generator().manual_seed(1)
    stream = splits.train.stream(6, (0.0,), (1.0,), order, moving, noise)
    seen: set[int] = set()
    for _ in range(20):
        images, targets = stream.next()[:2]
        known = targets != UNKNOWN_CLASS
        assert torch.equal((images[:, 0] > 0) & known, (targets > 0) & known)
        assert bool((images[:, 0] == 0)[~known].all())  # what came from the padding
        seen |= set(targets.unique().tolist())
    assert seen == {UNKNOWN_CLASS, 0, 1, 2}
    random = ImageFileAugmentation(smallest_area=0.5)
    refused(
        InvalidValue, tmp_path, "augmentation.smallest_area=0.5", "masks do not", masks="masks", augmentation=random
    )


def test_streamed_pictures_resume_with_the_same_batches(tmp_path: Path) -> None:
    moving = ImageFileAugmentation(crop_padding=1, flip=True, smallest_area=0.5)
    splits = load(table(tmp_path, angle=ANGLES), labels="labels.csv", augmentation=moving)
    order, noise = Generator().manual_seed(0), Generator().manual_seed(1)
    stream = splits.train.stream(3, splits.mean, splits.std, order, moving, noise)
    for _ in range(3):
        stream.next()
    file = io.BytesIO()
    torch.save({"stream": stream.state_dict(), "order": order.get_state(), "noise": noise.get_state()}, file)
    expected = [stream.next() for _ in range(4)]
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    order, noise = Generator().manual_seed(5), Generator().manual_seed(6)
    again = splits.train.stream(3, splits.mean, splits.std, order, moving, noise)
    again.load_state_dict(checkpoint["stream"])
    order.set_state(checkpoint["order"])
    noise.set_state(checkpoint["noise"])
    for batch in expected:
        same = again.next()
        assert torch.equal(batch.inputs, same.inputs)
        assert torch.equal(batch.targets, same.targets)


def test_unreadable_files_end_it_before_the_first_step(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "bee" / "3.png").write_bytes(b"no picture")
    refused(UnusableInput, tmp_path, f"{tmp_path / 'bee' / '3.png'} cannot be read", "replace or remove it")


def test_a_file_and_a_link_to_a_folder_above_are_no_folders_of_pictures(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "bugs", 3)
    refused(UnusableInput, folder / "ant" / "0.png", "0.png is no folder: give that which has all pictures")
    (folder / "ant" / "again").symlink_to(folder, target_is_directory=True)
    refused(UnusableInput, folder, "Too many levels of symbolic links", "again")


def test_what_systems_keep_beside_pictures_is_no_class_and_no_picture(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "bugs")
    pictures(folder, 2, ("@eaDir", "lost+found", "$RECYCLE.BIN", "cat/@eaDir"))
    splits = load(folder)
    assert splits.class_names == CLASSES
    assert sum(map(len, splits.parts.values())) == 30


def test_a_column_of_the_labels_may_say_the_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = ["test", "valid", "train", "train"] * 3
    folder = table(tmp_path, angle=ANGLES, split=said)
    splits = load(folder, labels="labels.csv", target="angle", split=RowSplit(parts="split"))
    assert splits.test.targets.tolist() == ANGLES[::4]
    assert "split of labels.csv names parts" not in caplog.text
    load(folder, labels="labels.csv", target="angle")
    assert "split of labels.csv names parts, and others are drawn; data.split.parts=split takes those" in caplog.text
    refused(InvalidValue, folder, "split.parts=split", "data.labels=<file>.csv", split=RowSplit(parts="split"))


def test_the_index_that_a_data_frame_writes_is_no_target(tmp_path: Path) -> None:
    folder = table(tmp_path, angle=ANGLES)
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(f"{row - 1 if row else ''},{line}" for row, line in enumerate(lines)))
    assert load(folder, labels="labels.csv").target_names == ("angle",)


def test_hidden_names_and_other_files_are_left_out_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pictures(tmp_path / "bugs")
    pictures(folder, 2, (".ipynb_checkpoints", "__MACOSX"))
    (folder / "cat" / "notes.txt").write_text("three legs")
    assert load(folder).class_names == CLASSES
    assert "1 file (1 .txt; read are .jpg" in caplog.text
