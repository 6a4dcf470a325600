"""Images that stay in their files, ImageNet (Deng et al., 2009) among them, decoded in worker processes.

Every epoch draws one number. The epoch's order and the seed of every image's draws come from that number alone, so
that neither the number of workers nor how far they read ahead can change a batch, and a checkpoint needs only the
number and the place in the epoch.

torchvision is imported where it is used: that takes seconds, which commands without such images need not wait.
"""

import logging
import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils import data

from nas.data.augmentation import ImageFileAugmentation
from nas.data.batches import Batch, EpochStream, Normalisation, Preparation, Transform
from nas.data.dataset import ArrayDataset, Dataset, Findings, ImageDataset, LabelledDataset, TargetDataset
from nas.data.labelled import as_labels
from nas.data.pictures.pictures import MODES, Channels, HeaderFindings, HeaderReader, read_picture, reason_in_words
from nas.errors import UnusableInput, require
from nas.stopping import WARNINGS

LARGEST_SEED = 2**63 - 1
FEW, MANY = 2000, 100_000  # files that the run looks at alone, and so many that it says so
LOOKED_AT_ONCE = 256  # files, by one process
DECODED_AT_ONCE = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoding:
    """How files become images of one size.

    Attributes:
        size: Side in pixels of the square image that a network gets, or its height and its width.
        shorter_side: The shorter side of a resized image before its centre is cut out, where no crop is drawn; null
            resizes an image so that it just covers the size, and leaves one of that size as it is.
        workers: Processes that decode; 0 decodes in the run's own.
        channels: ``grey``, ``rgb`` or ``rgba``.
        deep: Whether grey is float32 from 0 to 1, which keeps more than 8 bits; uint8 from 0 to 255 otherwise.

    Raises:
        InvalidValue: A number is out of its bounds.
    """

    size: int | Sequence[int]
    shorter_side: int | None
    workers: int
    channels: Channels = "rgb"
    deep: bool = False

    def __post_init__(self) -> None:
        sides = [self.size] if isinstance(self.size, int) else list(self.size)
        good = len(sides) in (1, 2) and min(sides) >= 1 and (isinstance(self.size, int) or len(sides) == 2)
        require(good, "size", self.size, "it must be at least 1, or two such numbers, [height, width]")
        good = self.shorter_side is None or self.shorter_side >= max(sides)
        require(good, "shorter_side", self.shorter_side, f"it must be at least size={self.size}")
        require(self.workers >= 0, "workers", self.workers, "it must be 0 or above")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return height, width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return len(MODES[self.channels]) if self.channels != "grey" else 1, *self.sides

    @property
    def white(self) -> float:
        return 1.0 if self.deep else 255.0

    def geometry(self, interpolation: Literal["bilinear", "nearest"] = "bilinear") -> list[Any]:
        """The steps that make every image one of the size, without a draw."""
        from torchvision import transforms

        mode = transforms.InterpolationMode(interpolation)
        if self.shorter_side is None:
            return [Covering(self.sides, mode)]
        return [transforms.Resize(self.shorter_side, mode), transforms.CenterCrop(self.sides)]


