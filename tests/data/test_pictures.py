"""Pictures of every mode and flag, as a viewer shows them, and the look at files before a run."""

import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from nas.data.pictures.pictures import (
    ELONGATED,
    NEARLY_BLACK,
    SEVERAL_PAGES,
    TURNS,
    HeaderFindings,
    UnsuitablePicture,
    look_at_header,
    read_picture,
)

NUMBERS = np.random.default_rng(0)
GREY = NUMBERS.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR = NUMBERS.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257


def shown(file: Path) -> np.ndarray:
    picture = read_picture(str(file))
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def looked(file: Path) -> HeaderFindings:
    findings = HeaderFindings()
    look_at_header(str(file), findings)
    return findings


def remarks(file: Path) -> list[str]:
    findings = looked(file)
    assert not findings.unreadable
    return [remark for remark, count in findings.remarks.items() if count]


def png(depth: int, colour: int, row: bytes, transparent: bytes | None = None) -> bytes:
    """A PNG of one row of two pixels, for what Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0))
    flag = b"" if transparent is None else chunk(b"tRNS", transparent)
    return b"\x89PNG\r\n\x1a\n" + head + flag + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (GREY, "8.png"),
        (DEEP, "16.png"),
        (DEEP, "16.tif"),
        (DEEP.astype(">u2"), "16_big_endian.tif"),
        (DEEP.astype(np.int32), "16.pgm"),
        (DEEP.astype(np.int32), "32.tif"),
        ((GREY / 255).astype(np.float32), "float.tif"),
        (DEEP, "16.jp2"),
    ],
)
def test_grey_of_every_depth_is_the_same_grey(pixels: np.ndarray, name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    Image.fromarray(pixels).save(file)
    assert np.array_equal(shown(file), np.stack([GREY] * 3, -1))
    assert not remarks(file)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (
            GREY.astype(np.int32) * 100_000,
            "its 32-bit values of mode I go from 0 to 2.55e+07, where 0 is black and 655",
        ),
        (-DEEP.astype(np.int32), "its 32-bit values of mode I go from -65535 to 0"),
        (GREY.astype(np.float32), "its floating-point values of mode F go from 0 to 255, where 0 is black and 1 is w"),
        (np.full((20, 30), np.nan, np.float32), "its floating-point values of mode F go from nan to nan"),
    ],
)
def test_values_without_a_known_white_are_refused(pixels: np.ndarray, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "deep.tif"
    Image.fromarray(pixels).save(file)
    with pytest.raises(UnsuitablePicture) as caught:
        read_picture(str(file))
    assert reason in str(caught.value)
    assert looked(file).unreadable == [(str(file), str(caught.value))]


def test_deep_tiff_files_may_count_from_white_and_have_other_depths(tmp_path: Path) -> None:
    Image.fromarray(65535 - DEEP).save(tmp_path / "white_is_zero.tif", tiffinfo={262: 0})
    assert np.array_equal(shown(tmp_path / "white_is_zero.tif")[..., 0], GREY)
    signed = Image.fromarray((DEEP // 2).astype(np.uint16))
    signed.save(tmp_path / "signed.tif", tiffinfo={339: 2})
    with Image.open(tmp_path / "signed.tif") as image:
        assert image.mode == "I"
    assert np.abs(shown(tmp_path / "signed.tif")[..., 0] - GREY).max() <= 1


def test_16_bits_that_use_the_darkest_values_only_are_told(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "dark.png")
    assert remarks(tmp_path / "dark.png") == [NEARLY_BLACK]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"])
def test_every_mode_looks_like_the_picture_it_was_made_from(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(COLOUR)
    expected = np.asarray(picture.convert(mode).convert("RGB") if mode != "LAB" else picture).astype(int)
    if mode == "LAB":
        lab, srgb = (ImageCms.createProfile(name) for name in ("LAB", "sRGB"))
        converted = ImageCms.applyTransform(picture, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    else:
        converted = picture.convert(mode)
    assert converted is not None
    converted.save(tmp_path / "picture.tif")
    with Image.open(tmp_path / "picture.tif") as image:
        assert image.mode == mode.replace("RGBX", "RGB")
    difference = np.abs(shown(tmp_path / "picture.tif") - expected)
    assert difference.max() <= (40 if mode == "LAB" else 0)
    assert difference.mean() < 2
    assert not remarks(tmp_path / "picture.tif")


@pytest.mark.parametrize("name", ["rgba.png", "rgba.tif", "rgba.webp", "rgba.gif", "la.png", "pa.tif"])
def test_transparent_parts_are_white(name: str, tmp_path: Path) -> None:
    # The hidden colour is black: the shape is in the transparency alone.
    alpha = np.where(np.arange(30) < 12, 0, 255).astype(np.uint8) * np.ones((20, 1), np.uint8)
    pixels = np.dstack([np.zeros((20, 30, 3), np.uint8), alpha])
    Image.fromarray(pixels).convert(Path(name).stem.upper()).save(tmp_path / name, **(
        {"lossless": True, "exact": True} if name.endswith("webp") else {}
    ))  # fmt: skip
    expected = 255 - alpha.astype(int)
    assert np.array_equal(shown(tmp_path / name), np.stack([expected] * 3, -1))


@pytest.mark.parametrize(
    ("picture", "transparency"),
    [
        (Image.fromarray(GREY).convert("P"), bytes([0] * 128 + [255] * 128)),
        (Image.fromarray(GREY).convert("P"), 3),
        (Image.fromarray(GREY), int(GREY[0, 0])),
        (Image.fromarray(COLOUR), tuple(COLOUR[0, 0].tolist())),
        (Image.fromarray(GREY).convert("1"), 0),
        (Image.fromarray(DEEP), int(DEEP[0, 0])),
    ],
)
def test_a_value_that_a_png_calls_transparent_is_white(
    picture: Image.Image, transparency: object, tmp_path: Path
) -> None:
    picture.save(tmp_path / "flag.png", transparency=transparency)
    pixels, values = shown(tmp_path / "flag.png"), np.asarray(picture)
    chosen = values < 128 if isinstance(transparency, bytes) else values == transparency
    if picture.mode == "1":
        chosen = ~values
    if picture.mode == "RGB":
        chosen = chosen.all(-1)
    assert chosen.any()
    assert (pixels[chosen] == 255).all()
    opaque = np.asarray(Image.fromarray(GREY) if picture.mode == "I;16" else picture.convert("RGB")).reshape(20, 30, -1)
    assert (pixels[~chosen] == opaque[~chosen]).all()


def test_flags_of_png_files_of_other_depths(tmp_path: Path) -> None:
    cases = [
        (png(4, 0, b"\x1f", b"\0\1"), [255, 255]),
        (png(4, 0, b"\x12", b"\0\2"), [17, 255]),
        (png(2, 0, bytes([0b01100000]), b"\0\1"), [255, 170]),
        (png(1, 0, bytes([0b01000000]), b"\0\0"), [255, 255]),
        (png(16, 2, struct.pack(">6H", *[0x1234] * 3, *[0x8000] * 3), struct.pack(">3H", *[0x1234] * 3)), [255, 128]),
        (png(16, 4, struct.pack(">4H", 0x1234, 0xFFFF, 0x8000, 0)), [0x12, 255]),
    ]
    for content, expected in cases:
        (tmp_path / "flag.png").write_bytes(content)
        assert shown(tmp_path / "flag.png")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_orientation_says(orientation: int, suffix: str, tmp_path: Path) -> None:
    steps = (np.arange(20)[:, None] * 4 + np.arange(30) * 5).astype(np.uint8)  # smooth: JPEG keeps it nearly
    upright = Image.fromarray(steps).convert("RGB")
    back = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[274] = orientation
    stored = upright.transpose(TURNS[back]) if back in TURNS else upright
    stored.save(tmp_path / f"turned.{suffix}", exif=exif, quality=95)
    assert np.abs(shown(tmp_path / f"turned.{suffix}")[..., 0] - steps).max() <= 6


def test_damaged_extras_are_ignored_as_viewers_do(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "extras.png", exif=b"Exif\0\0nonsense", icc_profile=b"nonsense")
    assert np.array_equal(shown(tmp_path / "extras.png"), COLOUR)


def test_an_embedded_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.fromarray(COLOUR).save(tmp_path / "srgb.png", icc_profile=srgb.tobytes())
    assert np.array_equal(shown(tmp_path / "srgb.png"), COLOUR)
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.fromarray(GREY).save(tmp_path / "other.png", icc_profile=xyz)  # a profile of another kind of picture
    assert np.array_equal(shown(tmp_path / "other.png")[..., 0], GREY)


@pytest.mark.parametrize("name", ["frames.gif", "frames.webp", "frames.png"])
def test_an_animation_is_refused_with_its_frames(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((20, 30), value, np.uint8)) for value in (0, 100, 200)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert looked(tmp_path / name).unreadable == [(str(tmp_path / name), "it is an animation of 3 frames")]
    frames[0].save(tmp_path / name)  # a still picture of the same format
    assert not looked(tmp_path / name).unreadable
    assert (shown(tmp_path / name) == 0).all()


def test_the_first_of_several_pages_is_taken_and_told(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((20, 30), value, np.uint8)) for value in (0, 100, 200)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert (shown(tmp_path / "pages.tif") == 0).all()
    assert remarks(tmp_path / "pages.tif") == [SEVERAL_PAGES]


def test_pictures_whose_ends_are_cut_off_are_told(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(tmp_path / "two_to_one.png")
    Image.fromarray(np.zeros((41, 20), np.uint8)).save(tmp_path / "longer.png")
    for name, sides, cut in (
        ("two_to_one", (8, 8), False),
        ("longer", (8, 8), True),
        ("longer", (16, 8), False),
        ("two_to_one", (16, 8), True),
    ):
        findings = looked(tmp_path / f"{name}.png").cut_to(sides)
        assert findings.remarks == Counter({ELONGATED.format(f"{sides[0]} x {sides[1]}"): int(cut)}), (name, sides)


@pytest.mark.parametrize(
    "name", ["p.png", "p.jpg", "p.gif", "p.bmp", "p.tif", "p.webp", "p.ppm", "grey.jpg", "cmyk.jpg"]
)
def test_a_truncated_picture_is_found(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    picture = Image.fromarray(np.kron(COLOUR, np.ones((4, 4, 1), np.uint8)))
    picture.convert({"grey": "L", "cmyk": "CMYK"}.get(file.stem, "P" if name == "p.gif" else "RGB")).save(file)
    whole = file.read_bytes()
    assert not looked(file).unreadable
    for part in (0.2, 0.5, 0.95):
        file.write_bytes(whole[: int(part * len(whole))])
        ((found, reason),) = looked(file).unreadable
        assert found == str(file)
        assert reason


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    assert looked(tmp_path / "empty.png").unreadable == [(str(tmp_path / "empty.png"), "the file is empty")]


def test_what_follows_the_end_of_a_picture_does_no_harm(tmp_path: Path) -> None:
    for name in ("p.png", "p.jpg", "p.gif"):
        Image.fromarray(GREY).save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"a telephone's own data" * 10)
        assert not looked(tmp_path / name).unreadable


def test_a_picture_of_too_many_pixels_is_told_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(GREY).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    ((_, reason),) = looked(tmp_path / "large.png").unreadable
    assert reason == "it has more than 0 million pixels: make it smaller"


def test_the_colours_of_a_profile_are_converted(tmp_path: Path) -> None:
    # sRGB with another name and its red and blue exchanged: what is stored as red looks blue.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for one, other in ((b"rXYZ", b"xxxx"), (b"bXYZ", b"rXYZ"), (b"xxxx", b"bXYZ"), (b"s\0R\0G\0B", b"m\0i\0n\0e")):
        profile = profile.replace(one, other)
    Image.fromarray(COLOUR).save(tmp_path / "exchanged.png", icc_profile=profile)
    assert np.abs(shown(tmp_path / "exchanged.png") - COLOUR[..., ::-1]).max() <= 2
    pixels = np.dstack([COLOUR, np.full((20, 30), 255, np.uint8)])
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "exchanged.webp", icc_profile=profile, lossless=True, exact=True)
    converted = shown(tmp_path / "exchanged.webp")
    assert converted[0, 0].tolist() == [255, 255, 255]
    assert np.abs(converted[1:] - COLOUR[1:, :, ::-1]).max() <= 2


def test_12_bits_are_white_at_4095(tmp_path: Path) -> None:
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"\xff\xf8\x00"  # 4095 and 2048, packed
    file = b"II*\0" + struct.pack("<I", 12) + content + b"\0" + struct.pack("<H", len(tags)) + directory + bytes(4)
    (tmp_path / "12.tif").write_bytes(file)
    assert shown(tmp_path / "12.tif")[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize("ending", ["png", "gif", "tif", "bmp"])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_palette_of_grey_alone_makes_a_grey_picture(kind: str, ending: str, tmp_path: Path) -> None:
    levels = np.array([[0] * 3, [90] * 3, [200] * 3, [255] * 3], np.uint8)
    levels[1, 2] = 91 if kind == "colour" else 90
    picture = Image.fromarray(GREY // 64)
    picture.putpalette(levels.tobytes())
    file = tmp_path / f"own.{ending}"
    picture.save(file)
    assert looked(file).kinds == Counter({kind: 1})
    assert np.array_equal(shown(file), levels[GREY // 64])
