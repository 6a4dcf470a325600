"""The batched augmentation against a plain one that treats one image after the other."""

from collections import Counter

import pytest
import torch
from torch import Generator, Tensor

from nas.data.augmentation import UNKNOWN_CLASS, Augmentation
from nas.errors import InvalidValue


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def distinct_images(count: int, channels: int = 2, height: int = 5, width: int = 6) -> Tensor:
    """Float images above 0 in which no two pixels are the same, so that every crop of them is recognised."""
    pixels = torch.randperm(count * channels * height * width, generator=seeded(11)) + 1
    return pixels.float().view(count, channels, height, width)


def cropped(image: Tensor, padding: int, top: int, left: int, mirrored: bool) -> Tensor:
    """The window of a black frame around ``image`` (C, H, W) that starts at (top, left), pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row, source_column = row + top - padding, column + left - padding
            if 0 <= source_row < height and 0 <= source_column < width:
                for channel in range(channels):
                    target = width - 1 - column if mirrored else column
                    result[channel, row, target] = image[channel, source_row, source_column]
    return result


def erased(image: Tensor, side: int, centre_row: int, centre_column: int) -> Tensor:
    """``image`` (C, H, W) with the part of the square around the centre that lies inside of it set to 0."""
    _, height, width = image.shape
    top, left = centre_row - side // 2, centre_column - side // 2
    result = image.clone()
    result[:, max(top, 0) : min(top + side, height), max(left, 0) : min(left + side, width)] = 0
    return result


def recognised(image: Tensor, variants: dict[tuple[int, ...], Tensor]) -> tuple[int, ...]:
    """Which of the plain implementation's results ``image`` is; it must be exactly one of them."""
    matches = [draw for draw, variant in variants.items() if torch.equal(image, variant)]
    assert len(matches) == 1, f"{len(matches)} of the plain results are this image"
    return matches[0]


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (1, False), (2, True), (4, False)])
def test_every_image_is_one_of_the_plain_crops_and_all_of_them_occur(padding: int, flip: bool) -> None:
    places = 2 * padding + 1
    draws = [(t, x, m) for t in range(places) for x in range(places) for m in ((0, 1) if flip else (0,))]
    (image,) = distinct_images(1)
    variants: dict[tuple[int, ...], Tensor] = {(t, x, m): cropped(image, padding, t, x, bool(m)) for t, x, m in draws}
    batch = image.expand(40 * len(draws), -1, -1, -1)
    results = Augmentation(crop_padding=padding, flip=flip).crop_and_flip(batch, None, seeded(0))[0]
    counts = Counter(recognised(result, variants) for result in results)
    # 40 of each are expected, with a standard deviation of about 6.3.
    assert set(counts) == set(draws)
    assert max(counts.values()) < 40 + 5 * 6.3
    assert min(counts.values()) > 40 - 5 * 6.3


def test_crops_stay_with_their_image_and_differ_between_images() -> None:
    images = distinct_images(60)
    results = Augmentation(crop_padding=2, flip=True).crop_and_flip(images, None, seeded(0))[0]
    draws = [(t, x, m) for t in range(5) for x in range(5) for m in (0, 1)]
    found = [
        recognised(result, {(t, x, m): cropped(image, 2, t, x, bool(m)) for t, x, m in draws})
        for image, result in zip(images, results, strict=True)
    ]
    # Had two of the three draws been tied to each other, at most 10 of their pairs would occur.
    assert len({(top, left) for top, left, _ in found}) > 15
    assert len({(top, mirrored) for top, _, mirrored in found}) == 10
    assert len({(left, mirrored) for _, left, mirrored in found}) == 10


def test_targets_of_places_move_with_their_images() -> None:
    """Each target is the image's own pixel, so that they must stay equal wherever both are known."""
    images = distinct_images(40, channels=1)
    classes, numbers = images[:, 0].long(), images.double().expand(-1, 3, -1, -1)
    augmentation = Augmentation(crop_padding=2, flip=True)
    for targets in (classes, numbers):
        moved, with_them = augmentation.crop_and_flip(images, targets, seeded(0))
        assert torch.equal(moved, augmentation.crop_and_flip(images, None, seeded(0))[0])  # by the same draws
        assert with_them is not None
        assert with_them.dtype == targets.dtype
        outside = (moved == 0).expand_as(with_them) if targets.dim() == 4 else (moved == 0)[:, 0]
        same = moved.expand_as(with_them) if targets.dim() == 4 else moved[:, 0]
        assert torch.equal(with_them[~outside].double(), same[~outside].double())
        unknown = with_them.isnan() if targets.is_floating_point() else with_them == UNKNOWN_CLASS
        assert torch.equal(unknown, outside)


