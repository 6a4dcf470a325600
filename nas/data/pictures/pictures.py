"""Picture files as a good viewer shows them, and a quick look at many of them before a run begins.

A viewer turns a picture as its orientation says, lays transparent parts on white, knows how bright 16 bits are, and
converts colours to sRGB by the profile that is embedded. Of several pages, the first is taken; an animation, of which
it shows no single picture, is refused.
"""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch.utils import data

from nas.data.dataset import Findings
from nas.data.mistaken_files import NOT_FETCHED, first_bytes, is_pointer

Channels = Literal["grey", "rgb", "rgba"]
MODES: dict[Channels, str] = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT, ORIENTATION = 258, 262, 339, 274  # tags of TIFF; the last of EXIF, too
WHITE_IS_ZERO, SIGNED = 0, 2
DEEP_MODES = ("I", "F")  # and all that begin with I;16
ALWAYS_CONVERTIBLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NEARLY_BLACK = "have 16 bits and use the darkest 1/256 of them only: they are nearly black, as a viewer shows them"
SEVERAL_PAGES = "have several pages, of which the first is taken"
ANIMATED = ("GIF", "PNG", "WEBP")  # formats in which several frames follow each other in time
ELONGATED = "lose more than half where {} is cut out of their centre: it leaves out both ends"
DEEP_COLOUR = "have 16 bits per colour, of which the upper 8 are read"
GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)


class UnsuitablePicture(ValueError):  # noqa: N818 - it is about the picture
    """A picture of which nobody knows what black and white are, or which frame is meant, with the reason in words."""


