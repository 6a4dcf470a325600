"""The page of a run: its sections, its sentences, and the escaping of foreign text."""

import json
import os
from html.parser import HTMLParser

import pytest

from nas.errors import InvalidValue
from nas.report.comparison import comparison, outcome, write_comparison
from nas.report.measured_swaps import SwapSettings, measure_swaps
from nas.report.page import outcome_line, page, write_page, write_page_if_possible
from nas.report.recorded_run import CONFIGURATION, RecordedRun, changed_settings, default_configuration
from nas.report.rendering import POLICY, duration
from tests.report.conftest import CANDIDATE, write_curves

SECTIONS = (
    *("architecture", "why", "hyperparameters", "choices", "progress", "losses", "gap", "gradients", "retraining"),
    *("configuration", "environment", "commands"),
)
VOID = {"meta", "link", "br", "wbr", "hr", "img", "input"}


class Document(HTMLParser):
    """Checks that every element is closed and collects what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open and self.open[-1] != "style":
            self.texts.append(data)


def document_of(folder):
    return Document(page(RecordedRun.read(folder)))


def test_every_section_is_there_and_nothing_asks_for_another_file(run_folder):
    document = document_of(run_folder())
    assert [name for name in document.ids if name in SECTIONS] == list(SECTIONS)
    assert len(set(document.ids)) == len(document.ids)
    for tag, name, value in document.attributes:
        assert tag not in ("script", "iframe", "object", "embed")
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "data"):
            assert value.startswith(("#", "data:"))
    assert ("meta", "content", POLICY) in document.attributes


def test_what_is_not_recorded_is_said_in_a_sentence(run_folder, tmp_path):
    folder = tmp_path / "begun"
    write_curves(folder / "metrics.csv", {"train/loss": [(10, 0, 2.0)]})
    text = " ".join(document_of(folder).texts)
    assert "Not finished: 10 steps so far." in text
    assert "There is no candidate.json yet" in text
    assert "No gradient norms were recorded." in text
    assert "This run did not record its environment." in text


def test_the_outcome_before_and_after_the_retraining(run_folder):
    folder = run_folder()
    assert outcome_line(RecordedRun.read(folder)) == (
        "An architecture for digits, found in 2 min 5 s; not retrained yet."
    )
    (folder / "final").mkdir()
    write_curves(folder / "final" / "metrics.csv", {"train/loss": [(10, 0, 2.0)]})
    (folder / "final" / "result.json").write_text(json.dumps({"test_accuracy": 0.9875, "parameters": 12345}))
    assert outcome_line(RecordedRun.read(folder)) == (
        "98.75 % test accuracy with 12,345 parameters on digits, found in 2 min 5 s."
    )


def test_a_retraining_in_a_folder_of_its_own_says_nothing_of_the_search(tmp_path):
    write_curves(tmp_path / "metrics.csv", {"train/loss": [(10, 0, 2.0)]})
    write_curves(tmp_path / "timing.csv", {"time/total_seconds": [(10, 0, 90.0)]})
    (tmp_path / "result.json").write_text(
        json.dumps({"test_accuracy": 0.9875, "parameters": 12345, "candidate": CANDIDATE})
    )
    run, document = RecordedRun.read(tmp_path), document_of(tmp_path)
    assert outcome_line(run) == "98.75 % test accuracy with 12,345 parameters on digits."
    assert [name for name in document.ids if name in SECTIONS] == [
        *("architecture", "hyperparameters", "retraining", "configuration", "environment", "commands")
    ]
    text = " ".join(document.texts)
    assert "training time" in text
    for of_searches in ("search time", "recorded nothing", "train_search.py", "nas.report why", "Not retrained"):
        assert of_searches not in text
    assert outcome(run, run.task.main)["seconds"] is None


def test_what_was_typed_stands_apart_from_what_goes_along_with_it(run_folder):
    folder = run_folder()
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(["++space=recurrent", "seed=7", "training=recurrent"]))
    (folder / "environment.json").write_text(
        json.dumps([{"command": "python train_search.py -m space=recurrent seed=7,8"}, {"command": "... resume=x"}])
    )
    texts = document_of(folder).texts
    assert "++space=recurrent seed=7" in texts
    assert "Taken along with them: training=recurrent" in texts
    for command in (None, 3, "'"):
        (folder / "environment.json").write_text(json.dumps([{"command": command}] if command else []))
        assert "++space=recurrent seed=7 training=recurrent" in document_of(folder).texts


def test_a_learned_value_is_called_a_mean(run_folder):
    mean = "Of dropout it is the mean over the last half of the search's steps"
    assert mean not in " ".join(document_of(run_folder()).texts)
    folder = run_folder(candidate=CANDIDATE | {"trajectory": {"dropout": [0.3, 0.2]}})
    assert mean in " ".join(document_of(folder).texts)
    write_curves(folder / "metrics.csv", {"train/loss": [(10, 0, 2.0)]})  # ended before its values were recorded
    assert "Learned: dropout. The search was too short for a curve." in document_of(folder).texts


def test_every_retraining_has_a_column_and_a_row_in_the_gap(run_folder):
    folder = run_folder()
    for name, accuracy, source in (("final", 0.9875, "learned"), ("final_fixed", 0.9625, "fixed")):
        write_curves(folder / name / "metrics.csv", {"train/loss": [(10, 0, 2.0)]})
        (folder / name / ".hydra").mkdir()
        (folder / name / ".hydra" / "config.yaml").write_text(json.dumps({"candidate": str(folder)}))
        result = {"test_accuracy": accuracy, "parameters": 12345, "hyperparameters_from": source}
        (folder / name / "result.json").write_text(json.dumps(result))
    texts = document_of(folder).texts
    place = texts.index("test accuracy", texts.index("Retraining", texts.index("Gradient norms") + 2))
    assert texts[place : place + 3] == ["test accuracy", "98.75 %", "96.25 %"]
    assert texts[texts.index("hyperparameters", place) :][:3] == ["hyperparameters", "learned", "fixed"]
    assert "discretised and retrained from scratch (final_fixed)" in texts
    assert outcome_line(RecordedRun.read(folder)).startswith("98.75 % test accuracy")


def test_the_discretisation_gap_lists_supernet_discretised_and_retrained(run_folder):
    folder = run_folder()
    gap = {"supernet": {"loss": 0.5, "accuracy": 0.8}, "discretised": {"loss": 1.5, "accuracy": 0.4}}
    (folder / "discretisation.json").write_text(json.dumps(gap))
    text = " ".join(document_of(folder).texts)
    assert "80.00 %" in text
    assert "40.00 %" in text


EVIL = '<script>alert(1)</script><img src="http://evil.example/x">"&\'$\\frac{'


def test_a_policy_s_page_tells_probabilities_and_what_was_seen_and_promises_no_swap_in_a_supernet(run_folder):
    folder = run_folder()
    (folder / "metrics.csv").write_text(
        (folder / "metrics.csv").read_text().replace("hyperparameters/", "other/")  # none moves within a round
    )
    line = {"candidate": {"architecture": CANDIDATE["architecture"]}, "metrics": {"accuracy": 0.75}}
    (folder / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    text = " ".join(document_of(folder).texts)
    assert "0.600" in text  # 16 filters over 8
    assert "75.00 %" in text
    assert "Searched together with the architecture: learning_rate, dropout." in text
    assert "nas.report why" not in text
    assert "supernet, " not in text.partition("Hyperparameters")[0]
    with pytest.raises(InvalidValue, match="it must hold a finished search by gradient"):
        measure_swaps(folder, SwapSettings())


def test_foreign_text_is_escaped_wherever_it_comes_from(run_folder):
    curves = {
        "train/loss": [(10, 0, 1.0), (20, 1, 0.5)],
        f"hyperparameters/{EVIL}": [(10, 0, 1.0), (20, 1, 2.0)],
        f"probability/{EVIL}/{EVIL}": [(10, 0, 1.0)],
        f"gradient/{EVIL}": [(10, 0, 1.0), (20, 1, 0.5)],
        f"entropy/{EVIL}": [(10, 0, 1.0), (20, 1, 0.5)],
        f"intervention/{EVIL}": [(10, 0, 1.0)],
    }
    folder = run_folder(curves)
    (folder / "environment.json").write_text(json.dumps([{"command": EVIL, EVIL: EVIL, "packages": {EVIL: EVIL}}]))
    (folder / ".hydra" / "config.yaml").write_text(json.dumps({EVIL: EVIL, "seed": EVIL}))
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([EVIL]))
    explained = {"choices": {"layer1.filters": {"runner_up": EVIL}}, "about": EVIL}
    (folder / "explanation.json").write_text(json.dumps(explained))
    html = page(RecordedRun.read(folder))
    assert "<script" not in html
    assert "<img" not in html
    document = Document(html)
    assert any("alert(1)" in text for text in document.texts)
    assert not any(name.startswith("on") for _, name, _ in document.attributes)


@pytest.mark.parametrize("content", ["[]", "null", '{"supernet": 3, "discretised": {"accuracy": "much"}}', "{"])
@pytest.mark.parametrize("name", ["discretisation", "explanation", "result", "environment"])
def test_files_of_the_wrong_shape_do_not_stop_the_page(run_folder, name, content):
    folder = run_folder()
    (folder / f"{name}.json").write_text(content)
    document_of(folder)


def test_a_run_s_name_is_escaped_on_its_page_and_in_a_comparison(run_folder):
    folder = run_folder()
    run = RecordedRun.read(folder.rename(folder.with_name("<script>alert(1)")))
    for html in (page(run), comparison([run])):
        assert "<script" not in html
        assert any("<script>alert(1)" in text for text in Document(html).texts)


def test_a_folder_that_is_not_called_in_utf_8_is_on_its_page_and_in_a_comparison(run_folder):
    folder = run_folder()
    folder = folder.rename(folder.with_name(os.fsdecode(b"m\xe4rz")))
    for written in (write_page(folder), write_comparison([folder])):
        assert r"m\xe4rz" in written.read_text()


def test_the_page_is_written_beside_the_run_and_a_failure_does_not_end_it(run_folder, tmp_path, capsys):
    folder = run_folder()
    assert write_page(folder) == folder / "report.html"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert write_page_if_possible(tmp_path / "nothing") is None
    assert "the page could not be written: InvalidValue" in capsys.readouterr().err


def test_a_foreign_candidate_is_a_problem_on_the_page(run_folder):
    folder = run_folder(candidate={**CANDIDATE, "architecture": {"layer1.filters": EVIL}})
    html = page(RecordedRun.read(folder))
    assert "<script" not in html
    assert "is not allowed" in html


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not readable JSON"),
        (json.dumps(CANDIDATE | {"schema": 7}), "schema=7 is not allowed: it must be from 1 to 2."),
        (json.dumps(CANDIDATE | {"hyperparameters": [1]}), "it must be an object of numbers"),
        (b"\xff\xfe", "is not readable JSON"),
    ],
)
def test_a_candidate_that_cannot_be_read_is_not_called_unfinished(run_folder, content, problem):
    folder = run_folder()
    (folder / "candidate.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    run = RecordedRun.read(folder)
    texts = document_of(folder).texts
    (told,) = (text for text in texts if text.startswith("candidate.json cannot be read: "))
    assert problem in told
    assert [told] == run.problems
    assert outcome_line(run) == "What was found cannot be read."
    assert texts.count("The candidate cannot be read; at the top of this page stands what is wrong with it.") == 2
    assert not any("Not finished" in text or "no candidate" in text for text in texts)


def test_changed_settings_are_those_that_differ():
    default = {"seed": 0, "search": {"epochs": 4, "stop": "epochs"}, "gone": [1]}
    config = {"seed": 3, "search": {"epochs": 4, "stop": "settled"}, "new": {"a": None}}
    assert [tuple(change) for change in changed_settings(config, default)] == [
        ("seed", "0", "3"),
        ("search.stop", "epochs", "settled"),
        ("new.a", None, "null"),
        ("gone", "[1]", None),
    ]


def test_the_default_configuration_is_composed_without_disturbing_a_running_application():
    from hydra import compose, initialize_config_dir

    default_configuration.cache_clear()
    with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        default = default_configuration("train_search")
        assert compose("train_search").seed == default["seed"] == 0


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (125, "2 min 5 s"), (12000, "3 h 20 min")])
def test_durations_are_told_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text