class Covering:
    """Resizes an image so that it just covers a size, and cuts out its centre."""

    def __init__(self, sides: tuple[int, int], interpolation: Any) -> None:
        self._sides, self._interpolation = sides, interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        from torchvision.transforms import functional

        own = image.size[1], image.size[0]
        scale = max(wanted / has for wanted, has in zip(self._sides, own, strict=True))
        covering = [max(wanted, round(has * scale)) for wanted, has in zip(self._sides, own, strict=True)]
        if tuple(covering) != own:
            image = functional.resize(image, covering, self._interpolation)
        return functional.center_crop(image, list(self._sides))


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
        from torchvision import transforms

        self._decoding = decoding
        steps = decoding.geometry()
        if augmentation is not None and augmentation.smallest_area < 1:
            steps = [transforms.RandomResizedCrop(decoding.sides, scale=(augmentation.smallest_area, 1.0))]
        if augmentation is not None and any(augmentation.colour_jitter):
            steps.append(transforms.ColorJitter(*augmentation.colour_jitter))
        self._transform = transforms.Compose([*steps, transforms.PILToTensor()])

    def __getitem__(self, requests: Sequence[Request]) -> Tensor | Unreadable:
        """The images (B, C, H, W) of a batch, or the first that cannot be read."""
        images = []
        for request in requests:
            try:
                pixels = read_picture(request.file, self._decoding.channels, self._decoding.deep)
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
    """The images (B, C, H, W) of every batch of requests, read ahead by ``workers`` processes.

    Args:
        pinned: Whether they lie in memory from which a GPU can copy while the CPU goes on.

    Raises:
        UnusableInput: A file cannot be read.
    """
    for images in by_workers(decoder, batches, workers, pinned):
        if isinstance(images, Unreadable):
            raise UnusableInput(f"The image {images.file} cannot be read ({images.reason}): replace or remove it.")
        yield images


def by_workers(dataset: Any, requests: Iterable[Any], workers: int, pinned: bool = False) -> Iterable[Any]:
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
    # A terminal's Ctrl-C and a scheduler's signals reach the workers, too, but the run may need another batch before
    # it stops. Only a SIGTERM from the run itself, which comes when the interpreter leaves, ends a worker.
    for number in (signal.SIGINT, *WARNINGS):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def read_headers(files: Sequence[str], workers: int) -> HeaderFindings:
    """What the header of every file tells; many files are shared among ``workers`` processes."""
    workers = workers if len(files) >= FEW else 0
    if len(files) >= MANY:
        log.info("the headers of %s image files are read, which may take minutes", f"{len(files):,}")
    chunks = [files[start : start + LOOKED_AT_ONCE] for start in range(0, len(files), LOOKED_AT_ONCE)]
    return HeaderReader.together(list(by_workers(HeaderReader(), chunks, workers)))


