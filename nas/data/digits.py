"""The digits of scikit-learn: 1797 grey images of 8 x 8 pixels in 10 classes, part of the package."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from nas.configuration import UnusableInput
from nas.data.augmentation import Augmentation
from nas.data.dataset import DataSplits, ImageDataset
from nas.data.splits import SplitSettings, split_dataset


@dataclass(frozen=True)
class Digits:
    """A :class:`nas.data.source.DataSource`; the channel statistics are those of the training part."""

    split: SplitSettings
    augmentation: Augmentation

    name: ClassVar[str] = "digits"

    def load(self) -> DataSplits:
        dataset = _read()
        self.augmentation.check_fits(dataset.images)
        train, validation, test = split_dataset(dataset, self.split)
        mean, std = train.channel_statistics()
        return DataSplits(self.name, train, validation, test, mean, std)


def _read() -> ImageDataset:
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
