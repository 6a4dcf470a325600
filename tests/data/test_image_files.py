"""Batches of image files: the same for any number of workers, from any place in an epoch."""

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Generator
from torchvision import transforms

from nas.data.augmentation import Augmentation, ImageFileAugmentation
from nas.data.batches import Batch, Stream
from nas.data.dataset import Dataset
from nas.data.pictures.image_files import Decoder, Decoding, ImageFiles, Request
from nas.errors import InvalidValue, UnusableInput

SIZE, SHORTER_SIDE = 12, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DARTS = ImageFileAugmentation(flip=True, smallest_area=0.08, colour_jitter=(0.4, 0.4, 0.4, 0.2))


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def dataset(folder: Path, workers: int = 0) -> ImageFiles:
    """The 24 training images; an image's label is its number."""
    files = sorted(map(str, folder.glob("train/*/*")))
    return ImageFiles(files, torch.arange(len(files)), len(files), Decoding(SIZE, SHORTER_SIDE, workers))


def stream(
    folder: Path, workers: int = 0, seed: int = 0, augmentation: Augmentation | None = DARTS, batch_size: int = 5
) -> Stream:
    return dataset(folder, workers).stream(batch_size, MEAN, STD, seeded(seed), augmentation, seeded(seed + 100))


def assert_same(batches: Sequence[Batch], others: Sequence[Batch]) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.targets, other.targets)


def test_any_number_of_workers_gives_the_same_batches(image_folder: Path) -> None:
    expected = [one.next() for one in [stream(image_folder)] for _ in range(9)]  # two epochs of four, and one more
    for workers in (1, 2):
        assert_same([one.next() for one in [stream(image_folder, workers)] for _ in range(9)], expected)


def test_an_epoch_visits_every_image_at_most_once_and_drops_the_rest(image_folder: Path) -> None:
    batches = stream(image_folder)
    assert batches.steps_per_epoch == 4
    epochs = [torch.cat([batches.next().targets for _ in range(4)]).tolist() for _ in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert epochs[0] != epochs[1] != epochs[2]
    whole = stream(image_folder, batch_size=100)
    assert sorted(whole.next().targets.tolist()) == list(range(24))


@pytest.mark.parametrize(("steps", "workers"), [(0, 0), (1, 0), (3, 2), (4, 0), (6, 2)])
def test_a_resumed_stream_goes_on_with_the_same_batches(image_folder: Path, steps: int, workers: int) -> None:
    augmentation = replace(DARTS, cutout=3, crop_padding=2)
    order, noise = seeded(0), seeded(1)
    interrupted = dataset(image_folder, workers).stream(5, MEAN, STD, order, augmentation, noise)
    for _ in range(steps):
        interrupted.next()
    file = io.BytesIO()
    torch.save({"stream": interrupted.state_dict(), "order": order.get_state(), "noise": noise.get_state()}, file)
    expected = [interrupted.next() for _ in range(5)]

    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    order, noise = seeded(7), seeded(8)
    resumed = dataset(image_folder).stream(5, MEAN, STD, order, augmentation, noise)
    resumed.next()
    resumed.load_state_dict(checkpoint["stream"])
    order.set_state(checkpoint["order"])
    noise.set_state(checkpoint["noise"])
    assert_same([resumed.next() for _ in range(5)], expected)


def test_a_state_of_other_data_or_another_batch_size_is_refused(image_folder: Path) -> None:
    state = stream(image_folder).state_dict()
    with pytest.raises(UnusableInput, match=r"\(24 images in batches of 5\) does not fit this run's \(24 images in"):
        stream(image_folder, batch_size=6).load_state_dict(state)
    fewer = dataset(image_folder).select(torch.arange(20)).stream(5, MEAN, STD, seeded(0))
    with pytest.raises(UnusableInput, match=r"does not fit this run's \(20 images in batches of 5\)"):
        fewer.load_state_dict(state)


def test_the_order_generator_decides_what_is_drawn_for_each_image(image_folder: Path) -> None:
    file_augmentation_only = replace(DARTS, flip=False)
    first, other = (stream(image_folder, 0, seed, file_augmentation_only, 24).next() for seed in (0, 1))
    assert not torch.equal(first.targets, other.targets)
    in_order = [batch.inputs[batch.targets.argsort()] for batch in (first, other)]
    assert all(not torch.equal(image, other_image) for image, other_image in zip(*in_order, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(image_folder: Path, workers: int) -> None:
    before = torch.get_rng_state()
    batches = stream(image_folder, workers)
    for _ in range(5):
        batches.next()
    list(dataset(image_folder, workers).evaluation_batches(10, MEAN, STD))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_images_are_augmented_as_in_darts(image_folder: Path) -> None:
    original = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2),
            transforms.ToTensor(),
        ]
    )
    decoder = Decoder(Decoding(SIZE, SHORTER_SIDE, 0), DARTS)
    for seed, file in enumerate(dataset(image_folder).files):
        images = decoder[[Request(file, seed)]]
        assert isinstance(images, torch.Tensor)
        torch.manual_seed(seed)
        torch.testing.assert_close(images[0] / 255, original(Image.open(file).convert("RGB")))


