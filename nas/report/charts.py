"""The charts of a run's page as data: recorded curves with their colours and marks. Drawing is done elsewhere."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from nas.report.colours import BLUE, GREY, SERIES_COLOURS, option_colours
from nas.report.predictions import Predictions
from nas.report.recorded_run import Curve, RecordedRun
from nas.tasks import Measure

MOST_TARGETS, MOST_DOTS = 12, 400  # of a picture of predictions


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points, all finite, and its colour (#RRGGBB)."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """An event at a place of the horizontal axis."""

    x: float
    name: str


@dataclass(frozen=True)
class Chart:
    """A diagram: ``lines`` over one axis, or ``areas`` stacked from 0 upwards in the order of the lines.

    With ``points``, the first line is drawn as unconnected points.
    """

    title: str
    lines: tuple[Line, ...]
    x_label: str
    kind: Literal["lines", "areas", "points"] = "lines"
    scale: Literal["linear", "log"] = "linear"
    marks: tuple[Mark, ...] = ()


def losses(run: RecordedRun) -> list[Chart]:
    """Losses of both levels by epoch, and what the task glances at in every step."""
    charts = []
    for quantity in ("loss", run.task.glanced):
        named = {
            "lower level, training split": f"train/{quantity}",
            "upper level, validation split": f"validation/{quantity}",
        }
        charts += _chart(run, capitalised(quantity.replace("_", " ")), named, marks=interventions(run))
    return charts


def step_losses(run: RecordedRun) -> list[Chart]:
    """Losses of single steps, unless one or none was recorded."""
    named = {"training batch": "step/training_loss", "validation batch": "step/validation_loss"}
    if all(len(run.curves[tag].steps) < 2 for tag in named.values() if tag in run.curves):
        return []
    return _chart(run, "Loss, step by step", named, marks=interventions(run))


def hyperparameters(run: RecordedRun) -> list[Chart]:
    """A chart per hyperparameter that was learned or moved, with every intervention marked."""
    charts = []
    for tag in run.tags("hyperparameters/"):
        name = tag.removeprefix("hyperparameters/")
        moved = len(set(run.curves[tag].values)) > 1
        if not moved and run.setting(f"hyperparameters.{name}.learn") is not True:
            continue
        charts += _chart(run, name, {name: tag}, scale=hyperparameter_scale(run, name), marks=interventions(run))
    return charts


def hyperparameter_scale(run: RecordedRun, name: str) -> Literal["linear", "log"]:
    """The scale on which the run updates the hyperparameter."""
    return "log" if run.setting(f"hyperparameters.{name}.scale") == "log" else "linear"


def interventions(run: RecordedRun) -> tuple[Mark, ...]:
    """The interventions of guards: the places where ``guard/restart`` or a count ``intervention/<kind>`` rises."""
    marks = []
    for tag, curve in run.curves.items():
        if tag == "guard/restart" or tag.startswith("intervention/"):
            kind = "restart of the weights" if tag == "guard/restart" else tag.removeprefix("intervention/")
            before = 0.0
            for step, count in zip(curve.steps, curve.values, strict=True):
                if count > before:
                    marks.append(Mark(run.place(step), kind.replace("_", " ")))
                before = count
    return tuple(sorted(marks, key=lambda mark: mark.x))


def probabilities(run: RecordedRun) -> list[Chart]:
    """A chart per row of alpha: the probabilities of its options as stacked areas."""
    charts = []
    for row, options in run.probabilities().items():
        colours = option_colours(list(options))
        lines = tuple(Line(option, *points(run, curve), colours[option]) for option, curve in options.items())
        charts.append(Chart(row, lines, x_label(run), kind="areas"))
    return charts


def entropies(run: RecordedRun) -> list[Chart]:
    """The entropy of each choice: 1 is undecided, 0 is decided."""
    curves = {tag.removeprefix("entropy/"): run.curves[tag] for tag in run.tags("entropy/")}
    lines = [numbered_line(place, name, *points(run, curve)) for place, (name, curve) in enumerate(curves.items())]
    return [Chart("Entropy of each choice", tuple(lines), x_label(run))] if lines else []


def schedules(run: RecordedRun) -> list[Chart]:
    """A chart per number of the supernet that follows a schedule, such as the weight of the auxiliary skips."""
    named = {tag.removeprefix("schedule/").replace("_", " "): tag for tag in run.tags("schedule/")}
    return [chart for name, tag in named.items() for chart in _chart(run, f"Weight of the {name}", {name: tag})]


def gradient_norms(run: RecordedRun) -> list[Chart]:
    """Norms of the gradients of weights, alpha and hyperparameters on one logarithmic axis."""
    named = {tag.removeprefix("gradient/"): tag for tag in run.tags("gradient/")}
    return _chart(run, "Gradient norms, means of an epoch", named, scale="log", marks=interventions(run))


def retraining(run: RecordedRun) -> list[Chart]:
    """Loss, what is glanced at, and learning rate of a retraining; what it says of test samples against the truth."""
    charts = []
    for quantity in ("loss", run.task.glanced):
        named = {"training": f"train/{quantity}", "held out": f"validation/{quantity}"}
        charts += _chart(run, capitalised(quantity.replace("_", " ")), named)
    charts += _chart(run, "Learning rate", {"learning rate": "hyperparameters/learning_rate"})
    return charts + [against_the_truth(*entry) for entry in list(run.predictions.items())[:MOST_TARGETS]]


def against_the_truth(target: str, found: Predictions) -> Chart:
    """What was said against what is true, and the line on which all would lie that was said rightly."""
    stride = -(-len(found.true) // MOST_DOTS)
    lowest, highest = min(*found.true, *found.predicted), max(*found.true, *found.predicted)
    dots = Line("test sample", tuple(found.true[::stride]), tuple(found.predicted[::stride]), BLUE)
    line = Line("predicted = true", (lowest, highest), (lowest, highest), GREY, dashed=True)
    return Chart(f"Predicted against true: {target}", (dots, line), f"true {target}", kind="points")


LOSS = Measure("loss", "lower", "loss")


def _tags(measure: Measure) -> tuple[str, str]:
    """The tags of a measure on the way; the first that a run has is taken."""
    return f"best/{measure.name}", f"validation/{measure.name}"


def anytime_measure(runs: Sequence[RecordedRun]) -> Measure:
    """What the anytime curves of ``runs``, which have one task, are of.

    That is the main measure. Where a run records its loss only, as a gradient search does whose task glances at
    another number, it is the loss.
    """

    def has(run: RecordedRun, measure: Measure) -> bool:
        return any(tag in run.curves for tag in _tags(measure))

    main = runs[0].task.main
    return LOSS if any(has(run, LOSS) and not has(run, main) for run in runs) else main


def anytime_curve(run: RecordedRun, measure: Measure | None = None) -> tuple[list[float], list[float]] | None:
    """Samples spent and the best of ``measure`` so far; None if the run lacks either record or spends no samples.

    Args:
        run: The run.
        measure: By default that of :func:`anytime_measure`.
    """
    measure = measure or anytime_measure([run])
    samples = run.curves.get("budget/samples")
    tag = next((tag for tag in _tags(measure) if tag in run.curves), None)
    if samples is None or tag is None or samples.values[-1] == 0:  # a look-up in a table costs no samples
        return None
    spent = dict(zip(samples.steps, samples.values, strict=True))
    xs, ys = [], []
    better = max if measure.better == "higher" else min
    best = -math.inf if measure.better == "higher" else math.inf
    for step, value in zip(run.curves[tag].steps, run.curves[tag].values, strict=True):
        best = better(best, value) if math.isfinite(value) else best
        if step in spent and math.isfinite(best):
            xs.append(spent[step])
            ys.append(best)
    return (xs, ys) if xs else None


def anytime_charts(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[Chart]:
    """The best of :func:`anytime_measure` so far against the samples spent: a line per run, in steps."""
    measure, lines = anytime_measure(runs), []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        curve = anytime_curve(run, measure)
        if curve is not None:
            lines.append(numbered_line(place, name, *_stairs(*curve)))
    return [Chart(f"Best validation {measure.words} so far", tuple(lines), "samples spent")] if lines else []


def _stairs(xs: Sequence[float], ys: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The points with a corner before each change."""
    points = [(xs[0], ys[0])]
    for (_, before), (x, y) in pairwise(zip(xs, ys, strict=True)):
        points += [(x, before), (x, y)]
    return tuple(x for x, _ in points), tuple(y for _, y in points)


