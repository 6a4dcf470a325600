"""ImageNet, or any other images in one folder per class, as torchvision's ``ImageFolder`` reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torchvision.datasets import ImageFolder

from nas.configuration import UnusableInput
from nas.data.augmentation import ImageFileAugmentation
from nas.data.dataset import DataSplits
from nas.data.image_files import Decoding, ImageFiles
from nas.data.splits import SplitSettings, split_dataset


@dataclass(frozen=True)
class ImageNet:
    """A :class:`nas.data.source.DataSource`: ``train/<class>/`` is split for the search, ``val/<class>/`` is the test.

    Attributes:
        split: Sizes of the parts.
        augmentation: For the training images.
        decoding: The size of the images, and who decodes them.
        folder: What ``train`` and ``val`` are in; relative to the working directory.
    """

    split: SplitSettings
    augmentation: ImageFileAugmentation
    decoding: Decoding
    folder: str

    name: ClassVar[str] = "imagenet"
    # As in DARTS.
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

    def load(self) -> DataSplits:
        self.augmentation.check_fits_side(self.decoding.size)
        training, names = self._read("train")
        official_test, test_names = self._read("val")
        if names != test_names:
            only = sorted(set(names) ^ set(test_names))
            raise UnusableInput(
                f"The data set {self.name} needs the same classes in train and val below {self._location}: "
                f"{only[0]} is in one of them only."
            )
        if len(names) < 2:
            raise UnusableInput(f"The data set {self.name} needs at least two classes, {self._location} has {names}.")
        train, validation, test = split_dataset(training, self.split, official_test)
        return DataSplits(self.name, train, validation, test, self.mean, self.std)

    @property
    def _location(self) -> Path:
        return Path(self.folder).expanduser().absolute()

    def _read(self, part: str) -> tuple[ImageFiles, list[str]]:
        """The list of the part's files, and the names of its classes."""
        location = self._location / part
        if not location.is_dir():
            raise UnusableInput(
                f"The data set {self.name} is not on disk, {location} was looked for: "
                f"name the folder that has train/<class>/ and val/<class>/ with data.folder=<path>."
            )
        try:
            found = ImageFolder(str(location))
        except OSError as error:  # no classes, a class without images, a folder that may not be read
            raise UnusableInput(
                f"The data set {self.name} cannot be read from {location} ({' '.join(str(error).split())})."
            ) from None
        labels = torch.tensor(found.targets, dtype=torch.int64)
        return ImageFiles([file for file, _ in found.samples], labels, len(found.classes), self.decoding), found.classes
