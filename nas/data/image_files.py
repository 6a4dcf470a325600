"""Images that stay in their files, ImageNet (Deng et al., 2009) among them, decoded in worker processes.

Every epoch draws one number. The epoch's order and the seed of every image's draws come from that number alone, so
that neither the number of workers nor how far they read ahead can change a batch, and a checkpoint needs only the
number and the place in the epoch.
"""

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils import data
from torchvision import transforms
from torchvision.datasets.folder import IMG_EXTENSIONS

from nas.data.augmentation import ImageFileAugmentation
from nas.data.batches import Batch, EpochStream, Normalisation, Preparation, Transform
from nas.data.data_splits import DataSplits
from nas.data.dataset import Findings, LabelledDataset
from nas.data.labelled import as_labels, listed
from nas.data.pictures import Looks, read_picture, reason_in_words
from nas.data.splits import SplitSettings, split_dataset
from nas.errors import UnusableInput, require

CHANNELS, WHITE = 3, 255.0
PICTURES = (*IMG_EXTENSIONS, ".jfif", ".jpe", ".gif", ".pbm", ".pnm")  # the last five, torchvision does not look at
LARGEST_SEED = 2**63 - 1
FEW, MANY = 2000, 100_000  # files that the run looks at alone, and so many that it says so
LOOKED_AT_ONCE = 256  # files, by one process
NO_CLASSES = ("__MACOSX",)  # what macOS' archives hold beside the folders, with copies of their names
log = logging.getLogger(__name__)


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
                pixels = read_picture(request.file)
            # A damaged file can raise nearly anything.
            except Exception as error:
                return Unreadable(request.file, reason_in_words(error))
            with _global_seed(request.seed):
                images.append(self._transform(pixels))
        return torch.stack(images)


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
    for images in _served(decoder, batches, workers, pinned):
        if isinstance(images, Unreadable):
            raise UnusableInput(f"The image {images.file} cannot be read ({images.reason}): replace or remove it.")
        yield images


def _served(dataset: Any, requests: Iterable[Any], workers: int, pinned: bool = False) -> Iterable[Any]:
    """``dataset[request]`` of every request in order, by ``workers`` processes."""
    return data.DataLoader(
        dataset,
        batch_size=None,  # a request is a whole batch
        sampler=requests,
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_the_run,
        generator=Generator(),  # its draw for the workers' own seeds must not come from the run's generators
    )


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
class ImageFiles(LabelledDataset):
    """A data set of image files.

    Attributes:
        files: N paths.
        labels: (N,) int64, from 0 to ``classes - 1``, on the CPU.
        classes: The number of classes.
        decoding: The size of the images, and the processes that decode them.
        device: The device of the batches.

    Raises:
        UnusableInput: There are not as many labels as files, or they are no class numbers.
    """

    files: Sequence[str]
    labels: Tensor
    classes: int
    decoding: Decoding
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is immutable

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", as_labels(self.labels, len(self.files), self.classes))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return CHANNELS, self.decoding.size, self.decoding.size

    def select(self, indices: Tensor) -> "ImageFiles":
        indices = indices.cpu()
        return replace(self, files=[self.files[index] for index in indices.tolist()], labels=self.labels[indices])

    def joined(self, other: "ImageFiles") -> "ImageFiles":
        return replace(self, files=[*self.files, *other.files], labels=torch.cat([self.labels, other.labels]))

    def to(self, device: torch.device | str) -> "ImageFiles":
        return replace(self, device=torch.device(device))

    def look(self) -> Findings:
        """Read the header of every file; many files are shared among the processes that decode later."""
        workers = self.decoding.workers if len(self) >= FEW else 0
        if len(self) >= MANY:
            log.info("the headers of %s image files are read, which may take minutes", f"{len(self):,}")
        chunks = [self.files[start : start + LOOKED_AT_ONCE] for start in range(0, len(self), LOOKED_AT_ONCE)]
        return Looks.together(list(_served(Looks(), chunks, workers)))

    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Normalisation:
        return Normalisation(mean, std, CHANNELS, WHITE, self.device)

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> "ImageFileStream":
        return ImageFileStream(self, batch_size, prepare, order_generator)

    def _in_order(self, batch_size: int, normalisation: Transform) -> Iterator[Batch]:
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
        left_out: Counter[str] = Counter()
        training, names = self._read("train", left_out)
        official_test, test_names = self._read("val", left_out)
        if names != test_names:
            only = sorted(set(names) ^ set(test_names))
            raise UnusableInput(
                f"The data set {self.name} needs the same classes in train and val below {self._location}: "
                f"{only[0]} is in one of them only."
            )
        if len(names) < 2:
            raise UnusableInput(f"The data set {self.name} needs at least two classes, {self._location} has {names}.")
        self._say_what_is_left_out(left_out)
        train, validation, test = split_dataset(training, self.split, official_test)
        return DataSplits(self.name, train, validation, test, self.mean, self.std, tuple(names))

    @property
    def _location(self) -> Path:
        return Path(self.folder).expanduser().absolute()

    def _read(self, part: str, left_out: Counter[str]) -> tuple[ImageFiles, list[str]]:
        """The list of the part's files, and the names of its classes."""
        location = self._location / part
        if not location.is_dir():
            raise UnusableInput(
                f"The data set {self.name} is not on disk, {location} was looked for: "
                f"name the folder that has train/<class>/ and val/<class>/ with data.folder=<path>."
            )
        try:
            names, pictures = class_folders(location, left_out)
        except OSError as error:  # no classes, a class without images, a folder that may not be read
            raise UnusableInput(
                f"The data set {self.name} cannot be read from {location} ({' '.join(str(error).split())})."
            ) from None
        files = [file for of_class in pictures for file in of_class]
        labels = torch.tensor([label for label, of_class in enumerate(pictures) for _ in of_class], dtype=torch.int64)
        return ImageFiles(files, labels, len(names), self.decoding), names

    def _say_what_is_left_out(self, left_out: Counter[str]) -> None:
        entries = (entry for entry in os.scandir(self._location) if entry.is_dir() and not _is_hidden(entry.name))
        folders = sorted(entry.name for entry in entries if entry.name not in ("train", "val"))
        by_count = sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
        kinds = [f"{count:,} {kind}" for kind, count in by_count]
        files = f"{left_out.total():,} file{'s' if left_out.total() > 1 else ''}"
        parts = [f"{files} ({listed(kinds)}; read are {' '.join(PICTURES)})"] if kinds else []
        parts += [f"what is in {listed(folders)}"] if folders else []
        if parts:
            log.info("%s: left out below %s: %s.", self.name, self._location, " and ".join(parts))


