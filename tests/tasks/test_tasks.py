"""Every task: its loss against a definition, its measures against scikit-learn, what it takes and refuses."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torch.nn import functional as F

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue, UnusableInput
from nas.tasks import Auto, Classification, DenseClassification, DenseRegression, Language, MultiLabel, Regression, Task
from nas.tasks.task import NOTHING

CPU = torch.device("cpu")


def splits_of(targets: Tensor, **settings: object) -> DataSplits:
    """Rows of three numbers, a half of them for training and a quarter for each of the other parts."""
    inputs = torch.randn(len(targets), 3, generator=torch.Generator().manual_seed(0))
    half, quarter = len(targets) // 2, len(targets) // 4
    sizes = (half, quarter, len(targets) - half - quarter)
    parts = [ArrayDataset(*pair) for pair in zip(inputs.split(sizes), targets.split(sizes), strict=True)]
    return DataSplits("rows", *parts, mean=(0.0,) * 3, std=(1.0,) * 3, **settings)  # type: ignore[arg-type]


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


AMOUNTS = 1000 + 3 * random(40, 2)
LABELS = (random(40, 3, seed=2) > 0.4).double()


@pytest.mark.parametrize(
    ("targets", "settings", "name"),
    [
        (AMOUNTS[:, 0], {}, "regression"),
        (AMOUNTS, {}, "regression"),
        (torch.arange(40) % 3, {}, "classification"),
        ((torch.arange(40) % 3).double(), {}, "classification"),
        (torch.arange(40) % 2 == 0, {}, "classification"),
        (torch.arange(40) % 15, {"class_names": tuple("abcdefghijklmno")}, "classification"),
    ],
)
def test_the_targets_suggest_the_task(targets: Tensor, settings: dict[str, object], name: str) -> None:
    task, splits = Auto().fitted(splits_of(targets, **settings))
    assert task.name == name
    assert task.signature.outputs == (
        splits.train.targets.shape[1] if name == "regression" else len(splits.class_names or ())
    )


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (
            (torch.arange(40) % 4 > 0).long(),
            "task: classification, 2 classes, the largest 75 % (20 training samples); task=regression for numbers",
        ),
        (
            AMOUNTS[:, 0],
            "task: regression of 1 number (20 training samples); task=classification for classes",
        ),
    ],
)
def test_what_was_taken_is_told_with_how_to_say_the_other(
    targets: Tensor, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nas")
    Auto().fitted(splits_of(targets))
    assert caplog.messages == [told]


def test_a_task_that_is_said_wins() -> None:
    ratings = torch.arange(40).double() % 5 + 1
    assert Auto().fitted(splits_of(ratings))[0].name == "classification"
    assert Regression().fitted(splits_of(ratings))[0].signature.outputs == 1
    halves = ratings / 2
    assert Auto().fitted(splits_of(halves))[0].name == "regression"
    assert Classification().fitted(splits_of(halves))[1].class_names == ("0.5", "1", "1.5", "2", "2.5")


def test_classes_are_called_by_all_their_digits() -> None:
    for values, names in (
        ([10_000_001, 10_000_002], ("10000001", "10000002")),
        ([0.12345671, 0.12345672], ("0.12345671", "0.12345672")),
        ([1.0, 0.1], ("0.1", "1")),
    ):
        classes = torch.tensor(values, dtype=torch.float64).repeat(20)
        assert Classification().fitted(splits_of(classes))[1].class_names == names


def test_each_measure_has_its_direction_and_the_score_is_to_be_maximised() -> None:
    for task in (Classification(), MultiLabel(), Regression(), DenseClassification(), DenseRegression(), Language()):
        better, worse = (0.9, 0.1) if task.measures[0].better == "higher" else (0.1, 0.9)
        scores = [task.score({one.name: value for one in task.measures}) for value in (better, worse)]
        assert scores[0] > scores[1]
        accuracies = [one.name for one in task.measures if "accuracy" in one.name]
        assert accuracies == {"classification": ["accuracy"], "dense_classification": ["place_accuracy"]}.get(
            task.name, []
        )


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.arange(80), "task=classification or task=regression"),
        (LABELS, "task=multi_label.* task=regression takes numbers\\.$"),
        (F.one_hot(torch.arange(40) % 3), "task=regression takes numbers; each row has one 1, and y.argmax"),
        # 20 values in the training part, and others later
        (torch.arange(40), "whole numbers of 40 values, which .* say task=classification or task=regression"),
        (torch.tensor([1.0, 2.0] * 15 + [7.0] * 10), r"lacks, 7 \(10\): .*; if they are amounts, say task=regression"),
    ],
)
def test_what_the_rule_does_not_tell_is_refused_with_both_ways_out(targets: Tensor, words: str) -> None:
    with pytest.raises(UnusableInput, match=words):
        Auto().fitted(splits_of(targets))


@pytest.mark.parametrize(
    ("targets", "advised"),
    [
        (F.one_hot(torch.arange(40) % 3), True),
        (torch.ones(40, 1), False),  # argmax would make one class of all
        (F.one_hot(torch.arange(40) % 4).view(40, 2, 2), False),  # argmax(1) would leave two numbers
    ],
)
def test_argmax_is_advised_where_it_makes_a_class_per_sample(targets: Tensor, advised: bool) -> None:
    with pytest.raises(UnusableInput, match="not one class per sample") as refused:
        Classification().fitted(splits_of(targets))
    assert ("y.argmax(1) makes them classes" in str(refused.value)) == advised


@pytest.mark.parametrize("error", ["squared", "huber", "absolute"])
def test_a_regression_averages_within_a_sample_and_then_over_samples(error: str) -> None:
    task, splits = Regression(error).fitted(splits_of(AMOUNTS))  # type: ignore[arg-type]
    targets = splits.train.targets.double()
    targets[0, 1] = torch.nan
    outputs = random(*targets.shape, seed=3).requires_grad_()
    each = []
    for one, target in zip(outputs, targets, strict=True):
        known = target.isfinite()
        ways = {"squared": F.mse_loss, "huber": F.huber_loss, "absolute": F.l1_loss}
        each.append(ways[error](one[known], target[known]))
    torch.testing.assert_close(task.loss(outputs, targets), torch.stack(each).mean())
    torch.testing.assert_close(task.reported_loss(outputs, targets), torch.stack(each).sum())
    (gradient,) = torch.autograd.grad(task.loss(outputs, targets), [outputs])
    assert gradient.isfinite().all()
    assert gradient[0, 1] == 0


def test_targets_are_standardised_by_the_training_part_alone() -> None:
    task, splits = Regression().fitted(splits_of(AMOUNTS))
    train = AMOUNTS[:20]
    torch.testing.assert_close(task.mean, train.mean(0))
    torch.testing.assert_close(task.deviation, train.std(0, correction=0))
    other = AMOUNTS.clone()
    other[20:] += 500
    again, moved = Regression().fitted(splits_of(other))
    assert torch.equal(again.mean, task.mean)
    assert torch.equal(moved.train.targets, splits.train.targets)
    assert not torch.equal(moved.test.targets, splits.test.targets)


class Doubled(Regression):
    """Only its loss is a user's own."""

    def loss(self, outputs, targets, values=NOTHING, reduction="mean"):
        return 2 * super().loss(outputs, targets, values, reduction)