def test_half_of_the_images_are_mirrored(image_folder: Path) -> None:
    flipping = ImageFileAugmentation(flip=True)
    batches = stream(image_folder, augmentation=flipping, batch_size=24)
    plain = torch.cat([batch.inputs for batch in dataset(image_folder).evaluation_batches(24, MEAN, STD)])
    mirrored = 0
    for _ in range(5):
        images, labels = batches.next()[:2]
        for image, label in zip(images, labels, strict=True):
            is_mirrored = torch.equal(image, plain[label].flip(-1))
            assert is_mirrored or torch.equal(image, plain[label])
            mirrored += is_mirrored
    assert 40 <= mirrored <= 80  # of 120; outside with a probability below 0.001


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_the_centre_of_every_image_in_order(image_folder: Path, workers: int) -> None:
    original = transforms.Compose(
        [
            transforms.Resize(SHORTER_SIDE),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = dataset(image_folder, workers)
    batches = list(images.evaluation_batches(10, MEAN, STD))
    assert [len(batch.targets) for batch in batches] == [10, 10, 4]
    assert torch.cat([batch.targets for batch in batches]).tolist() == list(range(24))
    expected = torch.stack([original(Image.open(file).convert("RGB")) for file in images.files])
    torch.testing.assert_close(torch.cat([batch.inputs for batch in batches]), expected, rtol=1e-5, atol=1e-5)
    # A search validates without augmentation: the same crops.
    batch = stream(image_folder, augmentation=None).next()
    torch.testing.assert_close(batch.inputs, expected[batch.targets], rtol=1e-5, atol=1e-5)


def test_it_is_a_data_set_like_any_other(image_folder: Path) -> None:
    images: Dataset = dataset(image_folder)
    assert images.input_shape == (3, SIZE, SIZE)
    chosen = images.select(torch.tensor([7, 2]))
    joined = chosen.joined(images.select(torch.tensor([2, 0, 5])))
    assert isinstance(joined, ImageFiles)
    assert joined.labels.tolist() == [7, 2, 2, 0, 5]
    assert joined.files == [dataset(image_folder).files[index] for index in (7, 2, 2, 0, 5)]
    assert len(joined) == 5
    assert joined.classes == 24


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"no image", "it is in no known image format"), ("half", "truncated")],
)
def test_an_unreadable_image_is_named_in_one_sentence(
    image_folder: Path, tmp_path: Path, workers: int, content: bytes | str | None, reason: str
) -> None:
    file = tmp_path / "broken.jpg"
    if content == "half":
        whole = next(image_folder.glob("train/*/0.jpg")).read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        file.write_bytes(content)
    whole_images = dataset(image_folder, workers)
    broken = replace(whole_images, files=[*whole_images.files[:3], str(file)], labels=torch.arange(4))
    for read in (
        lambda: broken.stream(4, MEAN, STD, seeded(0)).next(),
        lambda: list(broken.evaluation_batches(2, MEAN, STD)),
    ):
        with pytest.raises(UnusableInput) as caught:
            read()
        sentence = str(caught.value)
        assert sentence.startswith(f"The image {file} cannot be read (")
        assert reason in sentence
        assert sentence.endswith("): replace or remove it.")
        assert "\n" not in sentence


