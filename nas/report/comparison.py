"""``python -m nas.report compare``: several runs on one page."""

from collections.abc import Mapping, Sequence
from html import escape
from os.path import commonpath
from pathlib import Path
from typing import Any

from nas.errors import InvalidValue
from nas.report.changed_settings import changed_settings
from nas.report.charts import Chart, Line, anytime_charts, anytime_curve, hyperparameter_scale
from nas.report.colours import SERIES_COLOURS
from nas.report.outcome import architecture_in_words
from nas.report.page import command, document, drawing, duration, figures, paragraph, percent, quoted, table
from nas.report.recorded_run import RecordedRun, number
from nas.report.tables import mean_and_deviation
from nas.run.checkpoint import write_atomically

MOST_RUNS = 200
MOST_DRAWINGS = 24


def found_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """The runs in ``folders``; one that is no run folder itself stands for the runs in it, as after a multirun.

    Raises:
        InvalidValue: A folder holds none, or there are too many.
    """
    runs: list[RecordedRun] = []
    for folder in folders:
        inside = [] if _is_run(folder) or not folder.is_dir() else sorted(filter(_is_run, folder.iterdir()), key=_place)
        runs += [RecordedRun.read(one) for one in inside or [folder]]
    if len(runs) > MOST_RUNS:
        raise InvalidValue("run folders", len(runs), f"a page can compare at most {MOST_RUNS}")
    return runs


def _is_run(folder: Path) -> bool:
    return (folder / "metrics.csv").is_file() or (folder / "candidate.json").is_file()


def _place(folder: Path) -> tuple[int, str]:
    """Hydra numbers the runs of a multirun: 2 comes before 10."""
    return (int(folder.name) if folder.name.isdecimal() else -1, folder.name)