def test_a_task_that_changes_one_thing_of_ours_stays_itself_for_the_data() -> None:
    data = splits_of(AMOUNTS)
    (plain, fitted), (own, _) = (task.fitted(data) for task in (Regression(), Doubled()))
    targets = fitted.test.targets
    loss = plain.loss(torch.zeros_like(targets), targets)
    assert torch.equal(own.loss(torch.zeros_like(targets), targets), 2 * loss)
    assert own.target_scale() == plain.target_scale() == (plain.mean.tolist(), plain.deviation.tolist())


def test_measures_of_a_regression_are_scikit_learns_in_the_targets_units() -> None:
    task, splits = Regression().fitted(splits_of(AMOUNTS))
    truth, outputs = splits.test.targets, splits.test.targets + 0.3 * random(10, 2, seed=4).float()
    found = task.metrics(CPU)
    for batch in (slice(0, 7), slice(7, 10)):
        found.update(outputs[batch], truth[batch])
    said, asked = task.predicted(outputs).numpy(), AMOUNTS[30:].numpy()
    expected = {
        "r2": sk.r2_score(asked, said),
        "rmse": np.mean([sk.root_mean_squared_error(asked[:, k], said[:, k]) for k in range(2)]),
        "mae": sk.mean_absolute_error(asked, said),
    }
    assert found.compute() == pytest.approx(expected, rel=1e-5)
    each = {measure.name: values for measure, values in found.each().items()}
    assert each["r2"] == pytest.approx([sk.r2_score(asked[:, k], said[:, k]) for k in range(2)], rel=1e-5)
    assert {name: np.mean(values) for name, values in each.items()} == pytest.approx(expected, rel=1e-5)