def test_workers_outlive_the_signals_that_stop_a_run(image_folder: Path) -> None:
    before = set(multiprocessing.active_children())
    batches = stream(image_folder, workers=2, batch_size=2)
    expected = stream(image_folder, batch_size=2)
    # The second batch: by then both workers, each with one behind it, have set up their signals.
    assert_same([batches.next(), batches.next()], [expected.next(), expected.next()])
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    # From another process: a SIGTERM of the run's own ends them.
    for name in ("INT", "TERM"):
        subprocess.run(["kill", f"-{name}", *(str(worker.pid) for worker in workers)], check=True)
    assert_same([batches.next() for _ in range(10)], [expected.next() for _ in range(10)])


def test_a_run_that_fails_within_an_epoch_leaves_no_workers_behind(image_folder: Path) -> None:
    script = """if True:
        import multiprocessing, sys
        from pathlib import Path
        from test_image_files import stream
        batches = stream(Path(sys.argv[1]), workers=2, batch_size=2)
        batches.next()
        print(*(worker.pid for worker in multiprocessing.active_children()))
        raise RuntimeError("with the workers at work")
    """
    command = [sys.executable, "-c", script, str(image_folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "with the workers at work" in ended.stderr
    workers = ended.stdout.split()
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smallest_area": 0.0}, "smallest_area=0.0 is not allowed: it must be a number above 0 and at most 1"),
        ({"smallest_area": 1.5}, "smallest_area=1.5"),
        ({"colour_jitter": (0.4, 0.4, 0.4)}, "it must be four numbers"),
        ({"colour_jitter": (0.4, 0.4, 0.4, 0.6)}, "hue from 0 to 0.5"),
        ({"colour_jitter": (-0.4, 0.4, 0.4, 0.2)}, "colour_jitter"),
        ({"crop_padding": -1}, "crop_padding=-1"),
    ],
)
def test_augmentations_out_of_bounds_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        ImageFileAugmentation(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "key"), [((0, 8, 0), "size=0"), ((8, 7, 0), "shorter_side=7"), ((8, 8, -1), "workers=-1")]
)
def test_decodings_out_of_bounds_are_refused(settings: tuple[int, int, int], key: str) -> None:
    with pytest.raises(InvalidValue, match=key):
        Decoding(*settings)


def test_mistakes_of_the_caller_are_refused(image_folder: Path) -> None:
    images = dataset(image_folder)
    with pytest.raises(InvalidValue, match="batch_size=0 is not allowed: it must be at least 1"):
        stream(image_folder, batch_size=0)
    with pytest.raises(InvalidValue, match="batch_size=0 is not allowed: it must be at least 1"):
        images.evaluation_batches(0, MEAN, STD)
    with pytest.raises(ValueError, match="at least one sample"):
        images.select(torch.arange(0)).stream(5, MEAN, STD, seeded(0))
    with pytest.raises(ValueError, match="needs a generator"):
        images.stream(5, MEAN, STD, seeded(0), DARTS)
    with pytest.raises(ValueError, match="3 channels need as many means"):
        images.stream(5, (0.5,), (0.5,), seeded(0))
    with pytest.raises(UnusableInput, match=r"The labels are \(3,\) int64, not \(24,\) whole numbers"):
        replace(images, labels=torch.arange(3))