def test_series_are_cropped_turned_and_cut_out_along_their_length() -> None:
    series = distinct_images(60, height=1, width=9).squeeze(2)
    places = torch.arange(9).expand(60, -1)
    moved, targets = Augmentation(crop_padding=3, flip=True).crop_and_flip(series, places, seeded(1))
    assert moved.shape == series.shape
    assert targets is not None
    for one, own, place in zip(moved, series, targets.tolist(), strict=True):
        for column, source in enumerate(place):
            expected = torch.zeros(2) if source == UNKNOWN_CLASS else own[:, source]
            assert torch.equal(one[:, column], expected)
    assert len({tuple(place) for place in targets.tolist()}) == 14  # 7 windows, both ways
    holes = Augmentation(cutout=4).cut_out(series, seeded(2)) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert set(holes[:, 0].sum(1).tolist()) == {2, 3, 4}  # the ends clip it
    with pytest.raises(InvalidValue, match=r"augmentation\.cutout=10"):
        Augmentation(cutout=10).check_fits(series)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_every_image_is_one_of_the_plain_cutouts_and_all_centres_occur(side: int) -> None:
    (image,) = distinct_images(1)
    variants: dict[tuple[int, ...], Tensor] = {
        (row, column): erased(image, side, row, column) for row in range(5) for column in range(6)
    }
    results = Augmentation(cutout=side).cut_out(image.expand(40 * 30, -1, -1, -1), seeded(0))
    counts = Counter(recognised(result, variants) for result in results)
    assert set(counts) == set(variants)
    assert max(counts.values()) < 40 + 5 * 6.3
    assert min(counts.values()) > 40 - 5 * 6.3


def test_cutout_stays_with_its_image() -> None:
    images = distinct_images(30)
    results = Augmentation(cutout=2).cut_out(images, seeded(0))
    centres = {
        recognised(result, {(r, c): erased(image, 2, r, c) for r in range(5) for c in range(6)})
        for image, result in zip(images, results, strict=True)
    }
    assert len(centres) > 10


def test_the_type_of_the_images_is_kept() -> None:
    images = distinct_images(8).to(torch.uint8)
    results = Augmentation(crop_padding=1, flip=True).crop_and_flip(images, None, seeded(0))[0]
    assert results.dtype == torch.uint8
    as_floats = Augmentation(crop_padding=1, flip=True).crop_and_flip(images.float(), None, seeded(0))[0]
    assert torch.equal(results.float(), as_floats)


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(crop_padding=2), Augmentation(flip=True), Augmentation(cutout=2), Augmentation(1, True, 3)],
)
def test_the_generator_decides_everything(augmentation: Augmentation) -> None:
    def augmented(seed: int) -> Tensor:
        generator = seeded(seed)
        return augmentation.cut_out(augmentation.crop_and_flip(distinct_images(20), None, generator)[0], generator)

    torch.manual_seed(0)
    first = augmented(3)
    torch.manual_seed(1)
    assert torch.equal(first, augmented(3))
    assert not torch.equal(first, augmented(4))
    assert not torch.equal(first, distinct_images(20))


def test_the_global_generator_is_left_alone_and_the_input_too() -> None:
    images = distinct_images(20)
    before = torch.get_rng_state()
    augmentation, generator = Augmentation(2, True, 3), seeded(0)
    augmentation.cut_out(augmentation.crop_and_flip(images, None, generator)[0], generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, distinct_images(20))


def test_without_augmentation_the_images_come_back_and_nothing_is_drawn() -> None:
    images, generator = distinct_images(4), seeded(0)
    off = Augmentation()
    assert not off.is_active
    assert off.cut_out(off.crop_and_flip(images, None, generator)[0], generator) is images
    assert torch.equal(generator.get_state(), seeded(0).get_state())


@pytest.mark.parametrize("key", ["crop_padding", "cutout"])
def test_negative_numbers_are_refused(key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Augmentation(**{key: -1})  # type: ignore[arg-type]
    assert str(caught.value) == f"{key}=-1 is not allowed: it must be 0 (off) or above."


def test_what_could_leave_nothing_of_an_image_is_refused() -> None:
    images = torch.zeros(1, 1, 8, 10)
    Augmentation(crop_padding=7, cutout=8).check_fits(images)
    with pytest.raises(InvalidValue, match=r"augmentation\.crop_padding=8 is not allowed: .*below the image's side, 8"):
        Augmentation(crop_padding=8).check_fits(images)
    with pytest.raises(InvalidValue, match=r"augmentation\.cutout=9 is not allowed: .*at most the image's side, 8"):
        Augmentation(cutout=9).check_fits(images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_from_its_own_generator() -> None:
    augmentation, generator = Augmentation(2, True, 3), torch.Generator("cuda").manual_seed(0)
    images = distinct_images(20).cuda()
    results = augmentation.cut_out(augmentation.crop_and_flip(images, None, generator)[0], generator)
    assert results.device == images.device
    assert not torch.equal(results, images)
