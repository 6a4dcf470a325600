"""``python -m nas.report compare``: several runs on one page."""

import math
from collections.abc import Mapping, Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any

from nas.errors import InvalidValue, require
from nas.report.charts import (
    Chart,
    anytime_charts,
    anytime_curve,
    anytime_measure,
    hyperparameter_scale,
    numbered_line,
    points,
    x_label,
)
from nas.report.recorded_run import RecordedRun, changed_settings, is_run, number
from nas.report.rendering import duration, quoted, render, whole
from nas.report.tables import mean_and_deviation
from nas.run.checkpoint import write_atomically
from nas.run.recorded import trust_prefix
from nas.surroundings import typed_python
from nas.tasks import Measure

MOST_RUNS = 200
MOST_DRAWINGS = 24


def found_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """The runs in ``folders``; a folder that is no run folder, as that of a multirun, stands for the runs in it.

    A run that is named twice, as by a pattern of the shell, counts once.

    Raises:
        InvalidValue: A folder holds no run, there are too many runs, or they are of different tasks.
    """
    runs: list[RecordedRun] = []
    for folder in folders:
        inside = [] if is_run(folder) or not folder.is_dir() else sorted(filter(is_run, folder.iterdir()), key=_place)
        already = {run.folder.resolve() for run in runs}
        runs += [RecordedRun.read(one) for one in inside or [folder] if one.resolve() not in already]
    if len(runs) > MOST_RUNS:
        raise InvalidValue("run folders", len(runs), f"a page can compare at most {MOST_RUNS}")
    for run in runs:
        one, other = runs[0].task, run.task  # one with a loss of the user's own has another name and the same measures
        found = f"{runs[0].folder} is of the task {one.name} and {run.folder} of {other.name}"
        alike = one.name == other.name or one.measures == other.measures
        require(alike, "run folders", len(runs), f"{found}, whose numbers do not go into one column")
    return runs


def _place(folder: Path) -> tuple[int, str]:
    """Hydra numbers the runs of a multirun: 2 comes before 10."""
    return (int(folder.name) if folder.name.isdecimal() else -1, folder.name)


