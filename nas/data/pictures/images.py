"""Pictures of a user's own: in a folder per class, with a file of labels, or with masks; ImageNet is a preset."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nas.data.augmentation import ImageFileAugmentation
from nas.data.data_splits import DataSplits, refuse_unreadable
from nas.data.dataset import Dataset
from nas.data.new_samples import NewSamples, cells_of_folders
from nas.data.own_files import digest_of, name_of, path_of
from nas.data.pictures.image_files import FEW, Decoding, FileDataset, FilesWithTargets, ImageFiles, read_headers
from nas.data.pictures.image_labels import LabelledFiles, labelled_pictures
from nas.data.pictures.masks import masks_of, read_masks, smoothed_edges
from nas.data.pictures.picture_folder import PICTURES, PictureFolder
from nas.data.pictures.pictures import MODES, Channels, HeaderFindings
from nas.data.row_split import PART_NAMES, Rows, RowSplit, drawn_parts, exchangeable
from nas.data.stratified_split import SplitSettings, split_dataset
from nas.data.tables.csv_format import CsvFormat
from nas.data.tables.dividing_columns import columns_of_parts, groups_of, times_of
from nas.data.tables.table_columns import require_columns
from nas.data.targets import Targets, with_classes_of_training
from nas.errors import InvalidValue, UnusableInput, listed, require

log = logging.getLogger(__name__)

READ_WHOLE = 2.0  # GiB of decoded pictures up to which they are kept in memory, and recognised by their contents


@dataclass(frozen=True)
class Images:
    """A :class:`nas.data.data_splits.DataSource` of picture files.

    What is not said is found: size and channels in the headers of all files, mean and deviation in the training part.

    Attributes:
        split: Sizes of the parts that are not ready, and how they are drawn.
        augmentation: The augmentation of the training images.
        folder: Where the pictures are, relative to the working directory: ``<class>/``, or ``train/<class>/`` with
            ``val/<class>/`` and ``test/<class>/`` or without. With ``labels`` or ``masks`` pictures in any folders.
        name: What messages and files call these data; an empty one takes the name of the folder.
        parts: By part the name of its folder, where it is not a usual one; null where there is none.
        labels: A CSV or Parquet file with a row per picture; relative to the folder or the working directory.
        csv: How it is read.
        file_column: Its column of file names; null finds it.
        target: Its column or columns that are to be learned; null takes the only other one.
        masks: A folder with a mask for each picture, of the same name: a class per pixel.
        size: Side in pixels of the square images that a network gets, or height and width; null keeps the size that
            all pictures have.
        shorter_side: See :class:`Decoding`.
        channels: ``auto`` takes grey where all files are grey, and RGB otherwise.
        mean, std: One number per channel with white at 1; null measures them on the training part.
        memory: GiB up to which decoded pictures are kept in memory; others are decoded anew for each batch.
        workers: Processes that decode; 0 decodes in the run's own.
        epoch_samples: Samples of an epoch, about: fewer are passed over several times.

    Raises:
        InvalidValue: A setting is out of its bounds, or two exclude each other.
    """

    split: SplitSettings | RowSplit
    augmentation: ImageFileAugmentation
    folder: str | None = None
    name: str = ""
    parts: Mapping[str, str | None] | None = None
    labels: str | None = None
    csv: CsvFormat = CsvFormat()  # noqa: RUF009 - it is immutable
    file_column: str | None = None
    target: str | Sequence[str] | None = None
    masks: str | None = None
    size: int | Sequence[int] | None = None
    shorter_side: int | None = None
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    memory: float = READ_WHOLE
    workers: int = 2
    epoch_samples: int = 0

    def __post_init__(self) -> None:
        require(
            bool(self.folder), "folder", self.folder, "it must be the folder of the pictures: <class>/*.png below it"
        )
        if not self.name:
            object.__setattr__(self, "name", name_of(self.location))
        Decoding(1 if self.size is None else self.size, self.shorter_side, self.workers)
        require(self.memory >= 0, "memory", self.memory, "it must be 0 (nothing is kept) or above, in GiB")
        good = self.labels is None or self.masks is None
        require(good, "masks", self.masks, f"the targets are in labels={self.labels} already")
        for key, value in (("target", self.target), ("file_column", self.file_column)):
            require(value is None or self.labels is not None, key, value, "it is a column of data.labels=<file>.csv")
        good = (self.mean is None) == (self.std is None)
        require(good, "std", self.std, "mean and std are both given or both null")
        good = self.std is None or all(number > 0 for number in self.std)
        require(good, "std", list(self.std or ()), "its numbers must be above 0")
        if self.channels != "auto":
            self._require_statistics_of(self.channels)
        good = self.parts is None or ("train" in self.parts and self.parts.keys() <= PART_NAMES.keys())
        require(good, "parts", self.parts, "it must be {train: <folder>, validation: <folder>, test: <folder>}")
        if isinstance(self.split, RowSplit) and self.labels is None:
            for key, column in self.split.columns.items():
                raise InvalidValue(key, column, "it is a column of data.labels=<file>.csv")

    def _require_statistics_of(self, channels: Channels) -> None:
        """Refuse a mean and a deviation that are not of as many numbers as ``channels`` has."""
        count = _count(channels)
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            good = numbers is None or len(numbers) == count
            plural = "s" if count > 1 else ""
            require(good, key, list(numbers or ()), f"it must be {count} number{plural}, for channels={channels}")

    @property
    def location(self) -> Path:
        """The absolute path of the folder."""
        return path_of(str(self.folder))

    def load(self) -> DataSplits:
        folder = PictureFolder(self.name, self.location, self.parts)
        found = self._listed(folder)
        # What is known needs no look at all files before they are split.
        known = self.size is not None and self.channels != "auto" and self.mean is not None
        headers = None if known else self._read_headers(found)
        decoding = self._decoding(headers)
        self._require_statistics_of(decoding.channels)
        self._check_augmentation(decoding)
        targets = found.targets
        if targets is None:
            masks = masks_of(found.files, folder, self._path(folder, str(self.masks)))
            targets = read_masks(found.files, masks, decoding)
            if remark := smoothed_edges(targets):
                folder.say(remark)
        targets, files, exchange = self._split(found, targets, decoding, looked=headers is not None)
        parts: dict[str, Dataset] = dict(zip(PART_NAMES, files, strict=True))
        bytes_ = sum(map(len, parts.values())) * math.prod(decoding.shape) * (4 if decoding.deep else 1)
        decoded_once = not self.augmentation.draws_per_file
        kept = bytes_ <= self.memory * 2**30 and decoded_once
        if kept:
            parts = {part: dataset.in_memory() for part, dataset in zip(parts, files, strict=True)}
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = parts["train"].channel_statistics()  # type: ignore[attr-defined]
        self._tell(targets, decoding, parts, kept, headers)
        of_sizes = digest = self._digest(folder, found, targets, by_content=False)
        if bytes_ <= READ_WHOLE * 2**30:
            with suppress(OSError):  # DataSplits says which files cannot be read, all of them in one sentence
                digest = self._digest(folder, found, targets, by_content=True)
        return DataSplits(
            self.name,
            parts["train"],
            parts["validation"],
            parts["test"],
            tuple(mean),
            tuple(std),
            class_names=targets.class_names,
            target_names=found.target_names,
            head="point" if self.masks is None else "dense",
            preparation=self._preparation(decoding, mean, std, targets),
            digest=digest,
            former_digests=() if digest == of_sizes else (of_sizes,),  # of what was not kept in memory
            epoch_samples=self.epoch_samples,
            exchangeable=exchange,
            test_samples=[Path(file).relative_to(folder.location).as_posix() for file in files[2].files],
        )

    def new_samples(self, path: Path, preparation: Mapping[str, Any]) -> NewSamples:
        """See :class:`nas.data.new_samples.TakesNewSamples`: the pictures below a folder, or one.

        Where classes are folders, a picture is of the one that it lies in.
        """
        folder = PictureFolder(name_of(path), path if path.is_dir() else path.parent)
        files = folder.pictures() if path.is_dir() else [str(path)]
        if not files:
            raise UnusableInput(f"There are no pictures below {path}: names end with {listed(PICTURES, most=20)}.")
        channels, size = preparation["channels"], preparation["size"]
        workers = self.workers if len(files) >= FEW else 0
        decoding = Decoding(size, preparation["shorter_side"], workers, channels, preparation["white"] > 255)
        headers = read_headers(files, workers)
        headers.cut_to(decoding.sides)
        refuse_unreadable(folder.name, headers, len(files))
        if (colours := headers.kinds["colour"]) and channels == "grey" and self.channels == "auto":
            raise UnusableInput(
                f"{colours:,} of {len(files):,} pictures have colours, and those of the training were grey: the first "
                f"is {headers.examples['colour']}; convert them."
            )
        others = [f"{height} x {width}" for height, width in headers.sizes if (height, width) != decoding.sides]
        if others and self.size is None:
            log.info(f"{folder.name}: resized and cut to {size[0]} x {size[1]}, as in the training: {listed(others)}")
        dense, of_folders = self.masks is not None, self.labels is None and self.masks is None
        dataset = FilesWithTargets(files, torch.zeros(len(files)), decoding, looked=True, dense=dense)
        names = [Path(file).relative_to(folder.location).as_posix() for file in files]
        return NewSamples(dataset, names, cells_of_folders(files, folder.location) if of_folders else None)

    def _listed(self, folder: PictureFolder) -> LabelledFiles:
        if self.labels is not None:
            path = self._path(folder, self.labels)
            return labelled_pictures(path, self.csv, folder, self.file_column, self.target)
        if self.masks is None:
            found = folder.classes()
            return LabelledFiles(found.files, found.targets, found.own)
        files = folder.pictures(without=self._path(folder, self.masks))
        if not files:
            raise UnusableInput(f"There are no pictures below {folder.location} beside the masks.")
        own, order = folder.by_part(files)
        return LabelledFiles([files[place] for place in order.tolist()], None, own)

    def _path(self, folder: PictureFolder, path: str) -> Path:
        """``path`` below the folder or, where there is none, from the working directory."""
        within, here = path_of(str(folder.location / Path(path).expanduser())), path_of(path)
        return here if here.exists() and not within.exists() else within

    def _read_headers(self, found: LabelledFiles) -> HeaderFindings:
        headers = read_headers(found.files, self.workers)
        if self.size is not None:  # pictures of one size are kept as they are
            headers.cut_to(Decoding(self.size, self.shorter_side, self.workers).sides)
        refuse_unreadable(self.name, headers, len(found.files))
        return headers

    def _decoding(self, headers: HeaderFindings | None) -> Decoding:
        if headers is None:
            assert self.size is not None
            assert self.channels != "auto"
            return Decoding(self.size, self.shorter_side, self.workers, self.channels)
        size = self.size
        if size is None:
            if len(headers.sizes) > 1:
                common = headers.sizes.most_common()
                shown = [
                    f"{height} x {width} ({count:,}, {headers.examples[height, width]})"
                    for (height, width), count in common
                ]
                sides = [side for pair in headers.sizes for side in pair]
                raise InvalidValue(
                    "size",
                    None,
                    f"the {sum(headers.sizes.values()):,} pictures have {len(common):,} sizes, height x width: "
                    f"{listed(shown, 3)}; say one for all, such as data.size={sorted(sides)[len(sides) // 2]} or "
                    f"'data.size=[{common[0][0][0]}, {common[0][0][1]}]'",
                )
            ((height, width),) = headers.sizes
            size = [height, width]
        channels: Channels = self.channels if self.channels != "auto" else "rgb" if headers.kinds["colour"] else "grey"
        deep = channels == "grey" and headers.kinds["deep grey"] > 0
        return Decoding(size, self.shorter_side, self.workers, channels, deep)

    def _check_augmentation(self, decoding: Decoding) -> None:
        self.augmentation.check_fits_side(min(decoding.sides))
        jitter, area = list(self.augmentation.colour_jitter), self.augmentation.smallest_area
        allowed = f"it is for channels=rgb, the pictures are {decoding.channels}: all four must be 0"
        require(decoding.channels == "rgb" or not any(jitter), "augmentation.colour_jitter", jitter, allowed)
        allowed = "masks do not follow crops of random size: it must be 1, and crop_padding moves both"
        require(self.masks is None or area == 1, "augmentation.smallest_area", area, allowed)

    def _split(
        self, found: LabelledFiles, targets: Targets, decoding: Decoding, looked: bool
    ) -> tuple[Targets, Sequence[FileDataset], bool]:
        """The targets with the classes of the training part, the parts, and whether samples are exchangeable."""
        count = len(found.files) - sum(found.own.values())
        if isinstance(self.split, SplitSettings):
            ready = found.own.keys() <= {"test"} and targets.class_names is not None and self.masks is None
            require(ready, "split", "SplitSettings", "it must be a nas.data.RowSplit, as in conf/data/images.yaml")
            names = targets.class_names or ()
            whole = ImageFiles(found.files, targets.values, len(names), decoding, looked=looked)
            training = whole.select(torch.arange(count))
            test = whole.select(torch.arange(count, len(whole))) if found.own else None
            return targets, split_dataset(training, self.split, test), True
        shown = Path(self.labels or "").name
        for key, column in self.split.columns.items():
            require_columns(key, [column], found.columns, shown)
        divided = found.own or self.split.columns
        for name in [] if divided else columns_of_parts(found.columns, found.target_names):
            way = f"data.split.parts={name} takes those"
            log.info(f"{self.name}: {name} of {shown} names parts, and others are drawn; {way}")
        rows = Rows(
            count,
            found.own,
            None if self.masks is not None else targets.strata,
            groups_of(found.columns, self.split.by, count, shown),
            times_of(found.columns, self.split.order, count, shown),
            groups_of(found.columns, self.split.parts, count, shown, "split.parts"),
        )
        parts = drawn_parts(rows, self.split)
        if self.masks is not None or targets.class_names is None:
            dense = self.masks is not None
            files: FileDataset = FilesWithTargets(found.files, targets.values, decoding, looked=looked, dense=dense)
        else:
            targets = with_classes_of_training(targets, parts, self.name)
            files = ImageFiles(found.files, targets.values, len(targets.class_names or ()), decoding, looked=looked)
        return targets, [files.select(chosen) for chosen in parts], exchangeable(rows, self.split)

    def _tell(
        self,
        targets: Targets,
        decoding: Decoding,
        parts: Mapping[str, Dataset],
        kept: bool,
        headers: HeaderFindings | None,
    ) -> None:
        height, width = decoding.sides
        what = {"grey": "grey of 16 bits" if decoding.deep else "grey", "rgb": "RGB", "rgba": "RGBA"}[decoding.channels]
        names, of = targets.class_names, ""
        if names is not None:
            of = f" with masks of {len(names)} values" if self.masks is not None else f" of {len(names)} classes"
            of += f" ({listed(names)})"
        sizes = ", ".join(
            f"{len(dataset):,} to {part}"
            for part, dataset in zip(("train", "validate", "test"), parts.values(), strict=True)
        )
        helpers = f", by {decoding.workers} processes" if decoding.workers else ""
        where = "in memory" if kept else f"decoded for each batch anew{helpers}"
        log.info(f"{self.name}: pictures{of}, {height} x {width}, {what}; {sizes}; {where}")
        if headers is not None and headers.transparent and self.channels == "auto":
            log.info(f"{self.name}: what is transparent is white; data.channels=rgba keeps the transparency")

    def _preparation(
        self, decoding: Decoding, mean: Sequence[float], std: Sequence[float], targets: Targets
    ) -> dict[str, Any]:
        masks = {} if self.masks is None else {"mask_values": list(targets.class_names or ())}
        return {
            "kind": "images",
            "size": list(decoding.sides),
            "shorter_side": decoding.shorter_side,
            "channels": decoding.channels,
            "white": 65535 if decoding.deep else 255,
            "mean": list(mean),
            "std": list(std),
            **masks,
        }

    def _digest(self, folder: PictureFolder, found: LabelledFiles, targets: Targets, by_content: bool) -> str:
        """The SHA-256 of all names and targets, and of the files' contents, or of their sizes where they are many.

        It depends on neither ``memory`` nor ``augmentation``: a retraining may keep less than its search.
        """
        whole = hashlib.sha256(digest_of([Path(file) for file in found.files]).encode() if by_content else b"")
        for file in found.files:
            # A file that is no longer there is told by those who read it.
            size = os.path.getsize(file) if not by_content and os.path.exists(file) else 0
            whole.update(json.dumps([Path(file).relative_to(folder.location).as_posix(), size]).encode())
        whole.update(targets.values.numpy().tobytes())
        return whole.hexdigest()


def imagenet_of_old(
    split: SplitSettings, augmentation: ImageFileAugmentation, decoding: Decoding, folder: str
) -> Images:
    """ImageNet as runs have recorded it before it was a preset of :class:`Images`."""
    parts = {"train": "train", "validation": None, "test": "val"}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    size, shorter_side, workers = decoding.size, decoding.shorter_side, decoding.workers
    settled: dict[str, Any] = {"channels": "rgb", "mean": mean, "std": std, "memory": 0.0}
    settled |= {"size": size, "shorter_side": shorter_side, "workers": workers}
    return Images(split, augmentation, folder, "imagenet", parts, **settled)


def _count(channels: Channels) -> int:
    return 1 if channels == "grey" else len(MODES[channels])
