"""Images and labels of a user's own: what is taken as it is, and what is refused with which label and how many."""

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import ImageDataset
from nas.errors import UnusableInput

LABELS = torch.arange(12) % 4


def images(*shape: int) -> Tensor:
    return torch.rand(12, *(shape or (1, 8, 8)), generator=torch.Generator().manual_seed(0))


def splits(data: ImageDataset, **settings: object) -> DataSplits:
    mean, std = data.channel_statistics()
    values: dict[str, object] = {"mean": mean, "std": std, "validation": data, "test": data} | settings
    return DataSplits(name="own", train=data, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (LABELS + 1, "The label 4 (3 of 12) is outside 0..3: labels count from 0, so subtract 1."),
        (LABELS - 1, "The label -1 (3 of 12) is outside 0..3: labels count from 0, so add 1."),
        (LABELS * 5, "The labels 5 (3 of 12), 10 (3 of 12), 15 (3 of 12) are outside 0..3: labels count from 0, "),
        (torch.where(LABELS == 3, 255, LABELS), "The label 255 (3 of 12) is outside 0..3"),
        (torch.arange(12) + 90, "94 (1 of 12) and 7 more are outside 0..3"),
        (LABELS.float(), "labels.long() makes class numbers of them; only single-label classification is done here"),
        (LABELS + 0.5, "0.5 of image 0 is no class number; only single-label classification is done here"),
        (torch.where(LABELS == 3, torch.nan, LABELS), "3 of them are not finite, the first is nan of image 3"),
        (torch.nn.functional.one_hot(LABELS), "they are one-hot, and labels.argmax(1) gives the class numbers"),
        (torch.nn.functional.one_hot(LABELS).float(), "(12, 4) float32, not (12,) whole numbers: they are one-hot"),
        (torch.ones(12, 4), "several labels per image cannot be used, only single-label classification is done here"),
        (LABELS[:, None], "labels.squeeze(1) makes one number of each row"),
        (LABELS[:11], "The labels are (11,) int64, not (12,) whole numbers: there must be one label per image."),
        (LABELS.to(torch.complex64), "The labels are (12,) complex64, not (12,) whole numbers."),
        (
            np.array(["cat", "dog"] * 6),
            "The labels are (12,) text, not (12,) whole numbers: number the classes from 0.",
        ),
        ([[0], [0, 1]], "The labels are lists of unequal lengths, not (12,) whole numbers."),
        (torch.tensor(3), "The labels are () int64, not (12,) whole numbers: there must be one label per image."),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels: Tensor, sentence: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        ImageDataset(images(), labels, 4)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            images(8, 8)[:, 0],
            "The images are (12, 8) float32, not (N, C, H, W) uint8 from 0 to 255 or float32 from 0 to 1",
        ),
        (images()[:, 0], "images.unsqueeze(1) gives grey images their one channel."),
        (images(16, 16, 3), "they look like (N, H, W, C), which images.permute(0, 3, 1, 2) turns into (N, C, H, W)"),
        (images(16, 20, 1), "images.permute(0, 3, 1, 2)"),
        (images(16, 20, 4), "images.permute(0, 3, 1, 2)"),
        (images(1, 0, 4), "an image has no pixels"),
        (images().to(torch.int32), "images.to(torch.uint8) keeps values up to 255"),
        (np.zeros((12, 1, 8, 8), np.uint16), "(12, 1, 8, 8) uint16, not (N, C, H, W)"),
        (np.array([None] * 12), "The images are (12,) object, not (N, C, H, W)"),
    ],
)
def test_images_of_other_shapes_and_types_are_refused(values: Tensor, sentence: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        ImageDataset(values, LABELS, 4)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 6, 24), (1, 1, 64), (30, 1, 1), (12, 8, 8), (1, 7, 13), (3, 4, 4), (2, 1, 1)])
def test_images_need_not_be_square_or_of_three_channels(shape: tuple[int, int, int]) -> None:
    assert ImageDataset(images(*shape), LABELS, 4).input_shape == shape


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite_are_counted_and_the_first_is_named(value: float) -> None:
    values = images()
    values[5, 0, 3, 2:4] = value
    values[7, 0, 0, 0] = value
    sentence = (
        f"3 of the 768 pixel values are not finite, in 2 of 12 images: the first is {value} in image 5, channel 0, "
        "row 3, column 2."
    )
    with pytest.raises(UnusableInput) as caught:
        ImageDataset(values, LABELS, 4)
    assert str(caught.value) == sentence
    with pytest.raises(UnusableInput, match="of the 768 pixel values are not finite"):
        ImageDataset(values.double().numpy(), LABELS, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (images().numpy(), LABELS.numpy()),
        (images().double(), LABELS.int()),
        (images().numpy().astype(">f8"), LABELS.numpy().astype(np.uint8)),
        (images().numpy()[:, :, ::-1, ::-1][:, :, ::-1, ::-1], LABELS.tolist()),
    ],
)
def test_arrays_and_other_types_are_taken(values: Tensor, labels: Tensor) -> None:
    data = ImageDataset(values, labels, np.int64(4))  # type: ignore[arg-type]
    torch.testing.assert_close(data.images, images())
    assert data.images.dtype == torch.float32
    assert torch.equal(data.labels, LABELS)
    assert type(data.classes) is int


