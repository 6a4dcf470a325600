"""Images and labels in memory as a user brings them: what is taken, and what is refused in one sentence."""

import operator

import numpy as np
import torch
from torch import Tensor

from nas.errors import UnusableInput, listed

IMAGES = "(N, C, H, W) uint8 from 0 to 255 or float32 from 0 to 1"
TASK = "only single-label classification is done here, one class per image"
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
COLOUR_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def class_count(classes: object) -> int:
    """``classes`` as a whole number.

    Raises:
        UnusableInput: It is none, or below 0.
    """
    try:
        count = operator.index(classes)  # type: ignore[arg-type]
    except TypeError:
        raise UnusableInput(f"The number of classes is {classes!r}, not a whole number.") from None
    if count < 0:
        raise UnusableInput(f"The number of classes is {count}, not 0 or above.")
    return count


def as_images(images: object) -> Tensor:
    """Images of any array or tensor: (N, C, H, W), uint8 as it is, floats and booleans as float32.

    Raises:
        UnusableInput: They have another shape or type, or values that are not finite.
    """
    values = _as_tensor(images, "images", IMAGES)
    problem = f"The images are {shape_and_type(values)}, not {IMAGES}"
    if values.dim() == 3:
        raise UnusableInput(f"{problem}: images.unsqueeze(1) gives grey images their one channel.")
    if values.dim() != 4:
        raise UnusableInput(f"{problem}.")
    if 0 in values.shape[1:]:
        raise UnusableInput(f"{problem}: an image has no pixels.")
    rows, columns, last = values.shape[1:]
    if last in COLOUR_CHANNELS and min(rows, columns) > max(COLOUR_CHANNELS):
        raise UnusableInput(
            f"{problem}: they look like (N, H, W, C), which images.permute(0, 3, 1, 2) turns into (N, C, H, W); "
            f"if they are {rows} channels of {columns} x {last}, use images.transpose(2, 3)."
        )
    if values.dtype == torch.bool or values.dtype in FLOATS:
        values = values.to(torch.float32)
    elif values.dtype != torch.uint8:
        advice = "images.to(torch.uint8) keeps values up to 255; divide larger ones by that of white, as float32"
        raise UnusableInput(f"{problem}: {advice}.")
    if values.is_floating_point():
        _refuse_not_finite(values)
    return values


def as_labels(labels: object, images: int, classes: int) -> Tensor:
    """Class numbers of any array or tensor of whole numbers: (N,) int64.

    Args:
        labels: One class number per image.
        images: N.
        classes: Labels go from 0 to ``classes - 1``.

    Raises:
        UnusableInput: They have another shape, type or range; it says which, how many, and what makes them right.
    """
    values = _as_tensor(labels, "labels", f"({images},) whole numbers")
    problem = f"The labels are {shape_and_type(values)}, not ({images},) whole numbers"
    if values.dim() == 2 and len(values) == images:
        raise UnusableInput(f"{problem}: {_advice_on_rows(values)}.")
    if values.shape != (images,):
        raise UnusableInput(f"{problem}: there must be one label per image.")
    if values.is_floating_point():
        raise UnusableInput(f"{problem}: {_advice_on_floats(values)}.")
    if values.is_complex():
        raise UnusableInput(f"{problem}.")
    values = values.to(torch.int64)
    _refuse_out_of_range(values, classes)
    return values


def shape_and_type(tensor: Tensor) -> str:
    """``(60000, 1, 28, 28) uint8``, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _as_tensor(values: object, what: str, expected: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        raise UnusableInput(f"The {what} are lists of unequal lengths, not {expected}.") from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except TypeError:
        advice = ": number the classes from 0" if what == "labels" else ""
        kind = "text" if array.dtype.kind in "US" else str(array.dtype)
        raise UnusableInput(f"The {what} are {array.shape} {kind}, not {expected}{advice}.") from None


def is_one_hot(targets: Tensor) -> bool:
    """Whether (N, K, ...) have one 1 among the K of each sample and place, and 0 at all others."""
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(1) == 1).all())


def _refuse_not_finite(images: Tensor) -> None:
    # The extremes are not finite where any value is not, and need no second tensor of the images' size.
    if not images.numel() or all(bool(extreme.isfinite()) for extreme in images.aminmax()):
        return
    bad = (~images.isfinite()).nonzero()
    image, channel, row, column = bad[0].tolist()
    raise UnusableInput(
        f"{len(bad):,} of the {images.numel():,} pixel values are not finite, in {len(bad[:, 0].unique()):,} of "
        f"{len(images):,} images: the first is {images[image, channel, row, column].item()} in image {image}, "
        f"channel {channel}, row {row}, column {column}."
    )


def _advice_on_rows(labels: Tensor) -> str:
    if labels.shape[1] == 1:
        return "labels.squeeze(1) makes one number of each row"
    if is_one_hot(labels):
        return f"they are one-hot, and labels.argmax(1) gives the class numbers; {TASK}"
    return f"several labels per image cannot be used, {TASK}"


def _advice_on_floats(labels: Tensor) -> str:
    unknown = (~labels.isfinite()).nonzero().flatten()
    if len(unknown):
        first = int(unknown[0])
        return f"{len(unknown):,} of them are not finite, the first is {labels[first].item()} of image {first}"
    broken = (labels != labels.round()).nonzero().flatten()
    if len(broken):
        first = int(broken[0])
        return f"{labels[first].item():g} of image {first} is no class number; {TASK}, no regression"
    return f"labels.long() makes class numbers of them; {TASK}, no regression"


def _refuse_out_of_range(labels: Tensor, classes: int) -> None:
    found, counts = labels.unique(return_counts=True)
    outside = (found < 0) | (found >= classes)
    if not bool(outside.any()):
        return
    pairs = zip(found[outside].tolist(), counts[outside].tolist(), strict=True)
    bad = [f"{label} ({count:,} of {len(labels):,})" for label, count in pairs]
    lowest, highest = int(found[0]), int(found[-1])
    advice = f"labels count from 0, and there are {classes} classes"
    if highest - lowest == classes - 1:
        advice = f"labels count from 0, so {f'subtract {lowest}' if lowest > 0 else f'add {-lowest}'}"
    one = len(bad) == 1
    raise UnusableInput(
        f"The label{'' if one else 's'} {listed(bad)} {'is' if one else 'are'} outside 0..{classes - 1}: {advice}."
    )
