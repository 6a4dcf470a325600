"""A prediction for every place."""

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor
from torch.nn import functional as F

from nas.data.augmentation import UNKNOWN_CLASS
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue, UnusableInput
from nas.tasks import Auto, DenseClassification, DenseRegression, Task
from nas.training.metrics import measure

CPU = torch.device("cpu")


def splits_of(targets: Tensor, **settings: object) -> DataSplits:
    """Images of one channel and 4 x 5 places, half of them for training."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(len(targets), 1, 4, 5, generator=generator)
    sizes = (len(targets) // 2, len(targets) // 4, len(targets) - len(targets) // 2 - len(targets) // 4)
    parts = [ArrayDataset(*pair, dense=True) for pair in zip(inputs.split(sizes), targets.split(sizes), strict=True)]
    return DataSplits("maps", *parts, mean=(0.0,), std=(1.0,), head="dense", **settings)  # type: ignore[arg-type]


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MASKS = (random(16, 4, 5).abs() * 2).long().clamp(max=2)
FIELDS = 50 + 4 * random(16, 2, 4, 5, seed=2)


def test_classes_of_places_are_numbered_in_order_and_one_may_be_left_out() -> None:
    values = torch.tensor([0, 128, 255])[MASKS]
    task, splits = DenseClassification(ignore=255).fitted(splits_of(values))
    assert task.signature.outputs == 2
    assert splits.class_names == ("0", "128")
    expected = torch.where(MASKS == 2, UNKNOWN_CLASS, MASKS)
    assert torch.equal(splits.train.targets, expected[:8])
    named, of_names = DenseClassification(ignore=78).fitted(splits_of(MASKS, class_names=("0", "78", "9")))
    assert of_names.class_names == ("0", "9")
    assert named.signature.head == "dense"
    with pytest.raises(InvalidValue, match="ignore=5"):
        DenseClassification(ignore=5).fitted(splits_of(MASKS, class_names=("0", "78", "9")))


def test_the_rule_leaves_a_class_out_and_refuses_settings_that_could_not_act(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nas")
    masks = splits_of(MASKS, class_names=("0", "78", "255"))
    task, splits = Auto(ignore=255).fitted(masks)
    assert (task.name, splits.class_names) == ("dense_classification", ("0", "78"))
    assert "dense_regression" not in caplog.text, "named classes are no numbers"
    for rule, data, key in (
        (Auto(ignore=255), splits_of(FIELDS), "ignore=255 is not allowed: it is a class of places"),
        (Auto("balanced"), masks, "class_weights=balanced is not allowed: it is for tasks with one class per sample"),
    ):
        with pytest.raises(InvalidValue, match=key):
            rule.fitted(data)
    strange = MASKS.clone()
    strange[:8] %= 2
    with pytest.raises(UnusableInput, match=r"has classes that its training part has not: 255; task\.ignore="):
        Auto().fitted(splits_of(strange, class_names=("0", "78", "255")))


def test_classes_are_called_by_their_numbers_and_what_is_not_known_is_no_class() -> None:
    values = torch.tensor([-1, 3, 10_000_001])[MASKS]
    assert DenseClassification().fitted(splits_of(values))[1].class_names == ("-1", "3", "10000001")
    gaps = torch.tensor([0.0, 1.0, float("nan")])[MASKS]
    task, splits = Auto().fitted(splits_of(gaps))
    assert (task.name, splits.class_names) == ("dense_classification", ("0", "1"))
    assert torch.equal(splits.train.targets == UNKNOWN_CLASS, MASKS[:8] == 2)
    with pytest.raises(UnusableInput, match=r"have fractions, such as -0\.5: task=dense_regression takes them"):
        DenseClassification().fitted(splits_of(values / 2))
    with pytest.raises(InvalidValue, match="ignore=7 is not allowed: no target of maps is of this class"):
        Auto(ignore=7).fitted(splits_of(values))


def test_the_loss_of_classes_is_averaged_within_a_sample_first() -> None:
    task, splits = DenseClassification(ignore=2).fitted(splits_of(MASKS))
    targets, outputs = splits.train.targets, random(8, 2, 4, 5, seed=3)
    each = [
        F.cross_entropy(one[None], target[None], ignore_index=UNKNOWN_CLASS)
        for one, target in zip(outputs, targets, strict=True)
    ]
    torch.testing.assert_close(task.loss(outputs, targets), torch.stack(each).mean())
    torch.testing.assert_close(task.reported_loss(outputs, targets), torch.stack(each).sum())
    cropped = targets.clone()
    cropped[0] = UNKNOWN_CLASS
    assert task.loss(outputs, cropped, reduction="none")[0] == 0


def test_intersection_over_union_is_scikit_learns() -> None:
    task, splits = DenseClassification(ignore=2).fitted(splits_of(MASKS))
    targets, outputs = splits.train.targets, random(8, 2, 4, 5, seed=4)
    metrics = task.metrics(CPU)
    for batch in (slice(0, 5), slice(5, 8)):
        metrics.update(outputs[batch], targets[batch])
    known = targets != UNKNOWN_CLASS
    asked, said = targets[known].numpy(), outputs.argmax(1)[known].numpy()
    expected = {"mean_iou": jaccard_score(asked, said, average="macro"), "place_accuracy": np.mean(asked == said)}
    assert metrics.compute() == pytest.approx(expected)


def test_a_relative_error_is_in_the_targets_own_units() -> None:
    fields = FIELDS.clone()
    fields[0, 0, 1, 2] = torch.nan
    task, splits = DenseRegression("relative").fitted(splits_of(fields))
    targets, outputs = splits.train.targets.double(), random(8, 2, 4, 5, seed=5).requires_grad_()
    said, asked = task.predicted(outputs), fields[:8]
    wrong = torch.where(asked.isfinite(), said - asked, 0.0).flatten(1).norm(dim=1)
    each = wrong.detach() / asked.nan_to_num().flatten(1).norm(dim=1)
    torch.testing.assert_close(task.loss(outputs, targets, reduction="none").detach(), each, rtol=1e-5, atol=0)
    metrics = task.metrics(CPU)
    metrics.update(outputs.detach(), targets)
    found = metrics.compute()
    assert found["relative_error"] == pytest.approx(float(each.mean()), rel=1e-5)
    known = asked.isfinite()
    rmse = [float((said - asked).detach()[:, k][known[:, k]].square().mean().sqrt()) for k in range(2)]
    assert found["rmse"] == pytest.approx(np.mean(rmse), rel=1e-5)
    (gradient,) = torch.autograd.grad(task.loss(outputs, targets), [outputs])
    assert gradient.isfinite().all()


def test_places_suggest_the_task() -> None:
    assert Auto().fitted(splits_of(MASKS))[0].name == "dense_classification"
    assert Auto().fitted(splits_of(FIELDS))[0].name == "dense_regression"
    task, splits = Auto().fitted(splits_of(FIELDS[:, 0]))
    assert (task.signature.outputs, splits.train.targets.shape) == (1, (8, 1, 4, 5))


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        (DenseClassification(), MASKS[:, :3], "a target for every place of inputs 1x4x5"),
        (DenseClassification(), torch.zeros(16, 4, 5).long(), "of one class"),
        (DenseClassification(ignore=1), torch.cat([MASKS[:15], torch.ones(1, 4, 5).long()]), "1 of 4 samples of test"),
        (DenseRegression(), torch.ones(16, 4, 5), "same at all places"),
        (DenseRegression(), FIELDS.masked_fill(FIELDS > 60, torch.inf), "are infinite"),
    ],
)
def test_targets_of_another_kind_are_refused(
    task: DenseClassification | DenseRegression, targets: Tensor, words: str
) -> None:
    with pytest.raises(UnusableInput, match=words):
        task.fitted(splits_of(targets))


@pytest.mark.parametrize("sides", [(6, 5), (30,)])
@pytest.mark.parametrize("task", [DenseClassification(), DenseRegression()])
def test_large_samples_are_measured_few_at_once_and_give_the_same_numbers(
    task: Task, sides: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = torch.Generator().manual_seed(3)
    inputs = torch.randn(39, 2, *sides, generator=numbers)
    of_classes = isinstance(task, DenseClassification)
    targets = torch.randint(3, (39, *sides), generator=numbers) if of_classes else inputs.double()[:, :1].exp()
    parts = [ArrayDataset(inputs[rows], targets[rows], dense=True) for rows in torch.arange(39).split(13)]
    splits = DataSplits("places", *parts, mean=(0.0, 0.0), std=(1.0, 1.0), head="dense")
    task, splits = task.fitted(splits)
    network = (torch.nn.Conv2d if len(sides) == 2 else torch.nn.Conv1d)(2, task.signature.outputs, 3, padding=1)
    found = []
    for places, count in ((2**20, 13), (30 * 5, 5), (1, 2)):
        monkeypatch.setattr("nas.data.dataset.PLACES_AT_ONCE", places)
        batches = list(splits.test.evaluation_batches(256, splits.mean, splits.std))
        assert [len(batch.targets) for batch in batches][:-1] == [count] * (-(-13 // count) - 1)
        assert torch.equal(torch.cat([batch.targets for batch in batches]), splits.test.targets)
        found.append(measure(network, batches, task, CPU).numbers())
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)
    single = ArrayDataset(inputs, torch.arange(39) % 3)  # one target per sample: as many as were asked for
    assert len(next(single.evaluation_batches(39, (0.0, 0.0), (1.0, 1.0))).targets) == 39