def test_measures_of_labels_are_scikit_learns_and_leave_out_what_has_no_curve() -> None:
    task, splits = MultiLabel().fitted(splits_of(LABELS))
    truth, outputs = splits.test.targets.clone(), random(10, 3, seed=5)
    truth[:, 2] = 0
    found = task.metrics(CPU)
    for batch in (slice(0, 7), slice(7, 10)):
        found.update(outputs[batch], truth[batch])
    said, asked = outputs.sigmoid().numpy(), truth.numpy()
    expected = {
        "mean_average_precision": sk.average_precision_score(asked[:, :2], said[:, :2], average="macro"),
        "macro_auroc": sk.roc_auc_score(asked[:, :2], said[:, :2], average="macro"),
    }
    assert found.compute() == pytest.approx(expected, rel=1e-6)
    each = {measure.name: values for measure, values in found.each().items()}
    precisions = [sk.average_precision_score(asked[:, k], said[:, k]) for k in range(2)]
    assert each["average_precision"] == pytest.approx([*precisions, np.nan], rel=1e-6, nan_ok=True)
    assert each["share"] == pytest.approx(asked.mean(0), rel=1e-6)


@pytest.mark.parametrize("weight", [1.0, 3.0, "balanced"])
def test_labels_that_are_there_may_weigh_more(weight: float | str) -> None:
    task, splits = MultiLabel(weight).fitted(splits_of(LABELS))  # type: ignore[arg-type]
    targets, outputs = splits.train.targets.double(), random(20, 3, seed=6)
    shares = targets.mean(0)
    positive = (1 - shares) / shares if weight == "balanced" else torch.full((3,), float(weight), dtype=torch.float64)
    expected = -(positive * targets * F.logsigmoid(outputs) + (1 - targets) * F.logsigmoid(-outputs)).mean()
    torch.testing.assert_close(task.loss(outputs, targets), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("weights", ["balanced", [1.0, 2.0, 5.0]])
def test_class_weights_average_to_one_over_the_training_part(weights: str | list[float]) -> None:
    labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 2 + [0, 1, 2, 0] * 5)
    task, splits = Classification(weights).fitted(splits_of(labels))  # type: ignore[arg-type]
    assert isinstance(task, Classification)
    assert task.weights is not None
    assert float(task.weights[splits.train.targets].mean()) == pytest.approx(1)
    told = "balanced" if weights == "balanced" else "0 1, 1 2, 2 5"
    assert task.words(splits).endswith(f", weighted ({told})")
    if weights == "balanced":
        counts = splits.train.targets.bincount()
        assert (task.weights * counts).tolist() == pytest.approx([20 / 3] * 3)
    outputs = random(20, 3, seed=7)
    each = F.cross_entropy(outputs, splits.train.targets, reduction="none")
    expected = (task.weights[splits.train.targets] * each).mean()
    torch.testing.assert_close(task.loss(outputs, splits.train.targets), expected)
    torch.testing.assert_close(task.reported_loss(outputs, splits.train.targets), each.sum())


def test_numbers_become_classes_named_by_their_values() -> None:
    task, splits = Classification().fitted(splits_of(torch.tensor([10.0, 2.5, 10.0, 2.5] * 10)))
    assert splits.class_names == ("2.5", "10")
    assert splits.train.targets[:2].tolist() == [1, 0]
    assert task.signature.outputs == 2


