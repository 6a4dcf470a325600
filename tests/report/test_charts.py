import pytest

from nas.report import charts
from nas.report.colours import OPERATION_COLOURS
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
        "intervention/clipped_rate": [(5, 0, 0.0), (7, 0, 2.0), (17, 1, 1.0)],
    }
    marks = charts.interventions(RecordedRun.read(run_folder(curves)))
    assert [(mark.x, mark.name) for mark in marks] == [(0.7, "clipped rate"), (1.3, "restart"), (1.7, "clipped rate")]


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
