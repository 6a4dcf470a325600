"""The page that compares several runs."""

import json
import shutil

import pytest

from nas.errors import InvalidValue
from nas.report import comparison as compared
from nas.report.charts import anytime_charts, anytime_curve, anytime_measure
from nas.report.recorded_run import RecordedRun
from tests.report.conftest import CANDIDATE, by_epoch, write_curves
from tests.report.test_page import Document


@pytest.fixture
def two_runs(run_folder, tmp_path):
    """Seeds 7 and 8 of one configuration, as a multirun leaves them."""
    folder = run_folder()
    sweep = tmp_path / "sweep"
    for number, seed in enumerate((7, 8)):
        one = sweep / str(number)
        shutil.copytree(folder, one)
        config = (one / ".hydra" / "config.yaml").read_text().replace("seed: 7", f"seed: {seed}")
        (one / ".hydra" / "config.yaml").write_text(config)
        (one / "final").mkdir()
        write_curves(one / "final" / "metrics.csv", {"train/loss": by_epoch([1.0])})
        result = {"test_accuracy": 0.97 + 0.02 * number, "parameters": 1000 * (number + 1)}
        (one / "final" / "result.json").write_text(json.dumps(result))
    return sweep


def test_hyperparameters_that_were_learned_too_briefly_for_a_curve_are_named(run_folder):
    brief = {**CANDIDATE, "trajectory": {"dropout": [0.3, 0.2]}}
    for candidate, said in ((brief, "Learned in run. The search was too short"), (CANDIDATE, "No run has learned any")):
        texts = Document(compared.comparison([RecordedRun.read(run_folder({}, candidate))])).texts
        assert any(said in text for text in texts), said


def test_a_multirun_stands_for_its_runs_in_their_order(two_runs):
    for name in ("10", "2"):
        shutil.copytree(two_runs / "0", two_runs / name)
    runs = compared.found_runs([two_runs])
    assert [run.folder.name for run in runs] == ["0", "1", "2", "10"]
    assert compared.run_names(runs) == ["0", "1", "2", "10"]
    both = [*runs, RecordedRun.read(two_runs.parent / "run")]
    assert compared.run_names(both)[-1] == "run"


def test_a_run_that_is_named_twice_counts_once(two_runs):
    runs = compared.found_runs([two_runs / "0", two_runs, two_runs / ".." / "sweep" / "1"])
    assert compared.run_names(runs) == ["0", "1"]


def test_the_runs_of_a_multirun_are_named_by_what_differs_in_them(two_runs):
    for number, method in enumerate(("random", "tpe")):
        overrides = two_runs / str(number) / ".hydra" / "overrides.yaml"
        overrides.write_text(json.dumps(["data=digits", f"method={method}"]))
    runs = compared.found_runs([two_runs, two_runs.parent / "run"])
    assert compared.run_names(runs) == ["0 method=random", "1 method=tpe", "run"]


def test_the_outcomes_of_a_run(two_runs):
    runs = compared.found_runs([two_runs])
    assert compared.outcome_columns(runs)[4:6] == ["test accuracy", "best validation accuracy"]
    assert compared.outcome(runs[1], anytime_measure(runs)) == {
        "test": 0.99,
        "best": 0.8,
        "parameters": 2000,
        "samples": 4000,
        "seconds": 125,
    }


def test_the_anytime_curve_never_falls_and_rises_in_steps(two_runs):
    runs = compared.found_runs([two_runs])
    assert anytime_curve(runs[0]) == ([1000, 2000, 3000, 4000], [0.3, 0.5, 0.8, 0.8])
    (chart,) = anytime_charts(runs, ["a", "b"])
    assert chart.lines[0].xs == (1000, 2000, 2000, 3000, 3000, 4000, 4000)
    assert chart.lines[0].ys == (0.3, 0.3, 0.5, 0.5, 0.8, 0.8, 0.8)


def test_runs_that_differ_in_their_seed_are_one_group(two_runs):
    runs = compared.found_runs([two_runs])
    assert compared.groups(runs) == [[0, 1]]
    html = compared.comparison(runs)
    assert "98.00 ± 1.41" in html
    assert "What was set differently" in html


def test_hyperparameters_side_by_side(two_runs):
    charts = compared.hyperparameter_charts(compared.found_runs([two_runs]), ["a", "b"])
    assert [chart.title for chart in charts] == ["learning_rate", "dropout"]
    assert [line.name for line in charts[0].lines] == ["a", "b"]
    assert charts[0].scale == "log"


def test_the_page_is_whole_and_lies_beside_the_runs(two_runs):
    path = compared.write_comparison([two_runs])
    assert path == two_runs / "comparison.html"
    document = Document(path.read_text())
    assert len(set(document.ids)) == len(document.ids)
    assert {"outcomes", "anytime", "hyperparameters", "architectures", "settings", "commands"} <= set(document.ids)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="run folder"):
        compared.found_runs([tmp_path])
