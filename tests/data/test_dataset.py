"""Labelled images in memory, and the three parts of a data set."""

import pytest
import torch

from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits, loaded
from nas.data.dataset import ImageDataset
from nas.errors import UnusableInput


def dataset(count: int, seed: int = 0) -> ImageDataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 4, 5), generator=generator, dtype=torch.uint8)
    return ImageDataset(images, torch.arange(count) % 2, classes=2)


def test_select_keeps_images_and_labels_together_and_in_the_order_asked_for() -> None:
    whole = dataset(10)
    chosen = whole.select(torch.tensor([7, 2, 2]))
    assert len(chosen) == 3
    assert torch.equal(chosen.images, torch.stack([whole.images[7], whole.images[2], whole.images[2]]))
    assert chosen.labels.tolist() == [1, 0, 0]
    assert chosen.classes == 2


def test_channel_statistics_are_those_of_each_channel_with_white_at_one() -> None:
    images = torch.zeros(2, 2, 2, 2, dtype=torch.uint8)
    images[0, 0] = 255
    images[:, 1] = 51
    mean, std = ImageDataset(images, torch.tensor([0, 1]), classes=2).channel_statistics()
    assert mean == pytest.approx((0.5, 0.2))
    assert std == pytest.approx((0.5, 0.0))


def test_channel_statistics_do_not_depend_on_the_type_of_the_images() -> None:
    bytes_ = dataset(10)
    floats = ImageDataset(bytes_.images.float() / 255, bytes_.labels, classes=2)
    for of_bytes, of_floats in zip(bytes_.channel_statistics(), floats.channel_statistics(), strict=True):
        assert of_bytes == pytest.approx(of_floats, abs=1e-6)


def test_splits_know_their_shape_and_join_training_and_validation() -> None:
    splits = DataSplits("toy", dataset(6, 1), dataset(4, 2), dataset(2, 3), (0.5,) * 3, (0.2,) * 3)
    assert splits.input_shape == (3, 4, 5)
    assert splits.classes == 2
    joined = splits.train_and_validation()
    assert len(joined) == 10
    assert torch.equal(joined.images[:6], splits.train.images)
    assert torch.equal(joined.images[6:], splits.validation.images)
    assert torch.equal(joined.labels, torch.cat([splits.train.labels, splits.validation.labels]))


class Own:
    name = "own"
    augmentation: object = Augmentation()

    def load(self) -> object:
        return DataSplits("own", dataset(6, 1), dataset(4, 2), dataset(2, 3), (0.5,) * 3, (0.2,) * 3)


def test_a_data_source_of_a_users_own_is_looked_at() -> None:
    source = Own()
    assert loaded(source).name == "own"  # type: ignore[arg-type]
    source.augmentation = None
    assert loaded(source).name == "own"  # type: ignore[arg-type]
    source.augmentation = {"flip": True}
    with pytest.raises(UnusableInput, match=r"augmentation of the data source Own is a dict, not a nas\.data\.Augm"):
        loaded(source)  # type: ignore[arg-type]
    with pytest.raises(UnusableInput, match=r"The data source dict has no name: it needs name, augmentation and load"):
        loaded({})  # type: ignore[arg-type]
    source.augmentation = Augmentation()
    source.load = lambda: (1, 2)  # type: ignore[method-assign]
    with pytest.raises(UnusableInput, match=r"load\(\) of the data source Own gave a tuple, not nas\.data\.DataSplits"):
        loaded(source)  # type: ignore[arg-type]