class FileDataset(Dataset):
    """Images that stay in their files.

    Attributes:
        files: N paths.
        decoding: The size of the images, and the processes that decode them.
        device: The device of the batches.
        looked: Whether all files have been looked at already.
    """

    files: Sequence[str]
    decoding: Decoding
    device: torch.device
    looked: bool

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.decoding.shape

    @abstractmethod
    def with_files(self, files: Sequence[str], targets: Tensor) -> Self:
        """A data set like this one of other files."""

    @abstractmethod
    def in_memory(self) -> Dataset:
        """The same images, decoded once and for all.

        Raises:
            UnusableInput: A file cannot be read.
        """

    def select(self, indices: Tensor) -> Self:
        indices = indices.cpu()
        return self.with_files([self.files[index] for index in indices.tolist()], self.targets[indices])

    def joined(self, other: Self) -> Self:
        return self.with_files([*self.files, *other.files], torch.cat([self.targets, other.targets]))

    def to(self, device: torch.device | str) -> Self:
        return replace(self, device=torch.device(device))  # type: ignore[type-var]

    def look(self) -> Findings:
        """Read the header of every file; many files are shared among the processes that decode later."""
        if self.looked:
            return Findings()
        return read_headers(self.files, self.decoding.workers).cut_to(self.decoding.sides)

    @property
    def _helpers(self) -> int:
        """Processes that are worth their start where all files are decoded once."""
        return self.decoding.workers if len(self) >= FEW else 0

    def decoded(self) -> Tensor:
        """All images in order, (N, C, H, W), on the CPU."""
        kind = torch.float32 if self.decoding.deep else torch.uint8
        whole = torch.empty(len(self), *self.decoding.shape, dtype=kind)
        for start, images in self._pieces(DECODED_AT_ONCE, self._helpers):
            whole[start : start + len(images)] = images
        return whole

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel, with white at 1: every file is decoded once."""
        if len(self) >= FEW:
            log.info("mean and deviation of %s image files are measured; data.mean and data.std skip that", len(self))
        sums = torch.zeros(2, self.decoding.shape[0], dtype=torch.float64)
        for _, images in self._pieces(DECODED_AT_ONCE, self._helpers):
            values = images.double() / self.decoding.white
            sums += torch.stack([values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))])
        mean, square = sums / (len(self) * self.decoding.sides[0] * self.decoding.sides[1])
        return tuple(mean.tolist()), tuple((square - mean**2).clamp(min=0).sqrt().tolist())

    def _pieces(self, batch_size: int, workers: int) -> Iterator[tuple[int, Tensor]]:
        """All images in order and the place of the first of each batch."""
        starts = range(0, len(self), batch_size)
        requests = ([Request(file, 0) for file in self.files[start : start + batch_size]] for start in starts)
        images = decoded(Decoder(self.decoding, None), requests, workers, self.device.type == "cuda")
        return zip(starts, images, strict=True)

    def _normalisation(self, mean: Sequence[float], std: Sequence[float]) -> Normalisation:
        return Normalisation(mean, std, self.decoding.shape[0], self.decoding.white, self.device)

    def _stream(self, batch_size: int, prepare: Preparation, order_generator: Generator) -> "ImageFileStream":
        return ImageFileStream(self, batch_size, prepare, order_generator)

    def _in_order(self, batch_size: int, normalisation: Transform) -> Iterator[Batch]:
        for start, images in self._pieces(batch_size, self.decoding.workers):
            targets = self.targets[start : start + batch_size].to(self.device)
            yield Batch(normalisation(images.to(self.device, non_blocking=True)), targets)


@dataclass(frozen=True)
class ImageFiles(FileDataset, LabelledDataset):
    """Image files of one class each.

    Attributes:
        labels: (N,) int64, from 0 to ``classes - 1``, on the CPU.
        classes: The number of classes.

    Raises:
        UnusableInput: There are not as many labels as files, or they are no class numbers.
    """

    files: Sequence[str]
    labels: Tensor
    classes: int
    decoding: Decoding
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is immutable
    looked: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", as_labels(self.labels, len(self.files), self.classes))

    def with_files(self, files: Sequence[str], targets: Tensor) -> "ImageFiles":
        return replace(self, files=files, labels=targets)

    def in_memory(self) -> ImageDataset:
        return ImageDataset(self.decoded(), self.labels, self.classes)


@dataclass(frozen=True)
class FilesWithTargets(FileDataset, TargetDataset):
    """Image files with targets of any kind.

    Attributes:
        values: (N, ...), on the CPU.
        dense: Whether there is a target per pixel.
    """

    files: Sequence[str]
    values: Tensor
    decoding: Decoding
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is immutable
    looked: bool = False
    dense: bool = False

    @property
    def targets(self) -> Tensor:
        return self.values

    def with_files(self, files: Sequence[str], targets: Tensor) -> "FilesWithTargets":
        return replace(self, files=files, values=targets)

    def with_targets(self, targets: Tensor) -> "FilesWithTargets":
        return replace(self, values=targets.cpu())

    def in_memory(self) -> ArrayDataset:
        return ArrayDataset(self.decoded(), self.values, self.dense)


class ImageFileStream(EpochStream):
    """Batches of image files, on the device of their data set.

    What is drawn for every image comes from ``order_generator``, too, through the epoch's seed. Where the augmentation
    draws nothing for single images, their centre is cut out.
    """

    def __init__(self, dataset: FileDataset, batch_size: int, prepare: Preparation, order_generator: Generator) -> None:
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
        targets = self._dataset.targets[self._order[start : start + self._batch_size]].to(device)
        return self._prepare(next(self._images).to(device, non_blocking=True), targets)

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
