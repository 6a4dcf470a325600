"""Runs of every task are told in its own words, units and directions."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue
from nas.report import charts
from nas.report.animation import frames
from nas.report.comparison import comparison, found_runs, outcome_columns, outcome_rows
from nas.report.explanation import change_in_words, observed_options
from nas.report.page import page
from nas.report.predictions import PredictionsFile, read_predictions
from nas.report.recorded_run import RecordedRun
from nas.run.environment import record_environment
from nas.tasks import (
    Classification,
    Language,
    Measure,
    MultiLabel,
    RecordedTask,
    Regression,
    recorded_outputs,
    recorded_task,
)
from nas.training.metrics import measure
from tests.report.conftest import CANDIDATE, by_epoch, write_curves
from tests.report.test_page import Document

VALUES = {"r2": 0.36, "rmse": 56.5, "mae": 44.0}
TRIVIAL = {"r2": -0.01, "rmse": 70.5, "mae": 60.0}


def texts_of(folder):
    return Document(page(RecordedRun.read(folder))).texts


def section(texts, name):
    """The texts of a section, from its heading, which the links above name, too."""
    return texts[texts.index(name, texts.index(name) + 1) :]


@pytest.fixture
def regression(run_folder):
    """A gradient search with its retraining."""
    folder = run_folder()
    record_environment(folder, "cpu", task=Regression())
    metrics = folder / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("accuracy", "standardised_error"))
    gap = {"supernet": {"loss": 0.5, "standardised_error": 0.6, **VALUES, "rmse": 61.25}, "discretised": {}}
    (folder / "discretisation.json").write_text(json.dumps(gap))
    effect = {"runner_up": "8", "r2_effect": -0.0125, "retrained_r2_effect": 0.02}
    (folder / "explanation.json").write_text(json.dumps({"choices": {"layer1.filters": effect}}))
    write_curves(folder / "final" / "metrics.csv", {"train/standardised_error": by_epoch([0.9, 0.7])})
    record_environment(folder / "final", "cpu", task=Regression())
    result = {f"test_{name}": value for name, value in VALUES.items()} | {"test_loss": 0.65, "parameters": 1234}
    result |= recorded_task(Regression(), VALUES, TRIVIAL)
    (folder / "final" / "result.json").write_text(json.dumps(result))
    (folder / "final" / "predictions.csv").write_text(
        "sample,target,true,predicted\n0,charges,100,130\n1,charges,200,nan\n2,charges,300,280\n"
    )
    return folder


def test_a_regression_has_errors_in_its_units_where_a_classification_has_accuracies(regression):
    texts = texts_of(regression)
    assert texts[0] == "Test RMSE 56.5 (R² 0.36) with 1,234 parameters on digits, found in 2 min 5 s."
    assert "test RMSE (70.5 without inputs)" in texts
    assert texts[texts.index("MAE without inputs") + 1] == "60"
    assert any("of each test sample is in predictions.csv" in text for text in texts)
    assert "best validation loss while searching" in texts
    swaps = section(texts, "Why this architecture")
    assert "change of R² if swapped in the supernet" in swaps
    assert swaps[swaps.index("-0.0125") + 1] == "+0.02"
    gap = section(texts, "Discretisation gap")
    assert gap[1:7] == ["network", "split", "R²", "RMSE", "MAE", "loss"]
    assert gap[7:13] == ["the relaxed supernet", "validation", "0.36", "61.25", "44", "0.5000"]
    assert gap[13:19] == ["discretised and retrained from scratch", "test", "0.36", "56.5", "44", "0.6500"]
    assert not any("accuracy" in text.lower() for text in texts)
    run = RecordedRun.read(regression)
    assert charts.losses(run)[1].title == "Standardised error"
    assert charts.anytime_curve(run) == ([1000, 2000, 3000, 4000], [2.1, 1.4, 1.1, 0.7])
    assert frames(run)[2].title == "epoch 3   validation loss 1.1"
    *_, against = charts.retraining(run.retrainings["final"])
    dots, line = against.lines
    assert (against.title, against.x_label) == ("Predicted against true: charges", "true charges")
    assert (dots.xs, dots.ys) == ((100, 300), (130, 280))
    assert (line.xs, line.ys) == ((100, 300), (100, 300))


def test_a_measure_that_falls_is_best_where_it_is_lowest(run_folder):
    curves = {
        "best/perplexity": [(2, 0, 90.0), (4, 1, 95.0)],
        "best/loss": [(2, 0, 4.5), (4, 1, 4.4)],
        "budget/samples": [(2, 0, 10), (4, 1, 20)],
    }
    folder = run_folder(curves)
    record_environment(folder, "cpu", task=Language())
    lines = [
        {"candidate": {"architecture": {**CANDIDATE["architecture"], "layer1.filters": filters}}, "metrics": metrics}
        for filters, metrics in (("16", {"perplexity": 95.0}), ("8", {"perplexity": 90.0}))
    ]
    (folder / "evaluations.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = RecordedRun.read(folder)
    assert charts.anytime_curve(run) == ([10, 20], [90, 90])
    (every,) = charts.evaluated(run)
    assert every.title == "Perplexity of every candidate"
    assert every.lines[1].ys[-1] == 90
    assert [one.option for one in observed_options(run)["layer1.filters"]] == ["8", "16"]
    assert change_in_words(run.task.main, 1.5) == "+1.5"
    ratio = Measure("r2", "higher", "R²")
    assert [change_in_words(ratio, change) for change in (0.0123, -8e-6, -0.2)] == ["+0.0123", "0", "-0.2"]
    assert outcome_columns([run])[4:6] == ["test perplexity", "best validation perplexity"]
    (row,) = outcome_rows([run])
    assert row[5] == "90"


def test_a_comparison_of_two_tasks_is_refused_and_one_of_two_methods_is_of_what_both_record(
    regression, run_folder, tmp_path
):
    black_box = tmp_path / "random"
    curves = {"best/r2": by_epoch([0.2, 0.4]), "best/loss": by_epoch([0.8, 0.6]), "budget/samples": by_epoch([5, 9])}
    write_curves(black_box / "metrics.csv", curves)
    record_environment(black_box, "cpu", task=Regression())
    runs = found_runs([regression, black_box])
    assert outcome_columns(runs)[4:6] == ["test R²", "best validation loss"]
    assert [row[5] for row in outcome_rows(runs)] == ["0.7", "0.6"]
    assert "Best validation loss so far" in comparison(runs)
    old = tmp_path / "old"
    write_curves(old / "metrics.csv", {"validation/accuracy": by_epoch([0.5])})
    assert RecordedRun.read(old).task.name == "classification"
    with pytest.raises(InvalidValue) as refused:
        found_runs([regression, old])
    assert f"{regression} is of the task regression and {old} of classification" in str(refused.value)


def test_a_task_with_a_loss_of_ones_own_is_compared_by_the_measures_that_it_shares(regression, tmp_path):
    class Own(Regression):
        name = "own"

    own = tmp_path / "own"
    write_curves(own / "metrics.csv", {"validation/standardised_error": by_epoch([0.5])})
    record_environment(own, "cpu", task=Own())
    assert [run.task.name for run in found_runs([regression, own])] == ["regression", "own"]


def labels_and_numbers():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 3, generator=generator)
    parts = (inputs[:15], inputs[15:20], inputs[20:])
    labels = [ArrayDataset(one, (one[:, :2] > 0).double()) for one in parts]
    amounts = [ArrayDataset(one, torch.stack([one[:, 0] + 100, 7 * one[:, 1]], 1).double()) for one in parts]
    amounts[2].targets[4, 1] = torch.nan
    settings = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return (DataSplits("rows", *some, **settings) for some in (labels, amounts))


def test_each_label_has_a_row_and_each_target_its_predictions(run_folder, tmp_path):
    labelled, numbered = labels_and_numbers()
    task, splits = MultiLabel().fitted(labelled)
    network = nn.Linear(3, 2)
    batches = splits.test.evaluation_batches(4, splits.mean, splits.std)
    found = measure(network, batches, task, torch.device("cpu"), each=True)
    folder = run_folder()
    record_environment(folder, "cpu", task=task)
    write_curves(folder / "final" / "metrics.csv", {"train/loss": by_epoch([1.0])})
    result = {f"test_{name}": value for name, value in found.numbers().items()}
    names = ("sport", "<b>news</b>")
    result |= recorded_task(task, found.values, found.values) | recorded_outputs(task, found.each, names)
    (folder / "final" / "result.json").write_text(json.dumps(result, allow_nan=False))
    texts = texts_of(folder)
    assert texts[0].startswith("Test mAP ")
    place = texts.index("Each label on the test part")
    assert texts[place + 1 : place + 5] == ["label", "average precision", "AUROC", "of the samples"]
    assert texts[place + 5] == "sport"
    assert texts[place + 9] == "<b>news</b>"
    assert float(texts[place + 6]) == pytest.approx(result["outputs"]["values"]["average_precision"][0], rel=1e-3)

    task, splits = Regression().fitted(numbered)
    file = PredictionsFile(task, splits)
    batches = splits.test.evaluation_batches(4, splits.mean, splits.std)
    measure(network, batches, task, torch.device("cpu"), see=file.see)
    file.write(tmp_path)
    read = read_predictions(tmp_path / "predictions.csv")
    assert {name: len(one.true) for name, one in read.items()} == {"target 1": 10, "target 2": 9}
    inputs = splits.test.inputs
    assert read["target 1"].true == pytest.approx((inputs[:, 0] + 100).tolist(), rel=1e-6)
    said = task.predicted(network(inputs))[:, 0].tolist()
    assert read["target 1"].predicted == pytest.approx(said, rel=1e-6)


def test_classes_and_labels_are_told_by_name_with_probabilities_and_left_out_of_pictures(tmp_path, monkeypatch):
    labelled, _ = labels_and_numbers()
    classes = {part: one.with_targets(one.targets[:, 0].long()) for part, one in labelled.parts.items()}
    named = replace(labelled, **classes, class_names=("no", "yes"), target_names=("ill",), test_samples=range(31, 41))
    several = replace(labelled, target_names=("sport", "news"))
    network = nn.Linear(3, 2)
    found = {}
    for task, splits in (Classification().fitted(named), MultiLabel().fitted(several)):
        file = PredictionsFile(task, splits)
        batches = splits.test.evaluation_batches(4, splits.mean, splits.std)
        measure(network, batches, task, torch.device("cpu"), see=file.see)
        file.write(tmp_path)
        assert read_predictions(tmp_path / "predictions.csv") == {}
        found[task.name] = (tmp_path / "predictions.csv").read_text().splitlines()
        monkeypatch.setattr("nas.report.predictions.MOST_ROWS", 6)
        few = PredictionsFile(task, splits)
        few.see(network(splits.test.inputs), splits.test.targets)
        (tmp_path / "few").mkdir(exist_ok=True)
        few.write(tmp_path / "few")
        assert len((tmp_path / "few" / "predictions.csv").read_text().splitlines()) == 7
        monkeypatch.undo()
    logits = network(labelled.test.inputs).detach().double()
    header, *rows = found["classification"]
    assert header == "sample,target,true,predicted,probability"
    for place, (row, true) in enumerate(zip(rows, classes["test"].targets.tolist(), strict=True)):
        said = int(logits[place].argmax())
        share = float(logits[place].softmax(0)[said])
        assert row == f"{31 + place},ill,{named.class_names[true]},{named.class_names[said]},{share:.4f}"
    header, *rows = found["multi_label"]
    assert [row.split(",")[:2] for row in rows[:3]] == [["0", "sport"], ["0", "news"], ["1", "sport"]]
    for row, true, chance in zip(
        rows, labelled.test.targets.flatten().tolist(), logits.sigmoid().flatten().tolist(), strict=True
    ):
        assert row.split(",")[2:] == [f"{true:.0f}", str(int(chance > 0.5)), f"{chance:.4f}"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        {"name": 3},
        {"name": "mine"},
        {"name": "mine", "measures": [{"name": "x"}]},
        {"task": "mine", "measures": []},
    ],
)
def test_what_does_not_name_a_task_and_its_measures_tells_nothing(content):
    assert RecordedTask.from_json(content) is None
    own = RecordedTask.of(Regression())
    assert RecordedTask.from_json(json.loads(json.dumps(own.to_json()))) == own
