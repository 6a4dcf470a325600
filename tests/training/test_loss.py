"""Cutout, mixing and label smoothing as tensors and as numbers."""

import pytest
import torch
import torch.nn.functional as F

from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.signature import Signature
from nas.tasks import PLAIN_CLASSIFICATION, smoothed_cross_entropy
from nas.training.augment import AugmentedBatch, augmented, cutout, mixup, refuse_unsuited_augmentation
from nas.training.loss import training_loss


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 6, side: int = 7) -> Batch:
    images = torch.rand(size, 2, side, side + 1, generator=generator(5), dtype=torch.float64) + 1
    return Batch(images, torch.randint(3, (size,), generator=generator(6)))


LOGITS = torch.randn(6, 3, generator=generator(7), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_smoothing_by_a_tensor_is_torchs(smoothing, reduction):
    expected = F.cross_entropy(LOGITS, batch().targets, label_smoothing=smoothing, reduction=reduction)
    for given in (smoothing, torch.tensor(smoothing, dtype=torch.float64)):
        found = smoothed_cross_entropy(LOGITS, batch().targets, given, reduction)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_without_strengths_nothing_changes_and_nothing_is_drawn():
    source, one = generator(), batch()
    before = source.get_state()
    shown = augmented(one, {"learning_rate": 0.1, "cutout": 0.0, "mixing": 0.0}, source)
    assert shown == AugmentedBatch(one.inputs, one.targets)
    assert torch.equal(before, source.get_state())
    assert torch.equal(training_loss(PLAIN_CLASSIFICATION, LOGITS, shown), F.cross_entropy(LOGITS, one.targets))


@pytest.mark.parametrize("side", [0.05, 0.3, 0.9, 1.7])
def test_cutout_takes_the_area_of_a_square_clipped_by_the_image(side):
    """Of an image of ones, what is missing is the square's area within the image, whatever pixels it cuts."""
    height, width = 7, 9
    found = cutout(torch.ones(64, 1, height, width, dtype=torch.float64), side, generator(3))
    missing = (1 - found).sum(dim=(1, 2, 3))
    draws, half = generator(3), side * height / 2
    lengths = []
    for length in (height, width):
        centre = length * torch.rand(64, 1, generator=draws, dtype=torch.float64).squeeze(1)
        lengths.append((centre + half).clamp(max=length) - (centre - half).clamp(min=0))
    torch.testing.assert_close(missing, lengths[0] * lengths[1])
    assert float(found.min()) >= -1e-12
    assert float(found.max()) <= 1


def test_cutout_of_a_whole_pixel_is_black_and_elsewhere_the_image_is_untouched():
    found = cutout(torch.ones(200, 1, 9, 9, dtype=torch.float64), 4 / 9, generator(1))
    shares = {0.0, 1.0}
    assert shares <= set(found.flatten().round(decimals=9).tolist())


def test_mixing_shares_images_and_labels_alike():
    one = batch()
    shown = mixup(one.inputs, one.targets, 0.8, generator(2))
    share = shown.share.view(-1, 1, 1, 1)
    assert 0 <= float(share.min()) < float(share.max()) <= 0.4
    for index, label in enumerate(shown.partners.tolist()):
        partner = (shown.inputs[index] - (1 - share[index]) * one.inputs[index]) / share[index]
        source = (one.inputs - partner).abs().flatten(1).max(1).values.argmin()
        torch.testing.assert_close(partner, one.inputs[source])
        assert label == one.targets[source]


def test_the_loss_of_a_mixed_batch_is_that_of_soft_labels():
    one = batch()
    shown = mixup(one.inputs, one.targets, 1.0, generator(2))
    share = shown.share[:, None]
    soft = (1 - share) * F.one_hot(one.targets, 3) + share * F.one_hot(shown.partners, 3)
    soft = 0.8 * soft + 0.2 / 3
    expected = F.cross_entropy(LOGITS, soft)
    for smoothing in (0.2, torch.tensor(0.2, dtype=torch.float64)):
        found = training_loss(PLAIN_CLASSIFICATION, LOGITS, shown, {"label_smoothing": smoothing})
        torch.testing.assert_close(found, expected)


def test_cutout_of_a_series_is_an_interval_in_all_channels():
    found = cutout(torch.ones(64, 2, 9, dtype=torch.float64), 0.4, generator(3))
    assert torch.equal(found[:, 0], found[:, 1])
    centre, half = 9 * torch.rand(64, 1, generator=generator(3), dtype=torch.float64).squeeze(1), 0.4 * 9 / 2
    torch.testing.assert_close((1 - found[:, 0]).sum(1), (centre + half).clamp(max=9) - (centre - half).clamp(min=0))


def test_cutout_has_the_slope_of_the_lost_area():
    """Against the closed form: of a series of ones, one end of the interval or both move with the side."""
    side = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    cutout(torch.ones(64, 1, 9, dtype=torch.float64), side, generator(3)).sum().backward()
    centre = 9 * torch.rand(64, generator=generator(3), dtype=torch.float64)
    half = 0.4 * 9 / 2
    ends = (centre + half < 9).double() + (centre - half > 0).double()
    torch.testing.assert_close(side.grad, -(ends * 9 / 2).sum())


@pytest.mark.parametrize("shape", [(5,), (3, 8), (2, 5, 4)])
def test_rows_series_and_images_mix_by_one_share_each(shape):
    inputs = torch.rand(6, *shape, generator=generator(5), dtype=torch.float64)
    shown = mixup(inputs, torch.arange(6), 0.8, generator(2))
    for index, partner in enumerate(shown.partners.tolist()):
        share = shown.share[index]
        torch.testing.assert_close(shown.inputs[index], (1 - share) * inputs[index] + share * inputs[partner])


def test_what_cannot_act_is_refused_where_it_would():
    row, categories = Signature((7,), 2), Signature((7,), 2, categories=(3, 4))
    for signature in (row, categories, Signature((2, 9), 2), Signature((1, 6, 4), 2)):
        refuse_unsuited_augmentation(signature, {"learning_rate": 0.1, "dropout": 0.2})
    refuse_unsuited_augmentation(Signature((2, 9), 2), {"cutout": 0.3, "mixing": 0.2})
    refuse_unsuited_augmentation(row, {"mixing": 0.2})
    for signature in (row, categories):
        with pytest.raises(InvalidValue, match=r"hyperparameters.cutout=0.3 is not allowed: rows of 7 numbers have no"):
            refuse_unsuited_augmentation(signature, {"cutout": 0.3})
    with pytest.raises(
        InvalidValue, match=r"hyperparameters.mixing=0.2 is not allowed: 2 of the columns are numbers of"
    ):
        refuse_unsuited_augmentation(categories, {"mixing": 0.2})
    with pytest.raises(InvalidValue, match=r"tokens are numbers of categories"):
        refuse_unsuited_augmentation(Signature((9,), 30, "sequence", (30,)), {"mixing": 0.2})


@pytest.mark.parametrize("name", ["cutout", "mixing"])
def test_a_number_and_a_tensor_compute_the_same(name):
    found = [augmented(batch(), {name: value}, generator(4)) for value in (0.4, torch.tensor(0.4, dtype=torch.float64))]
    torch.testing.assert_close(found[0].inputs, found[1].inputs, rtol=1e-14, atol=0)
    assert not torch.equal(found[0].inputs, batch().inputs)
