"""Slips with folders of pictures and files of their labels, each told in one sentence with what helps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.data import ImageFileAugmentation, Images, RowSplit
from nas.errors import InvalidValue, UnusableInput


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 9 * number, np.uint8)).save(file)


def sentence_of(folder: Path, **settings: Any) -> str:
    source = Images(RowSplit(), ImageFileAugmentation(), str(folder), workers=0, **settings)
    with pytest.raises((InvalidValue, UnusableInput)) as caught:
        source.load()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_folder_too_many_is_named_with_the_setting_that_helps(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"flowers/{name}/{number}.png" for name in ("rose", "tulip") for number in range(3)))
    sentence = sentence_of(tmp_path)
    assert "has flowers alone" in sentence
    assert f"if rose, tulip are the classes, say data.folder={tmp_path / 'flowers'}" in sentence
    pictures(tmp_path / "road", "frames/1.png", "frames/2.png")
    assert sentence_of(tmp_path / "road").endswith("data.labels=<file>.csv or data.masks=<folder>.")


def test_a_class_of_files_that_are_not_read_is_told_with_their_kind(tmp_path: Path) -> None:
    pictures(tmp_path, "rose/1.png", "tulip/1.png")
    (tmp_path / "lily").mkdir()
    for number in range(3):
        (tmp_path / "lily" / f"{number}.HEIC").write_bytes(b"x")
    assert "without a picture: lily (there are 3 .heic; read are .jpg" in sentence_of(tmp_path)


@pytest.mark.parametrize(
    ("lines", "fragments"),
    [
        (
            ["0.png,0.5", "1.png,1.5", "2.png,2.5"],
            ("first line of own.csv has 0.png, a picture", "names of the columns"),
        ),
        (
            ["file,y", r"C:\me\0.png,0.5", r"C:\me\1.png,1.5"],
            ("none of the columns file, y", r"C:\me\0.png must be written so"),
        ),
        (["number,y", "7,0.5", "8,1.5"], ("none of the columns number, y of own.csv has names", "say which has them")),
    ],
    ids=["no_names", "another_machine", "no_files"],
)
def test_a_file_of_labels_that_names_no_pictures_shows_how_they_are_called(
    lines: list[str], fragments: tuple[str, ...], tmp_path: Path
) -> None:
    pictures(tmp_path, "0.png", "1.png", "2.png")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    sentence = sentence_of(tmp_path, labels="own.csv")
    assert all(fragment in sentence for fragment in fragments), sentence


def test_folders_and_files_may_be_typed_as_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "own" / "in", *(f"{number}.png" for number in range(6)))
    lines = [rf"in\{number}.png,{number / 4}" for number in range(6)]
    (tmp_path / "own" / "in" / "own.csv").write_text("\n".join(["file,y", *lines]))
    source = Images(RowSplit(), ImageFileAugmentation(), r".\own", labels=r"in\own.csv", workers=0)
    assert len(source.load().train) == 4
