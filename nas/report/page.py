"""``report.html``: one self-contained page of a run. Its template writes the sentences about the values found here."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nas.report import charts
from nas.report.composition import composition_in_words
from nas.report.explanation import Decision, ObservedOption, decisions, observed_options
from nas.report.recorded_run import RecordedRun, changed_settings, default_configuration, number, setting_text
from nas.report.rendering import duration, percent, quoted, render, whole
from nas.run.checkpoint import write_atomically
from nas.run.overrides import typed

Row = list[str]


def write_page(folder: Path) -> Path:
    """Write ``folder/report.html`` anew from what the run folder holds, and return its path.

    Raises:
        InvalidValue: ``folder`` is no run folder.
    """
    path = folder / "report.html"
    write_atomically(path, page(RecordedRun.read(folder.resolve())).encode())
    return path


def write_page_if_possible(folder: Path) -> Path | None:
    """Call :func:`write_page` at the end of a run; a page that cannot be written does not fail the run.

    Raises:
        OSError: The disk fails, as it may for anything else the run writes.
    """
    try:
        return write_page(folder)
    except OSError:
        raise
    except Exception as error:
        print(f"the page could not be written: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def page(run: RecordedRun) -> str:
    """The page of ``run`` as HTML."""
    # The page of a retraining shows the retraining itself.
    retrainings = {run.folder.name: run} if run.result else run.retrainings
    return render(
        "page.html.jinja",
        title=outcome_line(run),
        run=run,
        folder=quoted(run.folder),
        candidate=typed("candidate", run.folder),
        resume=typed("resume", run.folder),
        charts=charts,
        facts={name: value for name, value in _facts(run).items() if value is not None},
        why=_why(run),
        observed=_observed(run),
        searched=_searched_hyperparameters(run),
        carried=_carried_hyperparameters(run),
        gap=_gap(run, retrainings),
        retrainings=retrainings,
        retrained=_retrained(retrainings),
        changed=_changed(run),
        configuration=OmegaConf.to_yaml(OmegaConf.create(dict(run.config)), resolve=False),
        environment=_environment(run),
    )


def outcome_line(run: RecordedRun) -> str:
    """The outcome of the run in one sentence without the architecture."""
    if run.found is None:
        steps = max((curve.steps[-1] for curve in run.curves.values()), default=0)
        return f"Not finished: {steps:,} steps so far."
    seconds = run.last("time/total_seconds")
    took = f" in {duration(seconds)}" if seconds is not None else ""
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    accuracy, parameters = number(result.get("test_accuracy")), number(result.get("parameters"))
    if accuracy is not None:
        size = f" with {parameters:,.0f} parameters" if parameters is not None else ""
        return f"{100 * accuracy:.2f} % test accuracy{size} on {run.found.data}, found{took}."
    return f"An architecture for {run.found.data}, found{took}; not retrained yet."


def _facts(run: RecordedRun) -> dict[str, str | None]:
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    curve = charts.anytime_curve(run)
    seed = run.setting("seed")
    return {
        "test accuracy": percent(number(result.get("test_accuracy"))),
        "test macro F1": percent(number(result.get("test_macro_f1"))),
        "parameters": whole(number(result.get("parameters"))),
        "best validation accuracy while searching": percent(curve[1][-1] if curve else None),
        "search time": duration(run.last("time/total_seconds")),
        "samples spent by the search": whole(run.last("budget/samples")),
        "data": run.found.data if run.found else None,
        "space": run.found.space.name if run.found else None,
        "composition": composition_in_words(run.config),
        "seed": None if seed is None else str(seed),
    }


def _why(run: RecordedRun) -> dict[str, Any]:
    """The table of decisions, and which kinds of values are known for any of them."""
    rows = decisions(run)
    columns = ["choice", "chosen", "runner-up", "margin", f"decided since {charts.x_label(run)}"]
    effects = ["points if swapped in the supernet", "points if swapped and retrained"]
    # A black-box search has no supernet in which to swap options.
    kept = len(columns) + (0 if run.evaluations else len(effects))
    return {
        "columns": [*columns, *effects][:kept],
        "rows": [_why_row(run, row)[:kept] for row in rows],
        "known": any(row.margin is not None for row in rows),
        "against_alpha": any(row.margin is not None and row.margin < 0 for row in rows),
        "measured": any(row.effect is not None for row in rows),
        "retrained": any(row.retrained_effect is not None for row in rows),
    }


def _why_row(run: RecordedRun, row: Decision) -> list[str | float | None]:
    decided = "" if row.decided is None else f"{run.place(row.decided):.4g}"
    margin = "" if row.margin is None else f"{row.margin:.3f}"
    return [row.choice, row.option, row.runner_up or "-", margin, decided, row.effect, row.retrained_effect]


def _observed(run: RecordedRun) -> list[Row]:
    """A row per choice of a black-box search: records of the chosen option and of the best other option."""
    rows = []
    for choice, options in observed_options(run).items():
        chosen = run.found.candidate.architecture[choice] if run.found else ""
        own = next((one for one in options if one.option == chosen), None)
        other = next((one for one in options if one.option != chosen), None)
        rows.append([choice, chosen, *_seen(own), other.option if other else "", *_seen(other)])
    return rows


def _seen(option: ObservedOption | None) -> Row:
    return ["", ""] if option is None else [str(option.count), percent(option.accuracy) or ""]


def _searched_hyperparameters(run: RecordedRun) -> list[str]:
    """The hyperparameters that a black-box search has varied from candidate to candidate."""
    if not run.evaluations or run.found is None:
        return []
    entries = {name: run.setting(f"hyperparameters.{name}") for name in run.found.candidate.hyperparameters}
    return [
        name
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and (entry.get("learn") is True or "options" in entry)
    ]


def _carried_hyperparameters(run: RecordedRun) -> list[Row]:
    """Name, start, value in the candidate, and whether the value had settled."""
    if run.found is None:
        return []
    rest = {None: "", True: "settled", False: "not settled"}
    return [
        [
            name,
            setting_text(run.setting(f"hyperparameters.{name}.initial")),
            f"{value:.4g}",
            rest[run.found.settled.get(name)],
        ]
        for name, value in run.found.candidate.hyperparameters.items()
    ]


def _gap(run: RecordedRun, retrainings: Mapping[str, RecordedRun]) -> list[list[str | float]]:
    """Network, split, accuracy, loss, and the accuracy as a share."""
    rows: list[tuple[str, str, float | None, float | None]] = []
    for key, name in {
        "supernet": "the relaxed supernet",
        "discretised": "discretised, with the supernet's weights",
    }.items():
        values = run.discretisation.get(key)
        if isinstance(values, dict):
            rows.append((name, "validation", number(values.get("accuracy")), number(values.get("loss"))))
    if not any(accuracy is not None for _, _, accuracy, _ in rows):
        accuracy, loss = (run.last(f"supernet/validation_{quantity}") for quantity in ("accuracy", "loss"))
        rows.append(("the relaxed supernet", "validation", accuracy, loss))
    for name, one in retrainings.items():
        place = "" if name == "final" else f" ({name})"
        accuracy, loss = (number(one.result.get(f"test_{quantity}")) for quantity in ("accuracy", "loss"))
        rows.append((f"discretised and retrained from scratch{place}", "test", accuracy, loss))
    return [
        [name, split, f"{100 * accuracy:.2f} %", "" if loss is None else f"{loss:.4f}", accuracy]
        for name, split, accuracy, loss in rows
        if accuracy is not None
    ]


def _retrained(retrainings: Mapping[str, RecordedRun]) -> list[Row]:
    """A row per entry of ``result.json`` that any of the retrainings has, a column per retraining."""
    results = [one.result for one in retrainings.values()]
    names = ("test_accuracy", "test_loss", "test_macro_f1", "test_macro_recall", "parameters", "epochs", "seed")
    rows = [
        [name.replace("_", " "), *(_result(name, number(result.get(name))) for result in results)] for name in names
    ]
    rows.append(["hyperparameters", *(str(result.get("hyperparameters_from", "")) for result in results)])
    return [row for row in rows if any(row[1:])]


def _result(name: str, value: float | None) -> str:
    if name in ("parameters", "epochs", "seed"):
        return whole(value) or ""
    if name == "test_loss":
        return "" if value is None else f"{value:.4f}"
    return percent(value) or ""


def _changed(run: RecordedRun) -> list[Row] | None:
    """Setting, default and value in the run; None without a default configuration to compare with."""
    default = default_configuration("train_search")
    if default is None:
        return None
    return [[one.key, one.default or "", one.value or ""] for one in changed_settings(run.config, default)]


def _environment(run: RecordedRun) -> list[Row]:
    """Names and values of the newest start, the versions of packages last."""
    latest = run.environment[-1] if run.environment else {}
    packages = latest.get("packages")
    values = [(name, value) for name, value in latest.items() if not isinstance(value, dict) and name != "command"]
    values += packages.items() if isinstance(packages, dict) else []
    return [[name, setting_text(value)] for name, value in values]
