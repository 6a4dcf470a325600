"""A small folder of images as ImageNet has it: several sizes, formats and colour modes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FORMATS = (("jpg", "RGB"), ("png", "RGB"), ("jpeg", "L"), ("png", "RGBA"), ("png", "P"))


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 images of each of 3 classes below ``train``, 2 below ``val``; not to be written to."""
    folder = tmp_path_factory.mktemp("imagenet")
    numbers = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for name in ("ant", "bee", "cat"):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                suffix, mode = FORMATS[index % len(FORMATS)]
                height, width = numbers.integers(20, 40, 2)
                pixels = numbers.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / part / name / f"{index}.{suffix}")
    return folder
