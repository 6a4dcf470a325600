"""The charts of a run hold its recorded curves."""

import json

import pytest

from nas.report import charts
from nas.report.colours import OPERATION_COLOURS
from nas.report.explanation import observed_options
from nas.report.recorded_run import RecordedRun
from tests.report.conftest import PROBABILITIES, by_epoch


def points(chart):
    return {line.name: list(zip(line.xs, line.ys, strict=True)) for line in chart.lines}


def test_the_losses_and_accuracies_of_both_levels_by_epoch(run_folder):
    loss, accuracy = charts.losses(RecordedRun.read(run_folder()))
    assert points(loss) == {
        "lower level, training split": [(1, 2.0), (2, 1.5), (3, 1.0), (4, 0.5)],
        "upper level, validation split": [(1, 2.1), (2, 1.4), (3, 1.1), (4, 0.7)],
    }
    assert points(accuracy)["upper level, validation split"] == [(1, 0.3), (2, 0.5), (3, 0.8), (4, 0.75)]
    assert loss.x_label == "epoch"
    assert len({line.colour for line in loss.lines}) == 2


def test_learned_hyperparameters_are_drawn_on_their_own_scale_and_fixed_ones_are_not(run_folder):
    some = {chart.title: chart for chart in charts.hyperparameters(RecordedRun.read(run_folder()))}
    assert list(some) == ["learning_rate", "dropout"]
    assert some["learning_rate"].scale == "log"
    assert some["dropout"].scale == "linear"
    assert points(some["learning_rate"])["learning_rate"] == [(0.5, 0.01), (1.5, 0.02), (2.5, 0.04), (3.5, 0.05)]


def test_every_intervention_is_marked_where_it_happened(run_folder):
    curves = {
        "train/loss": by_epoch([1.0, 1.0]),
        "guard/restart": [(13, 1, 1.0)],
        "guard/restarts": by_epoch([0, 1]),
        "intervention/trust_region": [(10, 0, 0.0), (20, 1, 2.0), (30, 2, 2.0), (40, 3, 3.0)],
    }
    marks = charts.interventions(RecordedRun.read(run_folder(curves)))
    assert [(mark.x, mark.name) for mark in marks] == [
        (1.3, "restart of the weights"),
        (2, "trust region"),
        (4, "trust region"),
    ]


def test_the_areas_are_the_recorded_probabilities_in_the_colours_of_the_operations(run_folder):
    some = charts.probabilities(RecordedRun.read(run_folder()))
    assert [chart.title for chart in some] == ["layer1.filters", "layer2.kind"]
    for chart in some:
        assert chart.kind == "areas"
        for line in chart.lines:
            assert line.xs == (1, 2, 3, 4)
            assert list(line.ys) == PROBABILITIES[f"{chart.title}/{line.name}"]
        assert [sum(ys) for ys in zip(*(line.ys for line in chart.lines), strict=True)] == pytest.approx([1.0] * 4)
    assert [line.colour for line in some[1].lines] == [OPERATION_COLOURS["max"], OPERATION_COLOURS["average"]]


def test_gradient_norms_share_a_logarithmic_axis(run_folder):
    (chart,) = charts.gradient_norms(RecordedRun.read(run_folder()))
    assert chart.scale == "log"
    assert points(chart)["architecture"] == [(1, 0.01), (2, 0.02), (3, 0.01), (4, 0.005)]


def test_a_black_box_search_shows_every_candidate_the_best_so_far_and_its_rounds(run_folder):
    rounds = {
        "best/score": [(2, 0, 0.6), (4, 1, 0.8)],
        "best/accuracy": [(2, 0, 0.6), (4, 1, 0.8)],
        "population/score_mean": [(2, 0, 0.5), (4, 1, 0.65)],
        "population/diversity": [(2, 0, 0.9), (4, 1, 0.4)],
        "population/size": [(2, 0, 2), (4, 1, 2)],  # the same all along: no chart
        "policy/entropy": [(2, 0, 3.0), (4, 1, 1.0)],
        "budget/samples": [(2, 0, 1000), (4, 1, 2000)],
        "budget/evaluations": [(2, 0, 2), (4, 1, 4)],
    }
    folder = run_folder(rounds)
    with (folder / "evaluations.jsonl").open("w") as file:
        for filters, accuracy in (("8", 0.4), ("16", 0.6), ("16", 0.5), ("16", 0.8)):
            architecture = {"layer1.filters": filters, "layer2.kind": "max"}
            line = {"candidate": {"architecture": architecture}, "metrics": {"accuracy": accuracy, "loss": "nan"}}
            file.write(json.dumps(line) + "\n")
        file.write('{"candidate": 3}\n{"cut of')
    run = RecordedRun.read(folder)
    assert run.problems == ["2 lines of evaluations.jsonl cannot be read and were left out."]
    (every,) = charts.evaluated(run)
    assert points(every)["candidate"] == [(1, 0.4), (2, 0.6), (3, 0.5), (4, 0.8)]
    assert points(every)["best so far"][-1] == (4, 0.8)
    assert max(y for x, y in points(every)["best so far"] if x == 3) == 0.6
    scores, diversity, entropy = charts.population(run)
    assert points(scores) == {"best of all": [(2, 0.6), (4, 0.8)], "mean of the round": [(2, 0.5), (4, 0.65)]}
    assert (diversity.title, entropy.title) == ("population: diversity", "policy: entropy")
    assert scores.x_label == "evaluation"
    assert charts.anytime_curve(run) == ([1000, 2000], [0.6, 0.8])
    eights, sixteens = reversed(observed_options(run)["layer1.filters"])
    assert (eights.option, eights.count, eights.mean) == ("8", 1, 0.4)
    assert (sixteens.option, sixteens.count, sixteens.mean) == ("16", 3, pytest.approx(1.9 / 3))
    filters = charts.shares(run)[0]
    assert points(filters) == {"8": [(4, 0.25)], "16": [(4, 0.75)]}


def test_values_that_are_not_finite_are_left_out(run_folder):
    curves = {"train/loss": [(10, 0, "nan"), (20, 1, 1.0), (30, 2, "inf")], "gradient/weights": by_epoch([0.0, 0.0])}
    run = RecordedRun.read(run_folder(curves))
    assert points(charts.losses(run)[0]) == {"lower level, training split": [(2, 1.0)]}
    assert charts.gradient_norms(run)[0].scale == "linear"  # nothing above 0 to take a logarithm of


def test_a_run_without_epochs_is_drawn_over_its_steps(run_folder):
    run = RecordedRun.read(run_folder({"step/training_loss": [(5, 0, 1.0), (10, 0, 0.5)]}))
    (chart,) = charts.step_losses(run)
    assert chart.x_label == "step"
    assert points(chart) == {"training batch": [(5, 1.0), (10, 0.5)]}


def test_what_was_not_recorded_makes_no_chart(run_folder):
    run = RecordedRun.read(run_folder({}))
    every = [charts.losses, charts.step_losses, charts.hyperparameters, charts.probabilities, charts.entropies]
    for some in [*every, charts.gradient_norms, charts.retraining]:
        assert some(run) == []
