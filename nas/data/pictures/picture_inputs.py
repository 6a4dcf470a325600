"""Pictures of any size as a network takes them.

The text of :func:`prepared_pictures` goes into the Python file that stands for a found network, so it needs torch only.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def prepared_pictures(pictures: Any, preparation: Mapping[str, Any]) -> Tensor:
    """The network's inputs, (N, C, H, W) float32: resized to cover the size, cut to their centre and normalised.

    Args:
        pictures: A picture (channels, height, width), a grey one (height, width), several of one size, or a list of
            them, of any sizes. uint8 is from 0 to 255, any other whole number from 0 to 65535, floating point from 0
            (black) to 1 (white). Grey may stand for RGB.
        preparation: What was found in the data, as ``candidate.json`` has it.

    Raises:
        ValueError: There is no picture, or one is no array or has other channels.
    """
    one_alone = getattr(pictures, "ndim", 0) in (2, 3) or not hasattr(pictures, "__len__")
    several = [pictures] if one_alone else pictures
    if not len(several):
        raise ValueError("there is no picture")
    inputs = torch.stack([resized(light_of(one, preparation), preparation) for one in several])
    mean, std = (torch.tensor(preparation[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (inputs - mean.to(inputs.device)) / std.where(std > 0, 1.0).to(inputs.device)


def light_of(picture: Any, preparation: Mapping[str, Any]) -> Tensor:
    """(C, H, W) float32 from 0 to 1, with all channels that the network takes."""
    channels = len(preparation["mean"])
    is_array = hasattr(picture, "ndim")
    try:  # an array of NumPy that is read-only, as Pillow's are, would make PyTorch warn: it is copied
        if is_array and hasattr(picture, "__array_interface__"):  # mirrored ones and big-endian ones PyTorch refuses
            picture = picture.astype(picture.dtype.newbyteorder("="), order="C")
        picture = picture if isinstance(picture, Tensor) else torch.tensor(picture)
    except (RuntimeError, TypeError, ValueError) as error:
        if is_array:
            raise ValueError(f"a picture cannot be read: {error}") from None
        kind = type(picture).__name__
        raise ValueError(f"a picture is of type {kind}: it must be a tensor or an array, its channels first") from None
    picture = picture[None] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[0] not in ((1, 3) if channels == 3 else (channels,)):
        named = f"{preparation['channels']}, ({channels}, height, width)"
        raise ValueError(f"a picture has the shape {tuple(picture.shape)}; the network takes {named}")
    whole = {torch.uint8: 255.0, torch.bool: 1.0}.get(picture.dtype, 65535.0)
    light = picture.float() if picture.is_floating_point() else picture.float() / whole
    return light.expand(channels, -1, -1)


def resized(image: Tensor, preparation: Mapping[str, Any]) -> Tensor:
    """``image`` (C, h, w) in the size of the training, (C, H, W): its centre, where the shapes differ."""
    own, sides, shorter = image.shape[1:], preparation["size"], preparation["shorter_side"]
    if shorter is None:
        scale = max(wanted / has for wanted, has in zip(sides, own, strict=True))
        covering = [max(wanted, round(has * scale)) for wanted, has in zip(sides, own, strict=True)]
    else:
        covering = [shorter if has == min(own) else int(shorter * has / min(own)) for has in own]
    whole = None if preparation["white"] > 255 else 255  # pictures of 8 bits are rounded to them, as files of them are
    weighted = len(image) == 4 and tuple(own) != tuple(covering)  # what is transparent has no colour to mix with others
    if weighted:
        image = torch.cat([image[:3] * image[3:], image[3:]])
    for size in ((own[0], covering[1]), tuple(covering)):  # along one side after the other
        if tuple(image.shape[1:]) != size:
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
            image = (image * whole + 0.5).floor() / whole if whole else image
    if weighted:
        image = torch.cat([(image[:3] / image[3:]).nan_to_num(0.0, 0.0).clamp(0, 1), image[3:]])
    top, left = (round((has - wanted) / 2) for has, wanted in zip(covering, sides, strict=True))
    return image[:, top : top + sides[0], left : left + sides[1]]