def evaluated(run: RecordedRun) -> list[Chart]:
    """The main measure of every candidate of a black-box search, and the best so far."""
    main = run.task.main
    scores = [one.metrics[main.name] for one in run.evaluations if main.name in one.metrics]
    if not scores:
        return []
    xs = tuple(float(place) for place in range(1, len(scores) + 1))
    every = Line("candidate", xs, tuple(scores), GREY)
    best = Line("best so far", *_stairs(xs, list(accumulate(scores, max if main.better == "higher" else min))), BLUE)
    return [Chart(f"{capitalised(main.words)} of every candidate", (every, best), "evaluation", kind="points")]


def population(run: RecordedRun) -> list[Chart]:
    """The records of a black-box search about its rounds: scores, diversity, sizes, a policy's entropy and baseline."""
    scores = {
        "best of all": "best/score",
        "best of the population": "population/best_score",
        "mean of the population": "population/mean_score",
        "mean of the round": "population/score_mean",
    }
    charts = _chart(run, "Scores", scores)
    known = {*scores.values(), "population/score_std", "population/failed"}
    for prefix in ("population/", "policy/", "study/"):
        for tag in run.tags(prefix):
            if tag not in known and len(set(run.curves[tag].values)) > 1:
                charts += _chart(run, tag.replace("/", ": ").replace("_", " "), {tag: tag})
    return charts


