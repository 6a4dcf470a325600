"""What the charts of a run's page show: which recorded curves, in which colour, with which marks; no drawing here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nas.report.colours import SERIES_COLOURS, option_colours
from nas.report.recorded_run import Curve, RecordedRun


@dataclass(frozen=True)
class Line:
    """One curve: its name, its points (those that are not finite are left out) and its colour (#RRGGBB)."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at one place of the horizontal axis."""

    x: float
    name: str


@dataclass(frozen=True)
class Chart:
    """A diagram: ``lines`` over one axis, or ``areas`` stacked from 0 upwards in the order of the lines."""

    title: str
    lines: tuple[Line, ...]
    x_label: str
    kind: Literal["lines", "areas"] = "lines"
    scale: Literal["linear", "log"] = "linear"
    marks: tuple[Mark, ...] = ()


def losses(run: RecordedRun) -> list[Chart]:
    """Both levels' losses and accuracies, epoch by epoch."""
    charts = []
    for quantity in ("loss", "accuracy"):
        named = {
            "lower level, training split": f"train/{quantity}",
            "upper level, validation split": f"validation/{quantity}",
        }
        charts += _chart(run, quantity.capitalize(), named, marks=interventions(run))
    return charts


def step_losses(run: RecordedRun) -> list[Chart]:
    """The losses of single steps."""
    named = {"training batch": "step/training_loss", "validation batch": "step/validation_loss"}
    return _chart(run, "Loss, step by step", named, marks=interventions(run))


def hyperparameters(run: RecordedRun) -> list[Chart]:
    """One chart per hyperparameter that was learned or that has moved, with every intervention on the way."""
    charts = []
    for tag in run.tags("hyperparameters/"):
        name = tag.removeprefix("hyperparameters/")
        moved = len(set(run.curves[tag].values)) > 1
        if not moved and run.setting(f"hyperparameters.{name}.learn") is not True:
            continue
        charts += _chart(run, name, {name: tag}, scale=hyperparameter_scale(run, name), marks=interventions(run))
    return charts


def hyperparameter_scale(run: RecordedRun, name: str) -> Literal["linear", "log"]:
    """The measure in which the run has the hyperparameter move."""
    return "log" if run.setting(f"hyperparameters.{name}.scale") == "log" else "linear"


def interventions(run: RecordedRun) -> tuple[Mark, ...]:
    """What a guard or a safety net did: ``guard/restart`` and every ``intervention/<kind>`` that is not zero."""
    marks = []
    for tag, curve in run.curves.items():
        kind = "restart" if tag == "guard/restart" else tag.removeprefix("intervention/")
        if tag == "guard/restart" or tag.startswith("intervention/"):
            happened = [step for step, value in zip(curve.steps, curve.values, strict=True) if value != 0]
            marks += [Mark(run.place(step), kind.replace("_", " ")) for step in happened]
    return tuple(sorted(marks, key=lambda mark: mark.x))


def probabilities(run: RecordedRun) -> list[Chart]:
    """Per row of alpha its options' probabilities as stacked areas."""
    charts = []
    for row, options in run.probabilities().items():
        colours = option_colours(list(options))
        lines = tuple(_line(run, option, curve, colours[option]) for option, curve in options.items())
        charts.append(Chart(row, lines, x_label(run), kind="areas"))
    return charts


def entropies(run: RecordedRun) -> list[Chart]:
    """How undecided each choice is: 1 not at all decided, 0 fully; with many choices, each as a thin line."""
    tags = run.tags("entropy/")
    few = len(tags) <= len(SERIES_COLOURS)
    lines = []
    for index, tag in enumerate(tags):
        colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
        lines.append(_line(run, tag.removeprefix("entropy/"), run.curves[tag], colour, dashed=not few and index >= 8))
    return [Chart("Entropy of each choice", tuple(lines), x_label(run))] if lines else []


def gradient_norms(run: RecordedRun) -> list[Chart]:
    """Norms of the weights', alpha's and the hyperparameters' gradients, on one logarithmic axis."""
    named = {tag.removeprefix("gradient/"): tag for tag in run.tags("gradient/")}
    return _chart(run, "Gradient norms, means of an epoch", named, scale="log", marks=interventions(run))


def retraining(run: RecordedRun) -> list[Chart]:
    """The retraining's loss and accuracy on what it trains on."""
    return [
        *_chart(run, "Loss", {"training": "train/loss", "held out": "validation/loss"}),
        *_chart(run, "Accuracy", {"training": "train/accuracy", "held out": "validation/accuracy"}),
        *_chart(run, "Learning rate", {"learning rate": "hyperparameters/learning_rate"}),
    ]


def x_label(run: RecordedRun) -> str:
    return "epoch" if run.steps_per_epoch else "step"


def _chart(
    run: RecordedRun,
    title: str,
    named: Mapping[str, str],
    scale: Literal["linear", "log"] = "linear",
    marks: tuple[Mark, ...] = (),
) -> list[Chart]:
    """A chart of the tags that were recorded; none if none was."""
    there = {name: run.curves[tag] for name, tag in named.items() if tag in run.curves}
    colours = dict(zip(there, _cycled(len(there)), strict=True))
    lines = tuple(_line(run, name, curve, colours[name]) for name, curve in there.items())
    if scale == "log" and not any(y > 0 for line in lines for y in line.ys):
        scale = "linear"
    return [Chart(title, lines, x_label(run), scale=scale, marks=marks)] if lines else []


def _cycled(count: int) -> Iterable[str]:
    return [SERIES_COLOURS[index % len(SERIES_COLOURS)] for index in range(count)]


def _line(run: RecordedRun, name: str, curve: Curve, colour: str, dashed: bool = False) -> Line:
    points = [
        (run.place(step), value) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)
    ]
    xs, ys = zip(*points, strict=True) if points else ((), ())
    return Line(name, tuple(xs), tuple(ys), colour, dashed)


def shared_options(charts: Sequence[Chart]) -> list[tuple[tuple[str, ...], list[Chart]]]:
    """``charts`` in groups of the same names of lines, which need but one legend."""
    groups: dict[tuple[str, ...], list[Chart]] = {}
    for chart in charts:
        groups.setdefault(tuple(line.name for line in chart.lines), []).append(chart)
    return list(groups.items())