def class_folders(location: Path, left_out: Counter[str]) -> tuple[list[str], list[list[str]]]:
    """The classes of a folder and the pictures below each, in torchvision's order (``ImageFolder``).

    Names that begin with a dot are neither classes nor pictures: editors and systems keep their own things there.

    Args:
        location: The folder of the classes' folders.
        left_out: Counts what is no picture, by extension.

    Raises:
        OSError: There is no class, a class has no picture, or a folder cannot be read.
    """
    entries = sorted(os.scandir(location), key=lambda entry: entry.name)
    classes = [one.name for one in entries if one.is_dir() and not _is_hidden(one.name) and one.name not in NO_CLASSES]
    left_out.update(_kind(one.name, "in no class") for one in entries if not one.is_dir())
    if not classes:
        raise FileNotFoundError(f"Couldn't find any class folder in {location}.")
    pictures = [_pictures_below(str(location / name), left_out) for name in classes]
    empty = [name for name, files in zip(classes, pictures, strict=True) if not files]
    if empty:
        supported = f"Supported extensions are: {', '.join(PICTURES)}"
        raise FileNotFoundError(f"Found no valid file for the classes {', '.join(empty)}. {supported}")
    return classes, pictures


def _pictures_below(folder: str, left_out: Counter[str]) -> list[str]:
    def hand_on(error: OSError) -> None:  # os.walk leaves out what it cannot read
        raise error

    found = []
    for below, folders, names in os.walk(folder, followlinks=True, onerror=hand_on):
        left_out.update("hidden" for name in folders if _is_hidden(name))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found.append((below, sorted(names)))
    pictures = []
    for below, names in sorted(found):
        chosen = [name for name in names if name.lower().endswith(PICTURES) and not _is_hidden(name)]
        pictures += [os.path.join(below, name) for name in chosen]
        left_out.update(_kind(name) for name in set(names) - set(chosen))
    return pictures


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _kind(name: str, otherwise: str | None = None) -> str:
    extension = os.path.splitext(name)[1].lower()
    return "hidden" if _is_hidden(name) else otherwise or extension or "without an extension"
