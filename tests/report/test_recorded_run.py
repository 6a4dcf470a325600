"""Reading a run folder, damaged files included."""

import json

import pytest

from nas.errors import InvalidValue
from nas.evaluation.network_cost import AUXILIARY
from nas.report.recorded_run import RecordedRun
from tests.report.conftest import CANDIDATE, PROBABILITIES, write_curves


def test_a_run_folder_is_read_whole(run_folder):
    run = RecordedRun.read(run_folder())
    assert run.problems == []
    assert run.curves["train/loss"] == ([10, 20, 30, 40], [2.0, 1.5, 1.0, 0.5])
    assert run.last("time/total_seconds") == 125
    assert run.steps_per_epoch == 10
    assert run.place(25) == 2.5
    assert run.overrides == ["seed=7"]
    assert run.setting("hyperparameters.dropout.scale") == "logit"
    assert run.setting("hyperparameters.dropout.nothing.there") is None
    assert dict(run.found.candidate.architecture) == CANDIDATE["architecture"]
    assert run.retrainings == {}
    assert run.retraining is None


def test_the_history_of_probabilities_has_a_table_per_epoch(run_folder):
    history = list(RecordedRun.read(run_folder()).probability_history())
    assert [step for step, _ in history] == [10, 20, 30, 40]
    for index, (_, table) in enumerate(history):
        flat = {f"{row}/{option}": value for row, options in table.items() for option, value in options.items()}
        assert flat == {tag: values[index] for tag, values in PROBABILITIES.items()}


def test_what_cannot_be_read_is_told_and_left_out(run_folder):
    folder = run_folder()
    with (folder / "metrics.csv").open("a") as file:
        file.write("x,0,train/loss,1.0\n41,0,train/loss,much\n42\n")
    (folder / "candidate.json").write_text("{")
    (folder / "environment.json").write_text("[" * 100_000)
    (folder / ".hydra" / "config.yaml").write_text("a: [")
    run = RecordedRun.read(folder)
    assert run.curves["train/loss"].values == [2.0, 1.5, 1.0, 0.5]
    assert run.found is None
    assert run.config == {}
    assert len(run.problems) == 4
    assert "3 rows of metrics.csv cannot be read and were left out." in run.problems


def test_values_that_are_no_numbers_stay_in_the_curve(run_folder):
    run = RecordedRun.read(run_folder({"train/loss": [(10, 0, "nan"), (20, 1, "inf")]}))
    assert str(run.curves["train/loss"].values) == "[nan, inf]"


def test_a_retraining_is_read_beside_its_search_and_alone(run_folder):
    folder = run_folder()
    final = folder / "final"
    final.mkdir()
    (final / "metrics.csv").write_text("step,epoch,tag,value\n10,0,train/loss,0.5\n")
    (final / "result.json").write_text(json.dumps({"test_accuracy": 0.9, "candidate": CANDIDATE}))
    run = RecordedRun.read(folder)
    assert run.retraining.result["test_accuracy"] == 0.9
    alone = RecordedRun.read(final)
    assert alone.retraining is alone
    assert alone.found.data == "digits"


def test_every_retraining_of_this_run_in_its_folder_is_read_the_usual_one_first(run_folder):
    folder = run_folder()
    named = {"a_fixed": str(folder), "final": None, "moved": "elsewhere/run", "of_another": "elsewhere/other"}
    for name, candidate in named.items():
        write_curves(folder / name / "metrics.csv", {"train/loss": [(10, 0, 0.5)]})
        (folder / name / ".hydra").mkdir()
        (folder / name / ".hydra" / "config.yaml").write_text(json.dumps({"candidate": candidate}))
    (folder / "a_fixed" / "result.json").write_text(json.dumps({"test_accuracy": 0.9, "seed": 3}))
    run = RecordedRun.read(folder)
    assert list(run.retrainings) == ["final", "a_fixed", "moved"]
    assert run.retraining is run.retrainings["final"]
    assert run.retrainings["a_fixed"].result["seed"] == 3


def test_a_retraining_of_another_candidate_is_not_this_run_s_wherever_it_lies(run_folder):
    folder = run_folder()
    own = json.loads((folder / "candidate.json").read_text())
    another = dict.fromkeys(own["architecture"], "another")
    for name, architecture in {"again": own["architecture"], "final": another}.items():
        write_curves(folder / name / "metrics.csv", {"train/loss": [(10, 0, 0.5)]})
        result = {"test_accuracy": 0.9, "candidate": {**own, "architecture": architecture}}
        (folder / name / "result.json").write_text(json.dumps(result))
    assert list(RecordedRun.read(folder).retrainings) == ["again"]


def test_a_result_that_counted_the_auxiliary_head_is_read_as_the_network_that_is_used(tmp_path, data_folder):
    """Results are compared with each other, whichever version wrote them."""
    candidate = json.loads((data_folder / "old_run" / "darts_candidate.json").read_text())
    (tmp_path / "candidate.json").write_text(json.dumps(candidate))
    for written, read in (({"parameters": 418_972}, 8_082), ({"parameters": 5, AUXILIARY: 410_890}, 5), ({}, None)):
        (tmp_path / "result.json").write_text(json.dumps({"test_accuracy": 0.5, **written}))
        run = RecordedRun.read(tmp_path)
        assert run.problems == []
        assert run.result.get("parameters") == read


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="run folder"):
        RecordedRun.read(tmp_path)