@dataclass
class HeaderFindings(Findings):
    """What the headers of picture files tell besides: of how many pictures each is true.

    Attributes:
        sizes: By (height, width) of the picture as it is shown.
        kinds: ``grey``, ``deep grey`` (more than 8 bits) or ``colour``, by the format of the file.
        transparent: How many have transparent parts, or could have.
        examples: By size and by kind the first file.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    transparent: int = 0
    examples: dict[object, str] = field(default_factory=dict)

    def cut_to(self, sides: tuple[int, int]) -> Self:
        """Itself, with a remark on the pictures of which a centre of the shape ``sides`` has less than half."""
        shapes = {size: size[0] * sides[1] / (size[1] * sides[0]) for size in self.sizes}
        if long := sum(self.sizes[size] for size, shape in shapes.items() if not 0.5 <= shape <= 2):
            self.remarks[ELONGATED.format(" x ".join(map(str, sides)))] = long
        return self


def read_picture(file: str, channels: Channels = "rgb", deep: bool = False) -> Image.Image:
    """The picture in ``file`` as a viewer shows it, in sRGB.

    Args:
        file: Its path.
        channels: Mode L, RGB or RGBA, values from 0 to 255. Without a channel for it, what is transparent is white.
        deep: Grey in mode F, from 0 to 1, so that more than 8 bits are kept.

    Raises:
        UnsuitablePicture: Its values have no known black and white.
        Exception: Nearly any, where the file is damaged or is no picture.
    """
    with Image.open(file) as image:
        return as_shown(image, channels, deep)


def as_shown(image: Image.Image, channels: Channels = "rgb", deep: bool = False) -> Image.Image:
    """An open picture; see :func:`read_picture`."""
    _mend_transparency(image)
    image.load()
    turned, profile = orientation(image), image.info.get("icc_profile")
    if _is_deep(image) and deep:
        image = _in_full_depth(image)
    else:
        image = _in_eight_bits(image) if _is_deep(image) else image
        image = _of_channels(image, profile, channels)
        image = Image.fromarray(np.asarray(image, np.float32) / 255) if deep else image
    return image.transpose(TURNS[turned]) if turned in TURNS else image


def _of_channels(image: Image.Image, profile: bytes | None, channels: Channels) -> Image.Image:
    alpha = None
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = image.getchannel("A")
    image = _in_srgb(image, profile)
    if channels == "rgba":
        image.putalpha(255 if alpha is None else alpha)
    elif alpha is not None and alpha.getextrema() != (255, 255):
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return image.convert(MODES[channels])


def reason_in_words(error: Exception) -> str:
    """Why a picture cannot be read, without a full stop."""
    if isinstance(error, UnidentifiedImageError):
        return "it is in no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"it has more than {most:.0f} million pixels: make it smaller"
    return " ".join(str(error).split()) or type(error).__name__


def look_at_header(file: str, seen: HeaderFindings) -> None:
    """Add to ``seen`` what there is to say about ``file``.

    Its header is read. It is decoded only where that leaves open whether it is whole and can be shown.
    """
    try:
        with open(file, "rb") as bytes_, Image.open(bytes_) as image:
            width, height = image.size
            several = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: a photograph's previews
            if several and image.format in ANIMATED:
                raise UnsuitablePicture(f"it is an animation of {getattr(image, 'n_frames', 'several')} frames")
            of_16_bits = image.mode == "I" or image.mode.startswith("I;16")
            kind, transparent = _kind(image), image.has_transparency_data
            deep_colour = kind == "colour" and "16B" in str(image.tile[0].args if image.tile else "")
            lies = height != width and lies_on_its_side(image)
            surely_whole = _ends_as_it_should(bytes_, image.format)
        if not surely_whole or image.mode not in ALWAYS_CONVERTIBLE:
            shown = read_picture(file)
            seen.remarks[NEARLY_BLACK] += of_16_bits and int(np.asarray(shown).max()) <= 1
            (width, height), lies = shown.size, False
    # A damaged file can raise nearly anything.
    except Exception as error:
        seen.unreadable.append((file, _beginning(file) or reason_in_words(error)))
        return
    size = (width, height) if lies else (height, width)
    seen.sizes[size] += 1
    seen.kinds[kind] += 1
    seen.transparent += transparent
    for property_ in (size, kind):
        seen.examples.setdefault(property_, file)
    seen.remarks[SEVERAL_PAGES] += bool(several)
    seen.remarks[DEEP_COLOUR] += deep_colour


def _beginning(file: str) -> str:
    """Why a file is no picture, by its first bytes; nothing where they do not tell."""
    if not os.path.isfile(file):
        return ""
    if not os.path.getsize(file):
        return "the file is empty"
    return f"it {NOT_FETCHED}" if is_pointer(first_bytes(file)) else ""


class HeaderReader(data.Dataset[HeaderFindings]):
    """The data set of a worker process: indexed by a list of files, it gives what was found in them."""

    def __getitem__(self, files: Sequence[str]) -> HeaderFindings:
        seen = HeaderFindings()
        for file in files:
            look_at_header(file, seen)
        return seen

    @staticmethod
    def together(several: Sequence[HeaderFindings]) -> HeaderFindings:
        whole = HeaderFindings()
        for one in several:
            whole.unreadable += one.unreadable
            whole.remarks += one.remarks  # without those that are true of no picture
            whole.sizes += one.sizes
            whole.kinds += one.kinds
            whole.transparent += one.transparent
            whole.examples = one.examples | whole.examples
        return whole


def _kind(image: Image.Image) -> str:
    if _is_deep(image):
        return "deep grey"
    if image.mode == "P" and image.palette is not None:
        order, content = image.palette.getdata()
        colours, width = np.frombuffer(content, np.uint8), len(order.partition(";")[0])  # BGRX in BMP
        colours = colours[: len(colours) // width * width]
        # TIFF has all of red first, then all of green.
        colours = (colours.reshape(width, -1).T if order.endswith(";L") else colours.reshape(-1, width))[:, :3]
        return "grey" if (colours == colours[:, :1]).all() else "colour"
    return "grey" if image.mode in GREY_MODES else "colour"


def lies_on_its_side(image: Image.Image) -> bool:
    """Whether a viewer turns ``image`` by a right angle, so that height and width change places."""
    # Asked for nothing else, Pillow would decode a whole PNG to look for data behind the picture.
    if image.format == "PNG" and "exif" not in image.info:
        return False
    return orientation(image) in (5, 6, 7, 8)


def _is_deep(image: Image.Image) -> bool:
    return image.mode in DEEP_MODES or image.mode.startswith("I;16")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of ``image``, 1 to 8; 1 is as it is stored."""
    # Asked for after the picture was loaded: Pillow turns TIFF by itself, and forgets the tag then.
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # viewers show a picture with damaged EXIF data, too
        return 1


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating point, in mode L, or LA where one value is transparent."""
    values, white = _values(image)
    shown = Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))
    if _counts_from_white(image):
        shown = ImageOps.invert(shown)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shown.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return shown


def _in_full_depth(image: Image.Image) -> Image.Image:
    """The same in mode F, from 0 to 1, with 1 where it is transparent."""
    values, white = _values(image)
    shown = 1 - values / white if _counts_from_white(image) else values / white
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shown = np.where(values == transparent, 1.0, shown)
    return Image.fromarray(shown.astype(np.float32))


def _counts_from_white(image: Image.Image) -> bool:
    return bool(getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO)


def _values(image: Image.Image) -> tuple[np.ndarray, float]:
    """The numbers of a deep picture, and which of them is white."""
    values = np.asarray(image).astype(np.float64)
    tags: Any = getattr(image, "tag_v2", {})
    white = 1.0 if image.mode == "F" else 65535.0
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if image.mode != "F" and bits <= 16:
        white = float(2 ** (bits - (tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED)) - 1)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):
        kind = "floating-point" if image.mode == "F" else f"{bits}-bit"
        known = f"where 0 is black and {white:g} is white"
        raise UnsuitablePicture(f"its {kind} values of mode {image.mode} go from {low:g} to {high:g}, {known}")
    return values, white


def _mend_transparency(image: Image.Image) -> None:
    """Bring a PNG's transparent value to 8 bits, as Pillow does with its pixels."""
    transparent, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    depth = tiles[0].args if tiles else None
    if isinstance(transparent, tuple) and max(transparent) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if isinstance(transparent, int) and depth in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (255 // (2 ** int(str(depth)[2:]) - 1))


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in mode RGB without its transparency, its colours converted by its profile if it has one."""
    if image.mode == "RGB" and not profile:
        return image.copy()
    if image.mode == "LAB":
        transform = _to_srgb(None, "LAB")
    else:
        if image.mode not in ("L", "CMYK"):
            image = image.convert("RGB")
        transform = _to_srgb(profile, image.mode) if profile else None
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From ``profile`` (None: CIE Lab) to sRGB; None where that changes nothing or the profile does not fit."""
    try:
        if profile is None:
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # viewers show a picture with a damaged profile, too
        return None


def _ends_as_it_should(file: io.BufferedReader, kind: str | None) -> bool:
    """Whether a file of this format is surely whole; False where only decoding can tell."""
    file.seek(0)
    head = file.read(8)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 16))
    tail = file.read()
    if kind in ("JPEG", "MPO"):
        return tail.endswith(b"\xff\xd9")
    if kind == "PNG":
        return tail.endswith(b"\0\0\0\0IEND\xaeB`\x82")
    if kind == "WEBP":
        return int.from_bytes(head[4:], "little") + len(head) <= size
    return kind == "GIF" and tail.endswith(b";")
