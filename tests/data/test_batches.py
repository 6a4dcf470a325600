"""Streams of batches of images in memory: order, normalisation, augmentation, and the state of a checkpoint."""

import io
from collections.abc import Sequence

import pytest
import torch
from torch import Generator, Tensor

from nas.data.augmentation import Augmentation
from nas.data.batches import Batch, Stream
from nas.data.dataset import ImageDataset
from nas.errors import InvalidValue, UnusableInput

MEAN, STD = (0.2, 0.5), (0.1, 0.3)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def dataset(count: int) -> ImageDataset:
    """Images that tell their number: it is their label, too."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 6, 6)
    return ImageDataset(pixels.contiguous(), torch.arange(count), classes=count)


def stream(
    count: int = 20,
    batch_size: int = 6,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    epoch_samples: int = 0,
) -> Stream:
    draws = seeded(seed + 100)
    return dataset(count).stream(batch_size, MEAN, STD, seeded(seed), augmentation, draws, epoch_samples)


def assert_same(batches: Sequence[Batch], others: Sequence[Batch]) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.targets, other.targets)


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def test_an_epoch_visits_every_image_once() -> None:
    batches = stream(count=20, batch_size=5)
    assert batches.steps_per_epoch == 4
    epochs = [[batches.next() for _ in range(4)] for _ in range(3)]
    orders = [torch.cat([batch.targets for batch in epoch]).tolist() for epoch in epochs]
    for order in orders:
        assert sorted(order) == list(range(20))
    assert orders[0] != orders[1] != orders[2]


def test_the_last_partial_batch_is_dropped() -> None:
    batches = stream(count=20, batch_size=6)
    assert batches.steps_per_epoch == 3
    first = torch.cat([batches.next().targets for _ in range(3)])
    assert len(first.unique()) == len(first) == 18
    # The fourth batch is from a new epoch: over many epochs every image is met.
    met = set(first.tolist())
    for _ in range(60):
        met |= set(batches.next().targets.tolist())
    assert met == set(range(20))


def test_a_data_set_smaller_than_the_batch_is_one_batch() -> None:
    batches = stream(count=5, batch_size=8)
    assert batches.steps_per_epoch == 1
    for _ in range(3):
        assert sorted(batches.next().targets.tolist()) == [0, 1, 2, 3, 4]


def test_an_epoch_of_few_samples_is_as_many_passes_as_make_enough() -> None:
    plain, repeated, again = (stream(count=20, batch_size=6, epoch_samples=wanted) for wanted in (20, 41, 41))
    assert plain.steps_per_epoch == 3
    assert repeated.steps_per_epoch == 9  # three passes of 20
    assert_same(
        [plain.next() for _ in range(9)], [repeated.next() for _ in range(9)]
    )  # only where an epoch ends differs
    again.load_state_dict(repeated.state_dict())
    # The place in the order is saved; the generators have their own states.
    assert again.state_dict().keys() == plain.state_dict().keys()


def test_images_are_normalised_and_stay_with_their_labels() -> None:
    batch = stream().next()
    assert batch.inputs.dtype == torch.float32
    assert batch.targets.dtype == torch.int64
    torch.testing.assert_close(batch.inputs, normalised(dataset(20).images[batch.targets]))


def test_float_images_are_normalised_alike() -> None:
    whole = dataset(20)
    floats = ImageDataset(whole.images.float() / 255, whole.labels, classes=20)
    batch = floats.stream(6, MEAN, STD, seeded(0)).next()
    torch.testing.assert_close(batch.inputs, stream().next().inputs)


def test_the_order_generator_decides_the_order() -> None:
    first, same, other = ([s.next() for _ in range(5)] for s in (stream(seed=0), stream(seed=0), stream(seed=1)))
    assert_same(first, same)
    assert any(not torch.equal(a.targets, b.targets) for a, b in zip(first, other, strict=True))


def test_the_padding_is_black_and_the_cutout_is_the_mean() -> None:
    white = ImageDataset(torch.full((50, 2, 6, 6), 255, dtype=torch.uint8), torch.zeros(50).long(), classes=1)
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=2)
    batch = white.stream(50, MEAN, STD, seeded(0), augmentation, seeded(1)).next()
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        values = batch.inputs[:, channel].unique()
        expected = torch.tensor([-mean / std, 0.0, (1 - mean) / std])
        torch.testing.assert_close(values, expected)


def test_augmentation_changes_the_images_of_every_epoch_anew_but_not_the_order() -> None:
    plain, augmented = stream(batch_size=20), stream(batch_size=20, augmentation=Augmentation(crop_padding=3))
    epochs = []
    for _ in range(2):
        batch, original = augmented.next(), plain.next()
        assert torch.equal(batch.targets, original.targets)
        assert not torch.equal(batch.inputs, original.inputs)
        epochs.append(batch.inputs[batch.targets.argsort()])
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
def test_a_resumed_stream_goes_on_with_the_same_batches(steps: int) -> None:
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=2)
    order, noise = seeded(0), seeded(1)
    interrupted = dataset(20).stream(6, MEAN, STD, order, augmentation, noise)
    for _ in range(steps):
        interrupted.next()
    file = io.BytesIO()
    torch.save({"stream": interrupted.state_dict(), "order": order.get_state(), "noise": noise.get_state()}, file)
    expected = [interrupted.next() for _ in range(8)]

    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    order, noise = seeded(7), seeded(8)
    resumed = dataset(20).stream(6, MEAN, STD, order, augmentation, noise)
    resumed.next()
    resumed.load_state_dict(checkpoint["stream"])
    order.set_state(checkpoint["order"])
    noise.set_state(checkpoint["noise"])
    assert_same([resumed.next() for _ in range(8)], expected)


def test_a_saved_state_does_not_change_while_the_stream_goes_on() -> None:
    batches = stream()
    batches.next()
    state = batches.state_dict()
    order, position = state["order"].clone(), state["position"]
    for _ in range(7):
        batches.next()
    assert torch.equal(state["order"], order)
    assert state["position"] == position


def test_a_state_of_other_data_or_another_batch_size_is_refused() -> None:
    started = stream(count=20, batch_size=6)
    started.next()
    for other in (stream(count=21, batch_size=6), stream(count=20, batch_size=5)):
        with pytest.raises(UnusableInput, match=r"\(20 images in batches of 6\) does not fit"):
            other.load_state_dict(started.state_dict())


def test_evaluation_sees_everything_in_order() -> None:
    batches = list(dataset(20).evaluation_batches(6, MEAN, STD))
    assert [len(batch.targets) for batch in batches] == [6, 6, 6, 2]
    assert torch.cat([batch.targets for batch in batches]).tolist() == list(range(20))
    torch.testing.assert_close(torch.cat([batch.inputs for batch in batches]), normalised(dataset(20).images))


def test_a_batch_needs_an_image() -> None:
    with pytest.raises(InvalidValue, match="batch_size=0 is not allowed: it must be at least 1"):
        stream(batch_size=0)
    with pytest.raises(InvalidValue, match="batch_size=0 is not allowed: it must be at least 1"):
        dataset(20).evaluation_batches(0, MEAN, STD)


def test_mistakes_of_the_caller_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        stream(count=0)
    with pytest.raises(ValueError, match="needs a generator"):
        dataset(20).stream(6, MEAN, STD, seeded(0), Augmentation(flip=True))
    with pytest.raises(ValueError, match="2 channels need as many means"):
        dataset(20).stream(6, (0.5,), (0.5,), seeded(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_data_set_on_a_gpu_gives_the_same_batches_there() -> None:
    on_gpu = dataset(20).to("cuda").stream(6, MEAN, STD, seeded(0))
    on_cpu = stream()
    for _ in range(5):
        batch, expected = on_gpu.next(), on_cpu.next()
        assert batch.inputs.is_cuda
        assert torch.equal(batch.targets.cpu(), expected.targets)
        torch.testing.assert_close(batch.inputs.cpu(), expected.inputs)
