"""Pictures of a user's own: in a folder per class, with a file of labels, or with a mask each; ImageNet is one preset."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nas.data.augmentation import ImageFileAugmentation
from nas.data.data_splits import DataSplits, refuse_unreadable, say_remarks
from nas.data.dataset import Dataset
from nas.data.image_files import Decoding, FileDataset, FilesWithTargets, ImageFiles, looked_through
from nas.data.image_folders import Listed, PictureFolder
from nas.data.image_labels import LabelFile
from nas.data.labelled import listed
from nas.data.masks import masks_of, read_masks
from nas.data.pictures import MODES, Channels, Seen
from nas.data.row_split import Rows, RowSplit, drawn_parts, proportional_labels
from nas.data.splits import SplitSettings, split_dataset
from nas.errors import InvalidValue, UnusableInput, require

log = logging.getLogger(__name__)
UNKNOWN_SIZE = Decoding(1, None, 0)


@dataclass(frozen=True)
class Images:
    """A :class:`nas.data.data_splits.DataSource` of picture files.

    What is not said is found: size and channels in the headers of all files, mean and deviation in the training part.

    Attributes:
        split: Sizes of the parts that are not ready, and how they are drawn.
        augmentation: The augmentation of the training images.
        folder: Where the pictures are, relative to the working directory: ``<class>/``, or ``train/<class>/`` with
            ``val/<class>/`` and ``test/<class>/`` or without. With ``labels`` or ``masks`` pictures in any folders.
        name: What messages and files call these data.
        parts: By part the name of its folder, where it is not a usual one; null where there is none.
        labels: A CSV file with a row per picture; relative to the folder or the working directory.
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

    Raises:
        InvalidValue: A setting is out of its bounds, or two exclude each other.
    """

    split: SplitSettings | RowSplit
    augmentation: ImageFileAugmentation
    folder: str
    name: str = "images"
    parts: Mapping[str, str | None] | None = None
    labels: str | None = None
    file_column: str | None = None
    target: str | Sequence[str] | None = None
    masks: str | None = None
    size: int | Sequence[int] | None = None
    shorter_side: int | None = None
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    memory: float = 2.0
    workers: int = 4

    def __post_init__(self) -> None:
        Decoding(1 if self.size is None else self.size, self.shorter_side, self.workers)
        require(self.memory >= 0, "memory", self.memory, "it must be 0 (nothing is kept) or above, in GiB")
        good = self.labels is None or self.masks is None
        require(good, "masks", self.masks, f"the targets are in labels={self.labels} already")
        for key, value in (("target", self.target), ("file_column", self.file_column)):
            require(value is None or self.labels is not None, key, value, "it is a column of labels=<file>.csv")
        good = (self.mean is None) == (self.std is None)
        require(good, "std", self.std, "mean and std are both given or both null")
        if self.channels != "auto" and self.mean is not None:
            for key, numbers in (("mean", self.mean), ("std", self.std)):
                good, count = numbers is not None and len(numbers) == _count(self.channels), _count(self.channels)
                require(good, key, numbers, f"it must be {count} numbers, as channels={self.channels}")
        good = self.parts is None or ("train" in self.parts and self.parts.keys() <= {"train", "validation", "test"})
        require(good, "parts", self.parts, "it must be {train: <folder>, validation: <folder>, test: <folder>}")

    def load(self) -> DataSplits:
        folder = PictureFolder(self.name, Path(self.folder).expanduser().absolute(), self.parts)
        found, rows = self._listed(folder)
        # What is known needs no look at all files before they are split.
        known = self.size is not None and self.channels != "auto" and self.mean is not None
        seen = None if known else self._look(found)
        decoding = self._decoding(seen)
        self._check_augmentation(decoding)
        values: tuple[str, ...] = ()
        if self.masks is not None:
            pictures = found.files
            masks = masks_of(pictures, folder, self._path(folder, self.masks))
            classes, values = read_masks(pictures, masks, decoding)
            found = replace(found, targets=classes, class_names=values)
        whole = self._dataset(found, decoding, looked=seen is not None)
        parts: dict[str, Dataset] = dict(zip(("train", "validation", "test"), self._split(whole, found, rows), strict=True))
        bytes_ = sum(map(len, parts.values())) * int(np.prod(decoding.shape)) * (4 if decoding.deep else 1)
        kept = bytes_ <= self.memory * 2**30 and not self.augmentation.draws_per_file
        if kept:
            parts = {name: part.in_memory() for name, part in parts.items() if isinstance(part, FileDataset)}
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = parts["train"].channel_statistics()  # type: ignore[attr-defined]
        if not known:
            self._tell(found, decoding, parts, kept, seen)
        preparation = {} if known and self.masks is None else self._preparation(decoding, mean, std, values)
        return DataSplits(
            self.name,
            *parts.values(),
            tuple(mean),
            tuple(std),
            class_names=found.class_names,
            target_names=found.target_names,
            head="point" if self.masks is None else "dense",
            preparation=preparation,
            digest=self._digest(folder, whole, parts) if preparation else "",
        )

    def _listed(self, folder: PictureFolder) -> tuple[Listed, LabelFile | None]:
        if self.labels is not None:
            rows = LabelFile(self._path(folder, self.labels), folder)
            return rows.listed(self.file_column, self.target), rows
        if self.masks is None:
            return folder.classes(), None
        files = folder.pictures(without=self._path(folder, self.masks))
        if not files:
            raise UnusableInput(f"There are no pictures below {folder.location} beside the masks.")
        return Listed(files, torch.empty(len(files), 0), folder.by_part(files)), None

    def _path(self, folder: PictureFolder, path: str) -> Path:
        """``path`` below the folder or, where there is none, from the working directory."""
        within, here = folder.location / Path(path).expanduser(), Path(path).expanduser().absolute()
        return here if here.exists() and not within.exists() else within

    def _look(self, found: Listed) -> Seen:
        seen = looked_through(found.files, self.workers)
        refuse_unreadable(seen, len(found.files))
        say_remarks(self.name, seen, len(found.files))
        return seen

    def _decoding(self, seen: Seen | None) -> Decoding:
        if seen is None:
            assert self.size is not None
            assert self.channels != "auto"
            return Decoding(self.size, self.shorter_side, self.workers, self.channels)
        size = self.size
        if size is None:
            if len(seen.sizes) > 1:
                common = seen.sizes.most_common()
                shown = [f"{height} x {width} ({count:,}, {seen.examples[height, width]})" for (height, width), count in common]
                sides = [side for pair in seen.sizes for side in pair]
                raise InvalidValue(
                    "size",
                    None,
                    f"the {sum(seen.sizes.values()):,} pictures have {len(common):,} sizes, height x width: "
                    f"{listed(shown, 3)}; say one for all, such as data.size={sorted(sides)[len(sides) // 2]} or "
                    f"'data.size=[{common[0][0][0]}, {common[0][0][1]}]'",
                )
            ((height, width),) = seen.sizes
            size = [height, width]
        channels: Channels = self.channels if self.channels != "auto" else "rgb" if seen.kinds["colour"] else "grey"
        deep = channels == "grey" and seen.kinds["deep grey"] > 0
        return Decoding(size, self.shorter_side, self.workers, channels, deep)

    def _check_augmentation(self, decoding: Decoding) -> None:
        self.augmentation.check_fits_side(min(decoding.sides))
        jitter, area = list(self.augmentation.colour_jitter), self.augmentation.smallest_area
        allowed = f"it is for channels=rgb, the pictures are {decoding.channels}: all four must be 0"
        require(decoding.channels == "rgb" or not any(jitter), "augmentation.colour_jitter", jitter, allowed)
        allowed = "masks do not follow crops of random size: it must be 1, and crop_padding moves both"
        require(self.masks is None or area == 1, "augmentation.smallest_area", area, allowed)

    def _dataset(self, found: Listed, decoding: Decoding, looked: bool) -> FileDataset:
        if found.class_names is not None and self.masks is None:
            return ImageFiles(found.files, found.targets, len(found.class_names), decoding, looked=looked)
        return FilesWithTargets(found.files, found.targets, decoding, looked=looked, dense=self.masks is not None)

    def _split(self, whole: FileDataset, found: Listed, file: LabelFile | None) -> Sequence[FileDataset]:
        ready = found.parts
        if isinstance(self.split, SplitSettings):
            if not isinstance(whole, ImageFiles) or "validation" in ready:
                allowed = "it must be a nas.data.RowSplit, as in conf/data/images.yaml"
                raise InvalidValue("split", "SplitSettings", allowed)
            test = whole.select(ready["test"]) if "test" in ready else None
            return split_dataset(whole.select(ready["train"]), self.split, test)
        rows = self._rows(found, file)
        own = {part: _chosen(rows, places) for part, places in ready.items() if part != "train"}
        drawn = drawn_parts(_chosen(rows, ready["train"]), self.split, own)
        selected = []
        for part, indices in drawn._asdict().items():
            places = ready.get(part, ready["train"])
            selected.append(whole.select(places if indices is None else places[indices]))
        return selected

    def _rows(self, found: Listed, file: LabelFile | None) -> Rows:
        assert isinstance(self.split, RowSplit)
        labels = found.targets if found.class_names is not None else proportional_labels(found.targets)
        labels = None if self.masks is not None else labels
        by, order = self.split.by, self.split.order
        for key, column in (("split.by", by), ("split.order", None if order == "time" else order)):
            require(column is None or file is not None, key, column, "it is a column of data.labels=<file>.csv")
        if file is None or (by is None and order is None):
            return Rows(len(found.files), labels)
        groups = file.values("split.by", by) if by is not None else None
        times = None
        if order is not None and order in file.rows:
            values = file.values("split.order", order)
            times = torch.from_numpy(np.argsort(np.argsort(np.array(values), kind="stable"), kind="stable"))
        return Rows(len(found.files), labels, groups, times)

    def _tell(
        self, found: Listed, decoding: Decoding, parts: Mapping[str, Dataset], kept: bool, seen: Seen | None
    ) -> None:
        height, width = decoding.sides
        depth = " of 16 bits" if decoding.deep else ""
        what = {"grey": f"grey{depth}", "rgb": "RGB", "rgba": "RGBA"}[decoding.channels]
        names = found.class_names
        of = f" of {len(names)} classes ({listed(names)})" if names is not None and self.masks is None else ""
        of = f" with masks of {len(names)} values ({listed(names)})" if names is not None and self.masks is not None else of
        sizes = ", ".join(f"{part} {len(dataset):,}" for part, dataset in parts.items())
        where = "in memory" if kept else f"decoded anew for each batch by {decoding.workers} processes"
        log.info(f"{self.name}: pictures{of}, {height} x {width}, {what}; {sizes}; {where}")
        if seen is not None and seen.transparent and decoding.channels != "rgba" and self.channels == "auto":
            log.info(f"{self.name}: what is transparent is white; data.channels=rgba keeps the transparency")

    def _preparation(
        self, decoding: Decoding, mean: Sequence[float], std: Sequence[float], values: Sequence[str]
    ) -> dict[str, Any]:
        masks = {"mask_values": list(values)} if values else {}
        return {
            "source": "images",
            "size": list(decoding.sides),
            "shorter_side": decoding.shorter_side,
            "channels": decoding.channels,
            "white": 65535 if decoding.deep else 255,
            "mean": list(mean),
            "std": list(std),
            **masks,
        }

    def _digest(self, folder: PictureFolder, whole: FileDataset, parts: Mapping[str, Dataset]) -> str:
        """The SHA-256 of all names, sizes in bytes and targets, and of the pixels that are in memory."""
        sha = hashlib.sha256()
        for file in whole.files:
            name = os.path.relpath(file, folder.location)
            sha.update(json.dumps([name, os.path.getsize(file)]).encode())
        sha.update(whole.targets.numpy().tobytes())
        for part in parts.values():
            if not isinstance(part, FileDataset):
                sha.update(next(iter(vars(part).values())).numpy().tobytes())
        return sha.hexdigest()


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


def _chosen(rows: Rows, places: torch.Tensor) -> Rows:
    """The rows at ``places``."""
    groups = None if rows.groups is None else [rows.groups[index] for index in places.tolist()]
    labels = None if rows.labels is None else rows.labels[places]
    return Rows(len(places), labels, groups, None if rows.times is None else rows.times[places])