@pytest.mark.parametrize(
    ("task", "targets", "settings", "words"),
    [
        (Regression(), torch.ones(40), {}, "same in all of train"),
        (Regression(), torch.tensor([1.5, torch.nan] * 20), {}, "10 of 20 samples of train have no known target: 1, 3"),
        (Regression(), torch.tensor([1.5, torch.inf] * 20), {}, "10 of 20 samples of train have an infinite target"),
        (Regression(), torch.arange(40) % 2, {"class_names": ("a", "b")}, "task=classification"),
        (MultiLabel(), torch.ones(40, 2), {}, "label 0 is in every sample"),
        (MultiLabel(), torch.ones(40), {}, r"two labels at least; those of train of rows are \(20,\)"),
        (
            MultiLabel(),
            torch.arange(80.0).view(40, 2),
            {"target_names": ("a", "b")},
            "0 and 1; 38 of train of rows are neither, the first is 2 for label a in sample 1 of that part, from 0",
        ),
        (
            MultiLabel(),
            torch.cat([LABELS, LABELS[:4] * 2])[4:],
            {"test_samples": range(101, 111)},
            "of test of rows are neither, the first is 2 for label . in sample 10[78]",
        ),
        (Classification(), torch.arange(40), {}, "of classes that its training part lacks"),
        (Classification(), torch.tensor([0.0, torch.nan] * 20), {}, "no known class: 1, 3"),
        (Classification(), torch.zeros(40), {}, "at least two classes"),
        (Classification(), torch.zeros(40, 2), {}, r"not one class per sample\.$"),
        (
            Classification(),
            torch.eye(2).repeat(20, 1),
            {},
            r"per sample: each row has one 1, y\.argmax\(1\) makes them",
        ),
    ],
)
def test_targets_of_another_task_are_refused(
    task: Task, targets: Tensor, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UnusableInput, match=words):
        task.fitted(splits_of(targets, **settings))


@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_a_class_that_another_part_lacks_is_told_once_and_one_that_training_lacks_refused_with_its_number(
    names: tuple[str, ...] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nas")
    lacking = torch.arange(40) % 3
    lacking[30:] = torch.minimum(lacking[30:], torch.tensor(1))
    task, _ = Auto().fitted(splits_of(lacking, class_names=names))
    assert task.signature.outputs == 3
    told = "rows: test has no sample of " + ("2" if names is None else "c")
    assert [message for message in caplog.messages if "no sample" in message] == [told]
    with pytest.raises(
        UnusableInput, match=r"^The test part of rows has 3 samples of a class that .* lacks, [2c] \(3\)"
    ):
        Classification().fitted(splits_of(torch.cat([torch.arange(30) % 2, torch.arange(10) % 3]), class_names=names))


def test_classes_that_are_spelt_in_two_ways_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nas")
    Classification().fitted(splits_of(torch.arange(40) % 4, class_names=("No", "Yes", "other", "yes")))
    assert "rows: classes that differ only in case or blanks: Yes, yes" in caplog.messages


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Classification([]), "class_weights"),
        (lambda: Classification("equal"), "class_weights"),  # type: ignore[arg-type]
        (lambda: Classification([1.0, 2.0]).fitted(splits_of(torch.arange(40) % 3)), "class_weights"),
        (lambda: MultiLabel(0.0), "positive_weight"),
        (lambda: Regression("cubed"), "loss"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_be_are_refused(make: object, key: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        make()  # type: ignore[operator]
    assert raised.value.key == key


def test_who_looks_at_no_input_is_measured_too() -> None:
    labels = torch.tensor([0, 0, 0, 1] * 10)
    task, splits = Classification().fitted(splits_of(labels))
    assert task.measured_without_inputs(splits.test.targets)["accuracy"] == pytest.approx(
        float((splits.test.targets == 0).double().mean())
    )
    regression, of_numbers = Regression().fitted(splits_of(AMOUNTS[:, 0]))
    train, test = AMOUNTS[:20, 0], AMOUNTS[30:, 0]
    expected = sk.root_mean_squared_error(test.numpy(), np.full(10, float(train.mean())))
    found = regression.measured_without_inputs(of_numbers.test.targets)
    assert found["rmse"] == pytest.approx(expected, rel=1e-5)


def test_arrays_of_numpy_are_taken() -> None:
    data = ArrayDataset(np.ones((4, 3)), np.arange(4))
    assert (data.inputs.dtype, data.targets.tolist()) == (torch.float32, [0, 1, 2, 3])