def test_a_read_only_array_and_booleans_are_taken() -> None:
    values = np.zeros((12, 1, 8, 8), np.uint8)
    values.flags.writeable = False
    assert ImageDataset(values, LABELS, 4).images.dtype == torch.uint8  # type: ignore[arg-type]
    assert ImageDataset(images() > 0.5, LABELS > 1, 2).images.unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("classes", "sentence"), [(4.0, "is 4.0, not a whole"), ("4", "is '4', not"), (-1, "is -1, not 0")]
)
def test_the_number_of_classes_is_a_whole_number(classes: object, sentence: str) -> None:
    with pytest.raises(UnusableInput, match=sentence):
        ImageDataset(images(), LABELS, classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("type_", [torch.float32, torch.uint8])
def test_a_channel_of_one_value_is_centred_only(type_: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    values = (images(2, 8, 8) * (255 if type_ == torch.uint8 else 1)).to(type_)
    values[:, 1] = 51 if type_ == torch.uint8 else 0.2
    caplog.set_level(logging.INFO, logger="nas")
    data = splits(ImageDataset(values, LABELS, 4))
    assert data.std[1] == 1
    assert 0.2 < data.std[0] < 0.4
    assert "own: all training images have one value in channel 1 (0.2); it is centred only" in caplog.text
    (batch,) = data.train.evaluation_batches(12, data.mean, data.std)
    assert batch.inputs.isfinite().all()
    torch.testing.assert_close(batch.inputs[:, 1], torch.zeros(12, 8, 8), atol=1e-6, rtol=0)


def test_images_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(UnusableInput, match=r"one value in every channel \(0.3, 0.3\): there is nothing to tell apart"):
        splits(ImageDataset(torch.full((12, 2, 8, 8), 0.3), LABELS, 4))


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(UnusableInput, match=r"own needs at least two classes to tell apart: it has 1\."):
        splits(ImageDataset(images(), torch.zeros(12, dtype=torch.int64), 1))
    with pytest.raises(UnusableInput, match=r"it has 4, and all training images are of class 2\."):
        splits(ImageDataset(images(), torch.full((12,), 2), 4))


def test_classes_without_an_image_in_a_part_are_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nas")
    data = ImageDataset(images(), LABELS, 5)
    few = data.select(torch.tensor([0, 1]))
    splits(data, test=few, class_names=("ant", "bee", "cat", "dog", "elk"))
    assert "own: train has no image of elk; validation has no image of elk; test has no image of cat, dog, elk." in (
        caplog.text
    )
    caplog.clear()
    splits(ImageDataset(images(), LABELS, 4))
    assert not caplog.text


@pytest.mark.parametrize("factor", [255.0, 1000.0])
def test_values_beyond_white_are_told(factor: float, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nas")
    splits(ImageDataset(images() * factor, LABELS, 4))
    assert "own: the training images have values from " in caplog.text
    assert "where 0 is black and 1 is white" in caplog.text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mean": (0.5, 0.5)}, r"mean=\(0.5, 0.5\) of own is not one number for each of 1 channels."),
        ({"std": 0.5}, "std=0.5 of own is not one number for each of 1 channels."),
        ({"mean": (float("nan"),)}, "is not finite in every channel"),
        ({"std": (-1.0,)}, "is not finite and 0 or above in every channel"),
        ({"mean": (127.0,), "std": (60.0,)}, r"mean=\(127\) and std=\(60\) do not describe the train images of own"),
        ({"class_names": ("a", "b")}, "has 4 classes, its names are"),
        ({"class_names": ("a", "b", "c", "c")}, "has 4 classes, its names are"),
        ({"test": ImageDataset(images(), LABELS, 5)}, "train has 1x8x8 images of 4 classes, test 1x8x8 images of 5"),
        ({"test": ImageDataset(images(1, 9, 9), LABELS, 4)}, "test 1x9x9 images of 4 classes"),
        ({"test": ImageDataset((images() * 255).byte(), LABELS, 4)}, "train is float32, test uint8"),
        ({"test": ImageDataset(images() * 255, LABELS, 4)}, "do not describe the test images of own, whose values go"),
        ({"test": ImageDataset(images()[:0], LABELS[:0], 4)}, "The test part of own has no samples"),
        ({"validation": [1, 2]}, "The validation part of own is a list, not a Dataset"),
    ],
)
def test_parts_that_do_not_fit_each_other_or_their_statistics_are_refused(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UnusableInput, match=sentence):
        splits(ImageDataset(images(), LABELS, 4), **settings)


def test_statistics_that_change_nothing_or_are_tensors_are_allowed() -> None:
    data = ImageDataset(images(), LABELS, 4)
    assert splits(data, mean=(0.0,), std=(1.0,)).std == (1.0,)
    assert splits(data, mean=torch.tensor([0.5]), std=np.array([0.5])).mean == (0.5,)


@pytest.mark.parametrize(("count", "batch_size"), [(65, 64), (129, 64), (4, 4)])
def test_no_training_batch_is_a_remainder(count: int, batch_size: int) -> None:
    data = ImageDataset(torch.rand(count, 1, 4, 4), torch.arange(count) % 4, 4)
    stream = data.stream(batch_size, (0.5,), (0.3,), torch.Generator().manual_seed(0))
    assert {len(stream.next().targets) for _ in range(5)} == {batch_size}
    sizes = [len(batch.targets) for batch in data.evaluation_batches(batch_size, (0.5,), (0.3,))]
    assert sum(sizes) == count
