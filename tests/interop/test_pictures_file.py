"""A stand-alone file takes pictures of any size as the search has taken them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.data.augmentation import ImageFileAugmentation
from nas.data.pictures.images import Images
from nas.data.row_split import RowSplit
from nas.interop.standalone import standalone_source
from nas.signature import Signature
from nas.spaces.macro.space import Macro

OFF = ImageFileAugmentation(0, False, 0, 1.0, (0.0,) * 4)
SIZES = [(33, 57), (100, 40), (20, 30), (15, 15), (300, 211)]


def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Soft blobs, as photographs have them, (height, width, channels)."""
    low = np.random.default_rng(seed).integers(0, 256, (height // 4 + 2, width // 4 + 2, channels), dtype=np.uint8)
    return np.asarray(Image.fromarray(low.squeeze()).resize((width, height))).reshape(height, width, channels)


def file_for(folder: Path, kind: str, **settings: Any) -> tuple[dict[str, Any], list[Tensor], Tensor]:
    """The file for pictures of ``SIZES``, these as a user has read them, and what the search made of them."""
    for number, (height, width) in enumerate(SIZES * 3):
        values = picture(height, width, {"rgb": 3, "rgba": 4}.get(kind, 1), number).squeeze()
        values = values.astype(np.uint16) * 257 if kind == "deep" else values
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / "ab"[number % 2] / f"{number}.png")
    transparent = {"channels": "rgba"} if kind == "rgba" else {}
    splits = Images(RowSplit(), OFF, str(folder), **{"size": [20, 30], "workers": 0, **transparent, **settings}).load()
    space = Macro(
        layers=[{"type": "conv", "filters": [4, 8], "kernel_size": 3}],
        activations=["relu"],
        signature=Signature(splits.input_shape, 2),
    )
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    source = standalone_source(
        space, architecture, splits.mean, splits.std, "found", splits.class_names, splits.preparation
    )
    assert "torchvision" not in source
    file: dict[str, Any] = {}
    exec(compile(source, "network.py", "exec"), file)
    given = []
    for name in splits.test_samples:
        values = np.asarray(Image.open(folder / str(name)))
        values = values.astype(np.int32) if kind == "deep" else values
        given.append(torch.from_numpy(values.copy()).reshape(*values.shape[:2], -1).permute(2, 0, 1))
    return file, given, next(splits.test.evaluation_batches(len(given), splits.mean, splits.std)).inputs


@pytest.mark.parametrize("kind", ["rgb", "grey", "deep", "rgba"])
@pytest.mark.parametrize("settings", [{}, {"shorter_side": 70}, {"size": 64}])
def test_pictures_of_other_sizes_are_prepared_as_in_the_search(kind: str, settings: Any, tmp_path: Path) -> None:
    file, given, expected = file_for(tmp_path, kind, **settings)
    made = file["prepare"](given)
    assert made.dtype == torch.float32
    level = 1 / 255 / torch.tensor(file["STD"]).view(1, -1, 1, 1)  # of 8 bits, in standard deviations
    difference = (made - expected).abs() / level
    if kind == "rgba":  # what is hardly seen has a colour of few levels, which one of them changes much
        seen = expected[:, 3:] * file["STD"][3] + file["MEAN"][3]
        difference = torch.cat([difference[:, :3] * seen, difference[:, 3:]], dim=1)
    assert difference.max() < (0.001 if kind == "deep" else 2.01)  # Pillow rounds its weights, too
    assert difference.mean() < (0.5 if kind == "rgba" else 0.1)
    torch.testing.assert_close(file["prepare"](given[0]), made[:1])
    torch.testing.assert_close(file["prepare"](np.stack([given[0].numpy()] * 2)), made[:1].expand_as(made[:2]))
    light = given[0].double() / (65535 if kind == "deep" else 255)
    torch.testing.assert_close(file["prepare"]([light]), made[:1], atol=1e-4, rtol=0)
    assert file["network"]().eval()(made).shape == (len(given), 2)
    assert "that prepare(pictures) makes" in file["__doc__"]


def test_a_picture_of_the_size_is_taken_as_it_is(tmp_path: Path) -> None:
    file, _, _ = file_for(tmp_path, "rgb")
    values = torch.from_numpy(picture(20, 30, 3, seed=9).copy()).permute(2, 0, 1)
    mean, std = (torch.tensor(file[name]).view(-1, 1, 1) for name in ("MEAN", "STD"))
    torch.testing.assert_close(file["prepare"](values)[0], (values / 255 - mean) / std)
    read_only = values.numpy().copy()
    read_only.flags.writeable = False  # as those of Pillow are, of which PyTorch warns
    torch.set_warn_always(True)  # not only once in a process
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(file["prepare"](read_only), file["prepare"](values))
    torch.set_warn_always(False)
    mirrored = values.numpy()[:, :, ::-1]
    assert torch.equal(file["prepare"](mirrored), file["prepare"](values.flip(2)))
    big_endian = [values.numpy().astype(kind) / 255 for kind in (">f4", "f4")]
    assert torch.equal(file["prepare"](big_endian[0].astype(">f4")), file["prepare"](big_endian[1]))
    grey = values[:1]
    assert torch.equal(file["prepare"](grey), file["prepare"](grey.expand(3, -1, -1)))  # as in the search


def test_a_picture_of_other_channels_is_refused_with_what_is_taken(tmp_path: Path) -> None:
    file, _, _ = file_for(tmp_path, "grey")
    for shape in ((3, 20, 30), (2, 20, 30)):
        with pytest.raises(ValueError, match=r"the shape \(.*20, 30\); the network takes grey, \(1, height, width\)$"):
            file["prepare"]([torch.zeros(shape)])
    for opened in (Image.new("L", (30, 20)), [Image.new("L", (30, 20))]):
        with pytest.raises(ValueError, match=r"^a picture is of type Image: it must be a tensor or an array"):
            file["prepare"](opened)
    with pytest.raises(ValueError, match=r"^a picture cannot be read: can't convert np.ndarray of type numpy.object_"):
        file["prepare"](np.zeros((1, 20, 30), dtype=object))
    with pytest.raises(ValueError, match=r"^there is no picture$"):
        file["prepare"]([])
    grey = torch.rand(1, 20, 30)
    assert torch.equal(file["prepare"](grey[0]), file["prepare"](grey))
