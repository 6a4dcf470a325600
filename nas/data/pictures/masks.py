"""Masks: pictures whose values say the class of every pixel, found and numbered."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils import data

from nas.data.pictures.image_files import DECODED_AT_ONCE, FEW, Decoding, Unreadable, by_workers
from nas.data.pictures.picture_folder import PICTURES, PictureFolder
from nas.data.pictures.pictures import TURNS, lies_on_its_side, orientation, reason_in_words
from nas.data.sample_folder import files_below, kinds_of
from nas.data.targets import Targets
from nas.errors import UnusableInput, listed

MOST_VALUES = 256
LOSSY = ("JPEG", "MPO")  # as Pillow calls them, whatever a file's name; a WebP does not say whether it is lossy
MARKS = re.compile(  # what is added to a name: cat_mask.png is the mask of cat.jpg, and gt_image_7.png of image_7.jpg
    r"^((mask|label|seg|gt|image|img)[_-])+|([_-](masks?|labels?|seg|segmentation|gt|image|img))+$", re.IGNORECASE
)
SMOOTHED = 8  # values that only edges have, from which on somebody has smoothed the edges; fewer may be thin lines
COLOUR = 1 << 24  # what the value of a coloured pixel, red << 16 | green << 8 | blue, begins with


def masks_of(files: Sequence[str], folder: PictureFolder, location: Path) -> list[str]:
    """For each picture of ``files`` the mask of its name below ``location``, whatever its ending.

    Where none has the same name, folders, capitals and what is added to names (``MARKS``) do not count.

    Raises:
        UnusableInput: There is no such folder, a picture has no mask, or two.
    """
    others: Counter[str] = Counter()
    found = _pictures_of_masks(location, others)
    names, masks = [_name(file, folder.location) for file in files], [_name(mask, location) for mask in found]
    if not set(names) & set(masks):  # in folders of other names
        names, masks = [Path(name).name for name in names], [Path(name).name for name in masks]
    called = names
    if not set(names) & set(masks):
        names, masks = ([MARKS.sub("", name).casefold() for name in these] for these in (names, masks))
    by_name: dict[str, list[str]] = {}
    for name, mask in zip(masks, found, strict=True):
        by_name.setdefault(name, []).append(mask)
    if several := [name for name, masks in by_name.items() if len(masks) > 1]:
        raise UnusableInput(f"{len(several):,} pictures have more than one mask in {location}: {listed(several, 3)}.")
    if set(names) & by_name.keys():
        _refuse_alike(called, names, folder, location)
    if without := [file for name, file in zip(names, files, strict=True) if name not in by_name]:
        kinds = f", only {listed(kinds_of(others))}" if others else ""
        example = f"; there is {found[0]}" if found else f"; there is no picture at all{kinds}"
        raise UnusableInput(
            f"{len(without):,} of {len(files):,} pictures have no mask of the same name below {location}: "
            f"{listed(without, 3)}{example}."
        )
    folder.left_out.update(others)
    unused = len(by_name) - len(set(names) & by_name.keys())
    if unused:
        folder.say(f"{unused:,} of {len(by_name):,} masks are of no picture and are left out")
    return [by_name[name][0] for name in names]


def _pictures_of_masks(location: Path, others: Counter[str]) -> list[str]:
    try:
        return files_below(str(location), others, PICTURES)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UnusableInput(
            f"The folder of masks {location} cannot be read ({reason}): name it with data.masks=<folder>."
        ) from None


def _refuse_alike(called: Sequence[str], names: Sequence[str], folder: PictureFolder, location: Path) -> None:
    """Refuse pictures that are of one name, in two folders or once ``called`` lacks what ``MARKS`` are."""
    nobody = f"nobody can tell whose the masks below {location} are"
    first: dict[str, str] = {}
    for one, name in zip(called, names, strict=True):
        if first.setdefault(name, one) != one:
            raise UnusableInput(
                f"The pictures {first[name]} and {one} below {folder.location} differ only in capitals or in what is "
                f"often added to names, such as img_: {nobody}: call each mask as its picture is."
            )
    twice = len(names) - len(first)
    if twice:
        raise UnusableInput(
            f"{twice:,} of {len(names):,} pictures below {folder.location} are called as one in another folder: "
            f"{nobody}: put these into folders of the same names."
        )


def read_masks(pictures: Sequence[str], masks: Sequence[str], decoding: Decoding) -> Targets:
    """Read all masks, resized and cut like their pictures, without new values at the edges.

    Returns:
        (N, H, W) uint8: each value's place among the K that were found, in order. Its classes are called as the files
        have them, ``0``, ``255`` or ``#ff0000``.

    Raises:
        UnusableInput: One cannot be read, is a JPEG or of another size than its picture, or they have more than 256
            values, as no masks have, or one alone.
    """
    classes = torch.empty(len(masks), *decoding.sides, dtype=torch.uint8)
    found = np.empty(0, np.int64)
    for start, values in _read(pictures, masks, decoding):
        new = np.setdiff1d(values, found)
        found = np.concatenate([found, new])
        if len(found) > MOST_VALUES:
            raise UnusableInput(
                f"The masks have more than {MOST_VALUES} values, up to {masks[start]} ({listed(_words(found), 3)}): a "
                "mask has one value per class, and JPEG smears them; for labels of whole pictures use class folders "
                f"or data.labels{_of_transparency(masks)}."
            )
        order = np.argsort(found)
        places = order[np.searchsorted(found[order], values)]
        classes[start : start + len(values)] = torch.from_numpy(places.astype(np.uint8))
    if len(found) < 2:
        alone = f"All masks have the one value {_words(found)[0]}: there are no classes to tell apart"
        raise UnusableInput(f"{alone}{_of_transparency(masks)}.")
    ranks = np.argsort(np.argsort(found))  # by place of discovery the place in order
    return Targets(torch.from_numpy(ranks.astype(np.uint8))[classes.long()], tuple(_words(np.sort(found))))


def _of_transparency(masks: Sequence[str]) -> str:
    """The end of a sentence where the transparency of a mask says something; nothing where it does not."""
    for mask in masks:
        with Image.open(mask) as image:
            if "A" in image.getbands() and len(set(image.getchannel("A").getextrema())) > 1:
                way = 'save it by itself, as Image.open(file).getchannel("A") of Pillow has it'
                return f"; {mask} has an alpha channel of several values, which is not read: {way}"
    return ""


def smoothed_edges(masks: Targets) -> str | None:
    """``70 of 75 values ...`` where many values are nowhere wider than an edge; None otherwise.

    Resized with interpolation, or drawn with smooth lines, a mask has values between those of its classes at their
    edges, and each would be a class of its own.
    """
    count = len(masks.class_names or ())
    thin, wide = count, np.zeros(count, bool)
    for mask in masks.values.numpy():
        if thin < SMOOTHED:  # at once where there are few classes, and mostly after a few masks elsewhere
            return None
        inner = mask[1:-1, 1:-1]
        same = np.ones_like(inner, bool)
        for other in (mask[:-2, 1:-1], mask[2:, 1:-1], mask[1:-1, :-2], mask[1:-1, 2:]):
            same &= inner == other
        wide |= np.bincount(inner[same], minlength=count) > 0
        thin = count - int(wide.sum())
    if thin < SMOOTHED:
        return None
    return (
        f"{thin} of {count} values of the masks are nowhere wider than two pixels, as if edges had been smoothed, and "
        "each is a class now: resize masks without interpolation, and save them without smooth lines"
    )


def mask_values(file: str) -> Image.Image:
    """The values of a mask in mode I: grey as it is, the numbers of a palette's entries, colours as one number each.

    Raises:
        ValueError: It is a JPEG, or its values are no whole numbers.
        Exception: Nearly any, where the file is damaged or is no picture.
    """
    with Image.open(file) as image:
        if image.format in LOSSY:
            raise ValueError(
                "it is a JPEG, which changes the values of pixels, and each value of a mask is a class: save the masks "
                "anew in a lossless format such as PNG, from what they were made of"
            )
        image.load()
        turned = orientation(image)
        if image.mode == "F":
            raise ValueError("its values are floating-point numbers, not one whole number per class")
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            values = np.asarray(image).astype(np.int32)
        else:
            red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), -1, 0)
            grey = (red == green) & (green == blue)
            values = np.where(grey, red, COLOUR | red << 16 | green << 8 | blue)
        shown = Image.fromarray(values.astype(np.int32))
    return shown.transpose(TURNS[turned]) if turned in TURNS else shown


class _Reader(data.Dataset[Tensor | Unreadable]):
    """The data set of a worker process: indexed by pairs of picture and mask, it gives the masks' values."""

    def __init__(self, decoding: Decoding) -> None:
        from torchvision import transforms  # here and not above, as in image_files

        self._transform = transforms.Compose(decoding.geometry("nearest"))

    def __getitem__(self, pairs: Sequence[tuple[str, str]]) -> Tensor | Unreadable:
        """(B, H, W) int32, or the first that cannot be read."""
        masks = []
        for picture, mask in pairs:
            try:
                values = mask_values(mask)
                with Image.open(picture) as image:
                    size = image.size[::-1] if lies_on_its_side(image) else image.size
                if values.size != size:
                    own, other = (f"{height} x {width}" for width, height in (values.size, size))
                    name = os.path.basename(picture)
                    raise ValueError(f"it is {own}, and its picture {name} is {other}: resize without interpolation")
                masks.append(torch.from_numpy(np.array(self._transform(values), np.int32)))
            # A damaged file can raise nearly anything.
            except Exception as error:
                return Unreadable(mask, reason_in_words(error))
        return torch.stack(masks)


def _read(pictures: Sequence[str], masks: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, np.ndarray]]:
    pairs = list(zip(pictures, masks, strict=True))
    starts = range(0, len(pairs), DECODED_AT_ONCE)
    requests = (pairs[start : start + DECODED_AT_ONCE] for start in starts)
    for start, values in zip(
        starts, by_workers(_Reader(decoding), requests, decoding.workers if len(pairs) >= FEW else 0), strict=True
    ):
        if isinstance(values, Unreadable):
            raise UnusableInput(f"The mask {values.file} cannot be used ({values.reason}).")
        yield start, values.numpy()


def _words(values: np.ndarray) -> list[str]:
    return [f"#{value - COLOUR:06x}" if value >= COLOUR else str(value) for value in values.tolist()]


def _name(file: str, location: Path) -> str:
    return unicodedata.normalize("NFC", Path(file).relative_to(location).with_suffix("").as_posix())