def write_comparison(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page that compares the runs in ``folders``: to ``output``, or beside them.

    Raises:
        InvalidValue: See :func:`found_runs`.
    """
    runs = found_runs(folders)
    path = output or Path(commonpath([run.folder.resolve().parent for run in runs])) / "comparison.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, comparison(runs).encode())
    return path


def comparison(runs: Sequence[RecordedRun]) -> str:
    """The page that compares ``runs`` as HTML."""
    names = run_names(runs)
    sections = [
        ("outcomes", "Outcomes", _outcomes(runs, names)),
        ("anytime", "Anytime curves", _anytime(runs, names)),
        ("hyperparameters", "Learned hyperparameters", _hyperparameters(runs, names)),
        ("architectures", "Architectures", _architectures(runs, names)),
        ("settings", "What was set differently", _settings(runs, names)),
        ("commands", "Commands", _commands(runs)),
    ]
    title = f"{len(runs)} runs compared"
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    body = [f"<header><h1>{escape(title)}</h1></header><nav>{links}</nav>"]
    body += [f'<section id="{key}"><h2>{name}</h2>{content}</section>' for key, name, content in sections]
    return document(title, "".join(body))


def run_names(runs: Sequence[RecordedRun]) -> list[str]:
    """A short name for each run: its folder's, with as many of the folders above as it takes to tell them apart.

    A multirun's folders are numbers, so that what was set in some of these runs only is told beside them.
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


def outcome(run: RecordedRun) -> dict[str, float | None]:
    """A run's numbers by name, None where it has none: accuracies as shares, time in seconds."""
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    curve = anytime_curve(run)
    return {
        "test accuracy": number(result.get("test_accuracy")),
        "best validation accuracy": max(curve[1]) if curve else None,
        "parameters": number(result.get("parameters")),
        "samples": run.last("budget/samples"),
        "seconds": run.last("time/total_seconds"),
    }


def groups(runs: Sequence[RecordedRun]) -> list[list[int]]:
    """The places of runs whose settings differ in nothing but the seed."""
    known: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        config = {name: value for name, value in run.config.items() if name != "seed"}
        known.setdefault(repr(config), []).append(place)
    return list(known.values())


OUTCOME_COLUMNS = (
    *("run", "data", "space", "seed", "test accuracy", "best validation accuracy"),
    *("parameters", "samples", "search time"),
)


def outcome_rows(runs: Sequence[RecordedRun]) -> list[list[str]]:
    """A row of texts per run, for :data:`OUTCOME_COLUMNS`."""
    rows = []
    for run, name in zip(runs, run_names(runs), strict=True):
        numbers = outcome(run)
        seed = run.setting("seed")
        rows.append(
            [
                name,
                run.found.data if run.found else "",
                run.found.space.name if run.found else "",
                "" if seed is None else str(seed),
                *_shown(numbers),
            ]
        )
    return rows


def _outcomes(runs: Sequence[RecordedRun], names: Sequence[str]) -> str:
    parts = [table(OUTCOME_COLUMNS, outcome_rows(runs), numbers=range(3, 9))]
    together = [places for places in groups(runs) if len(places) > 1]
    if together:
        rows = []
        for places in together:
            spreads = [
                _spread([outcome(runs[place])[name] for place in places])
                for name in ("test accuracy", "best validation accuracy")
            ]
            rows.append([names[places[0]], str(len(places)), *spreads])
        parts.append(paragraph("Runs that differ in their seed only, mean ± standard deviation in per cent:"))
        columns = ["settings of", "runs", "test accuracy", "best validation accuracy"]
        parts.append(table(columns, rows, numbers=(1, 2, 3)))
    return "".join(parts)


def _spread(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    return mean_and_deviation(known, 2) if known else ""


def _shown(numbers: Mapping[str, float | None]) -> list[str]:
    whole = ["" if numbers[name] is None else f"{numbers[name]:,.0f}" for name in ("parameters", "samples")]
    seconds = numbers["seconds"]
    accuracies = [percent(numbers[name]) or "" for name in ("test accuracy", "best validation accuracy")]
    return [*accuracies, *whole, "" if seconds is None else duration(seconds)]


def _colour(place: int) -> str:
    return SERIES_COLOURS[place % len(SERIES_COLOURS)]


def _anytime(runs: Sequence[RecordedRun], names: Sequence[str]) -> str:
    charts = anytime_charts(runs, names)
    note = paragraph(
        "On batches of the validation split while searching; compare only what searches on the same split."
    )
    return figures(charts) + note if charts else paragraph("No run has recorded both accuracy and samples.", "note")


def hyperparameter_charts(runs: Sequence[RecordedRun], names: Sequence[str]) -> list[Chart]:
    """Per hyperparameter that moved in any run its course in every run."""
    tags = dict.fromkeys(tag for run in runs for tag in run.tags("hyperparameters/"))
    charts = []
    for tag in tags:
        name = tag.removeprefix("hyperparameters/")
        with_it = [place for place, run in enumerate(runs) if tag in run.curves]
        if not any(len(set(runs[place].curves[tag].values)) > 1 for place in with_it):
            continue
        lines = tuple(
            Line(
                names[place],
                tuple(runs[place].place(step) for step in runs[place].curves[tag].steps),
                tuple(runs[place].curves[tag].values),
                _colour(place),
                dashed=place >= len(SERIES_COLOURS),
            )
            for place in with_it
        )
        scale = hyperparameter_scale(runs[with_it[0]], name)
        charts.append(Chart(name, lines, "epoch" if runs[with_it[0]].steps_per_epoch else "step", scale=scale))
    return charts


def _hyperparameters(runs: Sequence[RecordedRun], names: Sequence[str]) -> str:
    charts = hyperparameter_charts(runs, names)
    parts = [figures(charts) if charts else paragraph("No run has learned any.", "note")]
    found = [(name, run.found.candidate.hyperparameters) for run, name in zip(runs, names, strict=True) if run.found]
    every = list(dict.fromkeys(key for _, values in found for key in values))
    rows = [[name, *(f"{values[key]:.4g}" if key in values else "" for key in every)] for name, values in found]
    if every:
        parts.append(paragraph("What the candidates carry:"))
        parts.append(table(["run", *every], rows, numbers=range(1, len(every) + 1)))
    return "".join(parts)


def _architectures(runs: Sequence[RecordedRun], names: Sequence[str]) -> str:
    shown = [(name, run.found) for run, name in zip(runs, names, strict=True) if run.found is not None]
    if not shown:
        return paragraph("No run has found one yet.", "note")
    parts = []
    for place, (name, found) in enumerate(shown[:MOST_DRAWINGS]):
        picture = drawing(found.space, found.candidate.architecture, f"run{place}")
        words = paragraph(architecture_in_words(found), "note")
        parts.append(f"<figure><figcaption>{escape(name)}</figcaption>{picture}{words}</figure>")
    rest = len(shown) - MOST_DRAWINGS
    more = paragraph(f"{rest} more are not drawn.", "note") if rest > 0 else ""
    return f'<div class="wide grid">{"".join(parts)}</div>{more}'


def _settings(runs: Sequence[RecordedRun], names: Sequence[str]) -> str:
    """The settings in which any run differs from the first, a row each."""
    first = runs[0].config
    changed = [{one.key: one for one in changed_settings(run.config, first)} for run in runs]
    keys = list(dict.fromkeys(key for one in changed for key in one))
    if not keys:
        return paragraph("Nothing: all configurations are the same.", "note")
    rows = []
    for key in keys:
        of_first = next(one[key].default for one in changed if key in one)
        rows.append([key, *((one[key].value if key in one else of_first) or "" for one in changed)])
    return table(["setting", *names], rows)


def _commands(runs: Sequence[RecordedRun]) -> str:
    folders = " ".join(quoted(run.folder) for run in runs)
    return paragraph("Write this page anew") + command(f"python -m nas.report compare {folders}")