def write_comparison(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page that compares the runs in ``folders``: to ``output``, or beside them.

    Raises:
        InvalidValue: See :func:`found_runs`.
    """
    runs = found_runs(folders)
    path = comparison_place(folders, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, comparison(runs).encode())
    return path


def comparison_place(folders: Sequence[Path], output: Path | None = None) -> Path:
    """The file that :func:`write_comparison` writes.

    Raises:
        InvalidValue: See :func:`found_runs`.
    """
    if output is not None:
        return output
    return Path(commonpath([run.folder.resolve().parent for run in found_runs(folders)])) / "comparison.html"


def comparison(runs: Sequence[RecordedRun]) -> str:
    """The page that compares ``runs`` as HTML."""
    names = run_names(runs)
    found = [(name, run.found) for name, run in zip(names, runs, strict=True) if run.found is not None]
    values = [(name, one.candidate.hyperparameters) for name, one in found]
    carried_names = list(dict.fromkeys(key for _, carried in values for key in carried))
    return render(
        "comparison.html.jinja",
        title=f"{len(runs)} runs compared",
        names=names,
        main=runs[0].task.main,
        outcome_columns=outcome_columns(runs),
        outcomes=outcome_rows(runs),
        spreads=_spreads(runs, names),
        anytime=anytime_charts(runs, names),
        hyperparameters=hyperparameter_charts(runs, names),
        carried_names=carried_names,
        carried=[
            [name, *(f"{carried[key]:.4g}" if key in carried else "" for key in carried_names)]
            for name, carried in values
        ],
        found=found,
        most_drawings=MOST_DRAWINGS,
        settings=_settings(runs),
        folders=" ".join(quoted(run.folder) for run in runs),
        trust=trust_prefix(*(one for run in runs for one in run.recorded())),
        python=typed_python(),
    )


def run_names(runs: Sequence[RecordedRun]) -> list[str]:
    """A short name for each run: its folder's, with as many of the folders above as it takes to tell them apart.

    The folders of a multirun are numbers, so the overrides that only some of its runs have follow the number.
    """
    parts = [run.folder.resolve().parts for run in runs]
    depth = 1
    while depth < max(map(len, parts), default=1) and len({one[-depth:] for one in parts}) < len(parts):
        depth += 1
    names = []
    for one, run in zip(parts, runs, strict=True):
        beside = [other.overrides for other, path in zip(runs, parts, strict=True) if path[:-1] == one[:-1]]
        everywhere = set.intersection(*map(set, beside)) if one[-1].isdecimal() else set(run.overrides)
        names.append(" ".join(["/".join(one[-depth:]), *(own for own in run.overrides if own not in everywhere)]))
    return names


def outcome(run: RecordedRun, best: Measure) -> dict[str, float | None]:
    """A run's numbers, None where it has none; time in seconds.

    Args:
        run: The run.
        best: What its anytime curve is of.
    """
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    curve = anytime_curve(run, best)
    return {
        "test": number(result.get(f"test_{run.task.main.name}")),
        "best": curve[1][-1] if curve else None,
        "parameters": number(result.get("parameters")),
        "samples": run.last("budget/samples"),
        "seconds": None if run.is_retraining else run.last("time/total_seconds"),
    }


def outcome_columns(runs: Sequence[RecordedRun]) -> list[str]:
    """What stands above :func:`outcome_rows`."""
    measured = f"test {runs[0].task.main.words}", f"best validation {anytime_measure(runs).words}"
    return ["run", "data", "space", "seed", *measured, "parameters", "samples", "search time"]


def outcome_rows(runs: Sequence[RecordedRun]) -> list[list[str]]:
    """A row of texts per run, for :func:`outcome_columns`."""
    rows, best = [], anytime_measure(runs)
    for run, name in zip(runs, run_names(runs), strict=True):
        numbers, seed = outcome(run, best), run.setting("seed")
        texts = [
            name,
            run.found.data if run.found else None,
            run.found.space.name if run.found else None,
            None if seed is None else str(seed),
            None if numbers["test"] is None else run.task.main.told(numbers["test"]),
            None if numbers["best"] is None else best.told(numbers["best"]),
            whole(numbers["parameters"]),
            whole(numbers["samples"]),
            duration(numbers["seconds"]),
        ]
        rows.append([text or "" for text in texts])
    return rows


def groups(runs: Sequence[RecordedRun]) -> list[list[int]]:
    """The places of runs whose settings differ in nothing but the seed."""
    known: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        config = {name: value for name, value in run.config.items() if name != "seed"}
        known.setdefault(repr(config), []).append(place)
    return list(known.values())


def _spreads(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[list[str]]:
    """A row per group of several runs: name of the first, number of runs, main measure on test and validation."""
    rows, best = [], anytime_measure(runs)
    for places in groups(runs):
        if len(places) > 1:
            outcomes = [outcome(runs[place], best) for place in places]
            measured = {"test": runs[0].task.main, "best": best}
            spreads = [_spread(one, [each[name] for each in outcomes]) for name, one in measured.items()]
            rows.append([names[places[0]], str(len(places)), *spreads])
    return rows


def _spread(measure: Measure, values: Sequence[float | None]) -> str:
    factor = 100 if measure.unit == "%" else 1
    known = [factor * value for value in values if value is not None]
    if not known:
        return ""
    size = max(map(abs, known))
    digits = 2 if measure.unit == "%" or size == 0 else max(0, 3 - math.floor(math.log10(size)))  # four that count
    return mean_and_deviation(known, min(digits, 4) if measure.is_ratio else digits)


def hyperparameter_charts(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[Chart]:
    """A chart per hyperparameter that moved in any run, with a line per run."""
    charts = []
    for tag in dict.fromkeys(tag for run in runs for tag in run.tags("hyperparameters/")):
        name = tag.removeprefix("hyperparameters/")
        with_it = [place for place, run in enumerate(runs) if tag in run.curves]
        if any(len(set(runs[place].curves[tag].values)) > 1 for place in with_it):
            first = runs[with_it[0]]
            lines = tuple(
                numbered_line(place, names[place], *points(runs[place], runs[place].curves[tag])) for place in with_it
            )
            charts.append(Chart(name, lines, x_label(first), scale=hyperparameter_scale(first, name)))
    return charts


def _settings(runs: Sequence[RecordedRun]) -> list[list[str]]:
    """The settings in which any run differs from the first: key and value in each run."""
    changed = [{one.key: one for one in changed_settings(run.config, runs[0].config)} for run in runs]
    rows = []
    for key in dict.fromkeys(key for one in changed for key in one):
        of_first = next(one[key].default for one in changed if key in one)
        rows.append([key, *((one[key].value if key in one else of_first) or "" for one in changed)])
    return rows
