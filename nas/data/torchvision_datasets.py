"""Data sets that torchvision reads from a folder, or downloads: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100.

The official test set is the test set; training and validation images are drawn from the official training set.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from nas.data.augmentation import Augmentation
from nas.data.dataset import DataSplits, ImageDataset
from nas.data.splits import SplitSettings, split_dataset
from nas.errors import UnusableInput

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class TorchvisionDataset:
    """A :class:`nas.data.dataset.DataSource` of one of the four sets.

    Attributes:
        split: Sizes of the parts.
        augmentation: The augmentation of the training images.
        folder: The folder of the files, relative to the working directory.
        download: Whether files that are not there are downloaded.
    """

    split: SplitSettings
    augmentation: Augmentation
    folder: str = "data"
    download: bool = False

    name: ClassVar[str]
    torchvision_name: ClassVar[str]
    """The class in ``torchvision.datasets``."""
    subfolder: ClassVar[str]
    """The folder inside of ``folder`` that torchvision reads."""
    files: ClassVar[tuple[str, ...]]
    """The files in the subfolder."""
    classes: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    """Mean and standard deviation of the official training set, per channel, with white at 1."""

    def load(self) -> DataSplits:
        training, official_test = self._read()
        self.augmentation.check_fits(training.images)
        train, validation, test = split_dataset(training, self.split, official_test)
        return DataSplits(self.name, train, validation, test, self.mean, self.std)

    @property
    def _location(self) -> Path:
        return Path(self.folder).expanduser().absolute() / self.subfolder

    def _read(self) -> tuple[ImageDataset, ImageDataset]:
        try:
            from torchvision import datasets
        except ImportError:
            message = (
                f"The data set {self.name} is read by torchvision, which is not installed: pip install torchvision."
            )
            raise UnusableInput(message) from None
        dataset_class = getattr(datasets, self.torchvision_name)
        try:
            training = dataset_class(self.folder, train=True, download=self.download)
            test = dataset_class(self.folder, train=False)
            return self._in_memory(training), self._in_memory(test)
        # A missing network, a missing file and a damaged one can raise nearly anything.
        except Exception as error:
            raise UnusableInput(self._complaint(error)) from None

    def _in_memory(self, dataset: Any) -> ImageDataset:
        images = torch.as_tensor(dataset.data)
        # MNIST is (N, H, W), CIFAR (N, H, W, C).
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
        return ImageDataset(images, torch.as_tensor(dataset.targets).long(), self.classes)

    def _complaint(self, error: Exception) -> str:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "set data.download=true on a machine with network, or copy the files to that folder"
        missing = next((file for file in self.files if not (self._location / file).is_file()), None)
        if missing is None:
            problem = f"cannot be read from {self._location} ({reason})"
            remedy = f"delete that folder and {remedy}"
        elif self.download:
            problem = f"could not be downloaded to {self._location} ({reason})"
        else:
            problem = f"is not on disk, {missing} was looked for in {self._location}"
        return f"The data set {self.name} {problem}: {remedy}."


class Mnist(TorchvisionDataset):
    """60000 + 10000 grey images of digits, 28 x 28."""

    name = "mnist"
    torchvision_name = "MNIST"
    subfolder = "MNIST/raw"
    files = IDX_FILES
    classes = 10
    mean = (0.1307,)
    std = (0.3081,)


class FashionMnist(TorchvisionDataset):
    """60000 + 10000 grey images of clothes, 28 x 28."""

    name = "fashion_mnist"
    torchvision_name = "FashionMNIST"
    subfolder = "FashionMNIST/raw"
    files = IDX_FILES
    classes = 10
    mean = (0.2860,)
    std = (0.3530,)


class Cifar10(TorchvisionDataset):
    """50000 + 10000 colour images, 32 x 32, in 10 classes."""

    name = "cifar10"
    torchvision_name = "CIFAR10"
    subfolder = "cifar-10-batches-py"
    files = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
    classes = 10
    # As in DARTS.
    mean = (0.49139968, 0.48215827, 0.44653124)
    std = (0.24703233, 0.24348505, 0.26158768)


class Cifar100(TorchvisionDataset):
    """50000 + 10000 colour images, 32 x 32, in 100 classes."""

    name = "cifar100"
    torchvision_name = "CIFAR100"
    subfolder = "cifar-100-python"
    files = ("train", "test", "meta")
    classes = 100
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
