"""Images that stay in their files, ImageNet (Deng et al., 2009) among them, decoded in worker processes.

Every epoch draws one number. The epoch's order and the seed of every image's draws come from that number alone, so
that neither the number of workers nor how far they read ahead can change a batch, and a checkpoint needs only the
number and the place in the epoch.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Generator, Tensor
from torch.utils import data
from torchvision import transforms
from torchvision.datasets import ImageFolder

from nas.data.augmentation import ImageFileAugmentation
from nas.data.batches import Batch, EpochStream, Normalisation, Preparation
from nas.data.dataset import Dataset, DataSplits
from nas.data.splits import SplitSettings, split_dataset
from nas.errors import UnusableInput, require

CHANNELS, WHITE = 3, 255.0
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Decoding:
    """How files become images of one size.

    Attributes:
        size: Side in pixels of the square image that a network gets.
        shorter_side: The shorter side of a resized image before its centre is cut out, where no crop is drawn.
        workers: Processes that decode; 0 decodes in the run's own.

    Raises:
        InvalidValue: A number is out of its bounds.
    """

    size: int
    shorter_side: int
    workers: int

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", self.size, "it must be at least 1")
        good = self.shorter_side >= self.size
        require(good, "shorter_side", self.shorter_side, f"it must be at least size={self.size}")
        require(self.workers >= 0, "workers", self.workers, "it must be 0 or above")


class Request(NamedTuple):
    """The request of one image from a worker."""

    file: str
    seed: int
    """The seed of what is drawn for it."""


class Unreadable(NamedTuple):
    """A worker's answer in place of a batch: an exception would arrive with a traceback in its message."""

    file: str
    reason: str