WINDOWS = 20  # the options of candidates are counted over one part in so many of the search


def shares(run: RecordedRun) -> list[Chart]:
    """A chart per choice: the share of each option among the latest candidates as stacked areas."""
    if run.found is None or not run.evaluations:
        return []
    window = max(10, len(run.evaluations) // WINDOWS)
    places = range(min(window, len(run.evaluations)), len(run.evaluations) + 1)
    charts = []
    for choice in run.found.space.choices:
        chosen = [one.options.get(choice.name) for one in run.evaluations]
        colours = option_colours(choice.options)
        lines = []
        for option in choice.options:
            counted = [0, *accumulate(int(one == option) for one in chosen)]
            ys = tuple((counted[end] - counted[max(end - window, 0)]) / min(window, end) for end in places)
            lines.append(Line(option, tuple(map(float, places)), ys, colours[option]))
        charts.append(Chart(choice.name, tuple(lines), "evaluation", kind="areas"))
    return charts


def capitalised(words: str) -> str:
    """``Accuracy``, but ``RMSE`` and ``mAP`` as they are."""
    return words.capitalize() if words.islower() else words


def x_label(run: RecordedRun) -> str:
    """The name of the horizontal axis: the unit in which the run counts."""
    return "epoch" if run.steps_per_epoch else "evaluation" if "budget/evaluations" in run.curves else "step"


def _chart(
    run: RecordedRun,
    title: str,
    named: Mapping[str, str],
    scale: Literal["linear", "log"] = "linear",
    marks: tuple[Mark, ...] = (),
) -> list[Chart]:
    """A chart of those tags in ``named`` (name of the line to tag) that were recorded; no chart if none was."""
    there = {name: run.curves[tag] for name, tag in named.items() if tag in run.curves}
    lines = tuple(numbered_line(place, name, *points(run, there[name])) for place, name in enumerate(there))
    if scale == "log" and not any(y > 0 for line in lines for y in line.ys):
        scale = "linear"
    return [Chart(title, lines, x_label(run), scale=scale, marks=marks)] if lines else []


def numbered_line(place: int, name: str, xs: tuple[float, ...], ys: tuple[float, ...]) -> Line:
    """The line at ``place`` (from 0) among others: each in another colour, dashed once all colours are in use."""
    count = len(SERIES_COLOURS)
    return Line(name, xs, ys, SERIES_COLOURS[place % count], dashed=place >= count)


def points(run: RecordedRun, curve: Curve) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The horizontal places and the values of ``curve``, without those that are not finite."""
    finite = [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)]
    return tuple(run.place(step) for step, _ in finite), tuple(value for _, value in finite)


def have_the_same_lines(charts: Sequence[Chart]) -> bool:
    """Whether one legend serves all ``charts``."""
    return len({tuple(line.name for line in chart.lines) for chart in charts}) == 1
