"""Data sets that torchvision reads from a folder, or downloads: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100.

The official test set is the test set; training and validation images are drawn from the official training set.
"""

import gzip
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits
from nas.data.dataset import ImageDataset
from nas.data.stratified_split import SplitSettings, split_dataset
from nas.errors import UnusableInput, require

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class TorchvisionDataset:
    """A :class:`nas.data.data_splits.DataSource` of one of the four sets.

    Attributes:
        split: Sizes of the parts.
        augmentation: The augmentation of the training images.
        folder: The folder of the files, relative to the working directory.
        download: Whether files that are not there are downloaded.
        shrink: Each square of so many by so many pixels becomes their mean, rounded; the channels' statistics are then
            those of the training part.
    """

    split: SplitSettings
    augmentation: Augmentation
    folder: str = "data"
    download: bool = False
    shrink: int = 1

    name: ClassVar[str]
    torchvision_name: ClassVar[str]
    """The class in ``torchvision.datasets``."""
    subfolder: ClassVar[str]
    """The folder inside of ``folder`` that torchvision reads."""
    files: ClassVar[tuple[str, ...]]
    """The files in the subfolder."""
    archive: ClassVar[str] = ""
    """The archive that is downloaded, beside the subfolder; torchvision unpacks it."""
    classes: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    """Mean and standard deviation of the official training set, per channel, with white at 1."""

    def __post_init__(self) -> None:
        require(self.shrink >= 1, "shrink", self.shrink, "it must be 1 (off) or above")

    def load(self) -> DataSplits:
        training, official_test, names = self._read()
        if self.shrink > 1:
            training, official_test = (shrunk(images, self.shrink) for images in (training, official_test))
        self.augmentation.check_fits(training.images)
        train, validation, test = split_dataset(training, self.split, official_test)
        mean, std = (self.mean, self.std) if self.shrink == 1 else train.channel_statistics()
        return DataSplits(self.name, train, validation, test, mean, std, names)

    @property
    def _location(self) -> Path:
        return Path(self.folder).expanduser().absolute() / self.subfolder

    def _read(self) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
        """The official training and test set, and the names of the classes."""
        try:
            from torchvision import datasets
        except ImportError:
            message = (
                f"The data set {self.name} is read by torchvision, which is not installed: pip install torchvision."
            )
            raise UnusableInput(message) from None
        try:
            return self._read_with(getattr(datasets, self.torchvision_name))
        # A missing network, a missing file and a damaged one can raise nearly anything.
        except Exception as error:
            raise UnusableInput(self._complaint(error)) from None

    def _read_with(self, dataset_class: Any) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
        training = dataset_class(self.folder, train=True, download=self.download)
        test = dataset_class(self.folder, train=False)
        return self._in_memory(training), self._in_memory(test), tuple(training.classes)

    def _in_memory(self, dataset: Any) -> ImageDataset:
        images = torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous()
        return ImageDataset(images, torch.as_tensor(dataset.targets).long(), self.classes)

    def _missing_file(self) -> str | None:
        return next((file for file in self.files if not (self._location / file).is_file()), None)

    def _complaint(self, error: Exception) -> str:
        reason = " ".join(str(error).split())[:200].removesuffix(".") or type(error).__name__
        remedy = "set data.download=true on a machine with network, or copy the files to that folder"
        missing = self._missing_file()
        archive = self._location.parent / self.archive
        if missing is None:
            problem = f"cannot be read from {self._location} ({reason})"
            remedy = f"delete that folder and {remedy}"
        elif self.archive and archive.is_file() and not self.download:
            problem = f"is not unpacked, {missing} was looked for in {self._location}"
            remedy = f"unpack {archive} with tar -xzf, or set data.download=true"
        elif self.download:
            problem = f"could not be downloaded to {self._location} ({reason})"
        else:
            problem = f"is not on disk, {missing} was looked for in {self._location}"
        return f"The data set {self.name} {problem}: {remedy}."


def shrunk(dataset: ImageDataset, factor: int) -> ImageDataset:
    """``dataset`` with each square of ``factor`` by ``factor`` pixels averaged into one, uint8 as before.

    Raises:
        InvalidValue: The images' sides are no multiples of ``factor``; the key is ``shrink``.
    """
    height, width = dataset.images.shape[-2:]
    whole = height % factor == width % factor == 0
    require(whole, "shrink", factor, f"it must divide the images' sides, {height} and {width}")
    images = functional.avg_pool2d(dataset.images.float(), factor).round().to(torch.uint8)
    return ImageDataset(images, dataset.labels, dataset.classes)


class IdxDataset(TorchvisionDataset):
    """A data set of four idx files, as they are or still compressed (``.gz``).

    They lie in torchvision's place below ``folder``, or in ``folder`` itself.
    """

    files = IDX_FILES
    class_names: ClassVar[tuple[str, ...]]

    @property
    def _location(self) -> Path:
        of_torchvision = super()._location
        places = (of_torchvision, of_torchvision.parents[1], of_torchvision.parents[0])
        return next((place for place in places if _stored(place / self.files[0])), of_torchvision)

    def _missing_file(self) -> str | None:
        return next((file for file in self.files if not _stored(self._location / file)), None)

    def _read_with(self, dataset_class: Any) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        if self.download and self._missing_file() is not None:
            dataset_class(self.folder, download=True)
        contents = [
            _uncompressed(self._location / file, read_label_file if "labels" in file else read_image_file)
            for file in self.files
        ]
        training, test = (
            ImageDataset(images.unsqueeze(1), labels, self.classes)
            for images, labels in zip(contents[::2], contents[1::2], strict=True)
        )
        return training, test, self.class_names


def _stored(file: Path) -> Path | None:
    """``file``, or the compressed one of its name, whichever there is."""
    return next((one for one in (file, file.with_name(f"{file.name}.gz")) if one.is_file()), None)


def _uncompressed(file: Path, read: Callable[[str], Tensor]) -> Tensor:
    """What torchvision's ``read`` makes of ``file``; it wants the name of a file that is not compressed."""
    stored = _stored(file) or file
    if stored == file:
        return read(str(file))
    with tempfile.NamedTemporaryFile() as plain:
        with gzip.open(stored) as compressed:
            shutil.copyfileobj(compressed, plain)
        plain.flush()
        return read(plain.name)


class Mnist(IdxDataset):
    """60000 + 10000 grey images of digits, 28 x 28."""

    name = "mnist"
    torchvision_name = "MNIST"
    subfolder = "MNIST/raw"
    classes = 10
    class_names = tuple("0123456789")
    mean = (0.1307,)
    std = (0.3081,)


class FashionMnist(IdxDataset):
    """60000 + 10000 grey images of clothes, 28 x 28."""

    name = "fashion_mnist"
    torchvision_name = "FashionMNIST"
    subfolder = "FashionMNIST/raw"
    classes = 10
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mean = (0.2860,)
    std = (0.3530,)


class Cifar10(TorchvisionDataset):
    """50000 + 10000 colour images, 32 x 32, in 10 classes."""

    name = "cifar10"
    torchvision_name = "CIFAR10"
    subfolder = "cifar-10-batches-py"
    archive = "cifar-10-python.tar.gz"
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
    archive = "cifar-100-python.tar.gz"
    files = ("train", "test", "meta")
    classes = 100
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