class Decoder(data.Dataset[Tensor | Unreadable]):
    """The data set of a worker process: indexed by the requests of a whole batch, it gives their images.

    Args:
        decoding: The size of the images.
        augmentation: What is drawn for every image; None draws nothing.
    """

    def __init__(self, decoding: Decoding, augmentation: ImageFileAugmentation | None) -> None:
        steps: list[Any] = [transforms.Resize(decoding.shorter_side), transforms.CenterCrop(decoding.size)]
        if augmentation is not None and augmentation.smallest_area < 1:
            steps = [transforms.RandomResizedCrop(decoding.size, scale=(augmentation.smallest_area, 1.0))]
        if augmentation is not None and any(augmentation.colour_jitter):
            steps.append(transforms.ColorJitter(*augmentation.colour_jitter))
        self._transform = transforms.Compose([*steps, transforms.PILToTensor()])

    def __getitem__(self, requests: Sequence[Request]) -> Tensor | Unreadable:
        """The images (B, 3, size, size) uint8 of a batch, or the first that cannot be read."""
        images = []
        for request in requests:
            try:
                with Image.open(request.file) as image:
                    pixels = image.convert("RGB")
            # A damaged file can raise nearly anything.
            except Exception as error:
                return Unreadable(request.file, _reason(error))
            with _global_seed(request.seed):
                images.append(self._transform(pixels))
        return torch.stack(images)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is in no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Let torchvision's transforms, which draw from the CPU's global generator, draw from ``seed``."""
    state = torch.get_rng_state()
    # torch.manual_seed would seed the GPU's generators, too, and they would stay so.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def decoded(decoder: Decoder, batches: Iterable[Sequence[Request]], workers: int, pinned: bool) -> Iterator[Tensor]:
    """The images (B, 3, size, size) uint8 of every batch of requests, read ahead by ``workers`` processes.

    Args:
        pinned: Whether they lie in memory from which a GPU can copy while the CPU goes on.

    Raises:
        UnusableInput: A file cannot be read.
    """
    loader = data.DataLoader(
        decoder,
        batch_size=None,  # the sampler gives whole batches
        sampler=batches,
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_the_run,
        generator=Generator(),  # its draw for the workers' own seeds must not come from the run's generators
    )
    for images in loader:
        if isinstance(images, Unreadable):
            raise UnusableInput(f"The image {images.file} cannot be read ({images.reason}): replace or remove it.")
        yield images


def _leave_signals_to_the_run(worker: int) -> None:
    # A terminal's Ctrl-C and a scheduler's SIGTERM reach the workers, too, but the run may need another batch before
    # it stops. Only a SIGTERM from the run itself, which comes when the interpreter leaves, ends a worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@dataclass(frozen=True)
class ImageFiles(Dataset):
    """A data set of image files.

    Attributes:
        files: N paths.
        labels: (N,) int64, from 0 to ``classes - 1``, on the CPU.
        classes: The number of classes.
        decoding: The size of the images, and the processes that decode them.
        device: The device of the batches.

    Raises:
        ValueError: There are not as many labels as files.
    """

    files: Sequence[str]
    labels: Tensor
    classes: int
    decoding: Decoding
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is immutable

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.files),) or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels are {tuple(self.labels.shape)} {self.labels.dtype}, not ({len(self.files)},) int64"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return CHANNELS, self.decoding.size, self.decoding.size

    def select(self, indices: Tensor) -> "ImageFiles":
        indices = indices.cpu()
        return replace(self, files=[self.files[index] for index in indices.tolist()], labels=self.labels[indices])

    def joined(self, other: "ImageFiles") -> "ImageFiles":
        return replace(self, files=[*self.files, *other.files], labels=torch.cat([self.labels, other.labels]))

    def to(self, device: torch.device | str) -> "ImageFiles":
        return replace(self, device=torch.device(device))

    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Normalisation:
        return Normalisation(mean, std, CHANNELS, WHITE, self.device)

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> "ImageFileStream":
        return ImageFileStream(self, batch_size, prepare, order_generator)

    def _in_order(self, batch_size: int, normalisation: Normalisation) -> Iterator[Batch]:
        starts = range(0, len(self), batch_size)
        requests = ([Request(file, 0) for file in self.files[start : start + batch_size]] for start in starts)
        images = decoded(Decoder(self.decoding, None), requests, self.decoding.workers, self.device.type == "cuda")
        for start, decoded_images in zip(starts, images, strict=True):
            labels = self.labels[start : start + batch_size].to(self.device)
            yield Batch(normalisation(decoded_images.to(self.device, non_blocking=True)), labels)


class ImageFileStream(EpochStream):
    """Batches of image files, on the device of their data set.

    What is drawn for every image comes from ``order_generator``, too, through the epoch's seed. Where the augmentation
    draws nothing for single images, their centre is cut out.
    """

    def __init__(self, dataset: ImageFiles, batch_size: int, prepare: Preparation, order_generator: Generator) -> None:
        super().__init__(len(dataset), batch_size, order_generator)
        self._dataset, self._prepare = dataset, prepare
        of_files = prepare.augmentation if isinstance(prepare.augmentation, ImageFileAugmentation) else None
        self._decoder = Decoder(dataset.decoding, of_files)
        self._epoch_seed = 0
        self._order = torch.empty(0, dtype=torch.int64)
        self._images: Iterator[Tensor] | None = None

    def _begin_epoch(self) -> None:
        self._epoch_seed = int(torch.randint(LARGEST_SEED, (), generator=self._order_generator))
        self._images = None

    def _batch(self, start: int) -> Batch:
        if self._images is None:
            self._images = self._decoded(start)
        device = self._dataset.device
        labels = self._dataset.labels[self._order[start : start + self._batch_size]].to(device)
        return Batch(self._prepare(next(self._images).to(device, non_blocking=True)), labels)

    def _decoded(self, start: int) -> Iterator[Tensor]:
        """The images of the epoch's batches, from place ``start`` of its order on."""
        generator = Generator().manual_seed(self._epoch_seed)
        self._order = torch.randperm(self._count, generator=generator)
        seeds = torch.randint(LARGEST_SEED, (self._count,), generator=generator)
        files = self._dataset.files
        parts = list(zip(self._order.split(self._batch_size), seeds.split(self._batch_size), strict=True))
        batches = (
            [Request(files[index], seed) for index, seed in zip(order.tolist(), seeds.tolist(), strict=True)]
            for order, seeds in parts[start // self._batch_size : self.steps_per_epoch]
        )
        return decoded(self._decoder, batches, self._dataset.decoding.workers, self._dataset.device.type == "cuda")

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch_seed": self._epoch_seed,
            "position": self._position,
            "batch_size": self._batch_size,
            "images": self._count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._check_fits(state.get("images") == self._count, state.get("images"), state["batch_size"])
        self._epoch_seed, self._position, self._images = state["epoch_seed"], state["position"], None


@dataclass(frozen=True)
class ImageNet:
    """A :class:`nas.data.dataset.DataSource`: ``train/<class>/`` is split for the search, ``val/<class>/`` is the test.

    Attributes:
        split: Sizes of the parts.
        augmentation: The augmentation of the training images.
        decoding: The size of the images, and the processes that decode them.
        folder: The folder of ``train`` and ``val``, relative to the working directory.
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
        return DataSplits(self.name, train, validation, test, self.mean, self.std, tuple(names))

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
