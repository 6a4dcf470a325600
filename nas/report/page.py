"""``report.html``: one self-contained page of a run. Text of the run folder is escaped, nothing in it is executed."""

import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nas.candidate import Architecture
from nas.report import charts
from nas.report.changed_settings import changed_settings, default_configuration, shown
from nas.report.charts import Chart
from nas.report.drawing import inline_svg
from nas.report.explanation import Decision, ObservedOption, decisions, observed_options
from nas.report.outcome import architecture_in_words, space_figure
from nas.report.recorded_run import RecordedRun, number
from nas.report.style import STYLE
from nas.report.svg import chart_svg, legend
from nas.run.checkpoint import write_atomically
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace

# Nothing but the page itself: no script, no font, no picture from anywhere else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NARROW = 3.6  # inches: a chain of layers that a telephone shows in its own size
SMALL_CHART = 170
LONG_TEXT = 60  # characters: a cell of a table that is longer may break anywhere


def write_page(folder: Path) -> Path:
    """Write ``folder/report.html`` anew from what the run folder holds, and return its path.

    Raises:
        InvalidValue: ``folder`` is no run folder.
    """
    path = folder / "report.html"
    write_atomically(path, page(RecordedRun.read(folder.resolve())).encode())
    return path


def write_page_if_possible(folder: Path) -> Path | None:
    """:func:`write_page` at the end of a run, whose result stands whatever becomes of its page.

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
    sections: list[tuple[str, str, str]] = [
        ("architecture", "Architecture", _architecture(run)),
        ("why", "Why this architecture", _why(run)),
        ("hyperparameters", "Hyperparameters", _hyperparameters(run)),
        ("choices", "Choices over time", _choices(run)),
        ("progress", "Best so far", _progress(run)),
        ("losses", "Losses of both levels", _losses(run)),
        ("gap", "Discretisation gap", _gap(run)),
        ("gradients", "Gradient norms", _gradients(run)),
        ("retraining", "Retraining", _retraining(run)),
        ("configuration", "Configuration", _configuration(run)),
        ("environment", "Environment", _environment(run)),
        ("commands", "Commands", _commands(run)),
    ]
    body = [f"<header>{_header(run)}</header>", _contents(sections)]
    body += [f'<section id="{key}"><h2>{title}</h2>{content}</section>' for key, title, content in sections]
    return document(outcome_line(run), "".join(body))


def document(title: str, body: str) -> str:
    """A whole HTML document that asks for nothing outside itself."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def outcome_line(run: RecordedRun) -> str:
    """What the run has come to, in one sentence without the architecture."""
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


def duration(seconds: float) -> str:
    """``17 s``, ``12 min 5 s`` or ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# What sections are made of.


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of escaped texts, of cells made by :func:`raw`; the columns in ``numbers`` are aligned to the right."""

    def cell(tag: str, index: int, text: str) -> str:
        kind = (
            ' class="number"' if index in numbers else ' class="wide"' if tag == "td" and len(text) > LONG_TEXT else ""
        )
        return f"<{tag}{kind}>{text if isinstance(text, _Raw) else _breakable(text)}</{tag}>"

    head = "".join(cell("th", index, column) for index, column in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(cell("td", index, text) for index, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="tables"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _breakable(text: str) -> str:
    """``text`` escaped; a single word, such as a setting's name, may break behind its dots and underscores."""
    parts = re.split(r"(?<=[._])(?=[A-Za-z])", text) if " " not in text else [text]
    return "<wbr>".join(map(escape, parts))


class _Raw(str):
    """HTML, not text."""


def raw(html: str) -> str:
    """``html`` as a cell of :func:`table` that is escaped already."""
    return _Raw(html)


def figure(chart: Chart, with_legend: bool = True, height: int | None = None) -> str:
    """A chart with its title and, where it has several lines or marks, its legend."""
    parts = [f"<figcaption>{escape(chart.title)}</figcaption>"]
    parts.append(chart_svg(chart, height) if height else chart_svg(chart))
    if with_legend and len(chart.lines) > 1:
        parts.append(legend(chart.lines))
    kinds = dict.fromkeys(mark.name for mark in chart.marks)
    if kinds:
        chips = "".join(f'<span class="key mark"><i></i>{escape(name)}</span>' for name in kinds)
        parts.append(f'<div class="legend">{chips}</div>')
    return f"<figure>{''.join(parts)}</figure>"


def figures(some: Sequence[Chart], small: bool = False) -> str:
    drawn = "".join(figure(chart, height=SMALL_CHART if small else None) for chart in some)
    return f'<div class="grid{" small" if small else ""}">{drawn}</div>'


def drawing(space: SearchSpace, architecture: Architecture, prefix: str) -> str:
    """The architecture; a chain of layers comes in two widths, of which a screen shows one."""
    cells = isinstance(space, Darts | NasBench201)
    broad = inline_svg(space_figure(space, architecture), f"{prefix}-broad")
    if cells:
        return f'<div class="drawings cells">{broad}</div>'
    narrow = inline_svg(space_figure(space, architecture, width=NARROW), f"{prefix}-narrow")
    return f'<div class="drawings"><div class="broad">{broad}</div><div class="narrow">{narrow}</div></div>'


# The sections.


def _header(run: RecordedRun) -> str:
    parts = [f"<h1>{escape(outcome_line(run))}</h1>"]
    if run.found is not None:
        parts.append(paragraph(architecture_in_words(run.found)))
    parts.append(f"<p><code>{escape(str(run.folder))}</code></p>")
    parts += [paragraph(problem, "bad") for problem in run.problems]
    facts = {name: value for name, value in _facts(run).items() if value is not None}
    tiles = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in facts.items())
    return "".join(parts) + f'<div class="facts">{tiles}</div>'


def _facts(run: RecordedRun) -> dict[str, str | None]:
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    seconds, samples = run.last("time/total_seconds"), run.last("budget/samples")
    curve = charts.anytime_curve(run)
    best = curve[1][-1] if curve else None
    seed = run.setting("seed")
    return {
        "test accuracy": percent(number(result.get("test_accuracy"))),
        "test macro F1": percent(number(result.get("test_macro_f1"))),
        "parameters": _whole(number(result.get("parameters"))),
        "best validation accuracy while searching": percent(best),
        "search time": None if seconds is None else duration(seconds),
        "samples spent by the search": _whole(samples),
        "data": run.found.data if run.found else None,
        "space": run.found.space.name if run.found else None,
        "seed": None if seed is None else str(seed),
    }


def percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f} %"


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _contents(sections: Sequence[tuple[str, str, str]]) -> str:
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    return f"<nav>{links}</nav>"


def _architecture(run: RecordedRun) -> str:
    if run.found is None:
        return paragraph("There is no candidate.json yet: the search has not come to its end.", "note")
    found = run.found
    settled = "" if found.settled.get("architecture", True) else " It had not come to rest when the search ended."
    text = f"Found on {found.data}, one of {_size(found.space)} assignments of {len(found.space.choices)} choices."
    return paragraph(text + settled) + drawing(found.space, found.candidate.architecture, "found")


def _size(space: SearchSpace) -> str:
    size = space.size()
    if size < 10**9:
        return f"{size:,}"
    mantissa, _, exponent = f"{size:.1e}".partition("e")
    return f"{mantissa} · 10^{int(exponent)}"


def _why(run: RecordedRun) -> str:
    rows = decisions(run)
    if not rows:
        return paragraph("There is no candidate yet to explain.", "note")
    known = any(row.margin is not None for row in rows)
    if not known and run.evaluations:
        return _why_by_evaluations(run)
    text = "Each choice with what it was up against. The margin is its probability minus the runner-up's"
    effect = "; the effect is what the runner-up in its place does to the validation accuracy, all else being equal."
    text += "." if run.evaluations else effect
    if any(row.margin is not None and row.margin < 0 for row in rows):
        text += " Where the margin is negative, the discretisation chose against alpha, by what the supernet comes to."
    parts = [paragraph(text)] if known else [paragraph("This search recorded nothing from which to tell.", "note")]
    columns = ["choice", "chosen", "runner-up", "margin", f"decided since {charts.x_label(run)}"]
    if run.evaluations:  # a policy's probabilities: there is no supernet to swap in, but what was seen
        shown_rows = [_why_row(run, row)[: len(columns)] for row in rows]
        return "".join([*parts, table(columns, shown_rows, numbers=(3, 4)), _why_by_evaluations(run)])
    columns += ["points if swapped in the supernet", "points if swapped and retrained"]
    parts.append(table(columns, [_why_row(run, row) for row in rows], numbers=(3, 4, 5, 6)))
    if known and all(row.effect is None for row in rows):
        parts.append(
            paragraph("The effects have not been measured yet; this does it, from the newest checkpoint:", "note")
        )
        parts.append(command(f"python -m nas.report why {quoted(run.folder)}"))
    elif known and all(row.retrained_effect is None for row in rows):
        parts.append(paragraph("To measure the swaps after a short retraining of each, too:", "note"))
        parts.append(command(f"python -m nas.report why {quoted(run.folder)} --retrain"))
    about = run.explanation.get("about")
    if isinstance(about, str):
        parts.append(paragraph(about, "note"))
    return "".join(parts)


def _why_by_evaluations(run: RecordedRun) -> str:
    """What a black-box search has seen of each option."""
    assert run.found is not None
    rows = []
    for choice, options in observed_options(run).items():
        chosen = run.found.candidate.architecture[choice]
        own = next((one for one in options if one.option == chosen), None)
        other = next((one for one in options if one.option != chosen), None)
        rows.append([choice, chosen, *_observed(own), other.option if other else "", *_observed(other)])
    text = (
        "Each choice with the mean accuracy of all candidates that had the chosen option, and of those with the best "
        "other one: what was seen, not a comparison of equals, since their other choices differ."
    )
    columns = ["choice", "chosen", "candidates", "mean accuracy", "best other", "candidates", "mean accuracy"]
    return paragraph(text) + table(columns, rows, numbers=(2, 3, 5, 6))


def _observed(option: ObservedOption | None) -> list[str]:
    return ["", ""] if option is None else [str(option.count), percent(option.accuracy) or ""]


def _why_row(run: RecordedRun, row: Decision) -> list[str]:
    decided = "" if row.decided is None else f"{run.place(row.decided):.4g}"
    margin = "" if row.margin is None else f"{row.margin:.3f}"
    effects = [_effect(row.effect), _effect(row.retrained_effect)]
    return [row.choice, row.option, row.runner_up or "-", margin, decided, *effects]


def _effect(value: float | None) -> str:
    """A change of accuracy in points: worse is what speaks for the choice."""
    if value is None:
        return ""
    kind = "good" if value < 0 else "bad" if value > 0 else ""
    return raw(f'<span class="{kind}">{100 * value:+.2f}</span>')


def _hyperparameters(run: RecordedRun) -> str:
    some = charts.hyperparameters(run)
    parts = []
    if some:
        parts.append(figures(some))
        marks = charts.interventions(run)
        text = f"{len(marks)} interventions are marked." if marks else "No intervention was necessary."
        parts.append(paragraph(text, "note"))
    elif searched := _searched_hyperparameters(run):
        parts.append(paragraph(f"Searched together with the architecture: {', '.join(searched)}.", "note"))
    else:
        parts.append(paragraph("No hyperparameter was learned in this run.", "note"))
    if run.found is not None:
        rows = []
        for name, value in run.found.candidate.hyperparameters.items():
            settled = run.found.settled.get(name)
            rest = "" if settled is None else "settled" if settled else "not settled"
            rows.append([name, shown(run.setting(f"hyperparameters.{name}.initial")), f"{value:.4g}", rest])
        parts.append(table(["", "start", "what the candidate carries", ""], rows, numbers=(1, 2)))
    return "".join(parts)


def _searched_hyperparameters(run: RecordedRun) -> list[str]:
    """Those that a black-box search has varied from candidate to candidate."""
    if not run.evaluations or run.found is None:
        return []
    entries = {name: run.setting(f"hyperparameters.{name}") for name in run.found.candidate.hyperparameters}
    return [
        name
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and (entry.get("learn") is True or "options" in entry)
    ]


def _choices(run: RecordedRun) -> str:
    some, text = charts.probabilities(run), "The probability of every option, stacked"
    if not some:
        some, text = charts.shares(run), "The share of every option among the candidates evaluated lately, stacked"
    if not some:
        return paragraph("This search has neither probabilities of its options nor evaluated candidates.", "note")
    entropies = charts.entropies(run)
    few = len(run.tags("entropy/")) <= 12
    text += "; entropy 1 is undecided, 0 decided." if entropies else "."
    parts = [paragraph(text), figures(entropies) if entropies and few else ""]
    groups = charts.shared_options(some)
    if len(groups) == 1 and len(some) > 1:
        drawn = "".join(figure(chart, with_legend=False, height=SMALL_CHART) for chart in some)
        parts.append(f'{legend(some[0].lines)}<div class="small grid">{drawn}</div>')
    else:
        parts.append(figures(some, small=True))
    if entropies and not few:
        parts.append(figures(entropies))
    return "".join(parts)


def _progress(run: RecordedRun) -> str:
    some = [*charts.anytime_charts([run], ["this run"]), *charts.evaluated(run), *charts.population(run)]
    if not some:
        return paragraph("Nothing that could be better or worse was recorded.", "note")
    if run.evaluations or run.tags("best/"):
        return figures(some)
    text = "A search by gradient has no population: alpha is its one candidate, measured on validation batches."
    return figures(some) + paragraph(text, "note")


def _losses(run: RecordedRun) -> str:
    some = [*charts.losses(run), *charts.step_losses(run)]
    return figures(some) if some else paragraph("No losses were recorded.", "note")


def _gap(run: RecordedRun) -> str:
    rows: list[tuple[str, str, float, float | None]] = []
    measured = run.discretisation
    for key, name in (
        ("supernet", "the relaxed supernet"),
        ("discretised", "discretised, with the supernet's weights"),
    ):
        values = measured.get(key)
        accuracy = number(values.get("accuracy")) if isinstance(values, dict) else None
        if accuracy is not None and isinstance(values, dict):
            rows.append((name, "validation", accuracy, number(values.get("loss"))))
    recorded = run.last("supernet/validation_accuracy")
    if not rows and recorded is not None:
        rows.append(("the relaxed supernet", "validation", recorded, run.last("supernet/validation_loss")))
    for name, one in _retrainings(run).items():
        tested = number(one.result.get("test_accuracy"))
        if tested is not None:
            place = "" if name == "final" else f" ({name})"
            loss = number(one.result.get("test_loss"))
            rows.append((f"discretised and retrained from scratch{place}", "test", tested, loss))
    if not rows:
        return paragraph("Nothing was measured of it: this search has no supernet.", "note")
    shown_rows = [
        [name, split, f"{100 * accuracy:.2f} %", "" if loss is None else f"{loss:.4f}", _bar(accuracy)]
        for name, split, accuracy, loss in rows
    ]
    note = ""
    if len(measured) >= 2:
        note = paragraph(
            "The first two on the same validation images, batch norm with each batch's statistics.", "note"
        )
    return table(["network", "split", "accuracy", "loss", ""], shown_rows, numbers=(2, 3)) + note


def _bar(share: float) -> str:
    return raw(f'<span class="bar" style="width:{8 * min(max(share, 0.0), 1.0):.2f}rem"></span>')


def _gradients(run: RecordedRun) -> str:
    some = charts.gradient_norms(run)
    return figures(some) if some else paragraph("No gradient norms were recorded.", "note")


def _retrainings(run: RecordedRun) -> Mapping[str, RecordedRun]:
    """Every retraining of what ``run`` has found by its folder's name; a retraining's page shows itself."""
    return {run.folder.name: run} if run.result else run.retrainings


def _retraining(run: RecordedRun) -> str:
    every = _retrainings(run)
    if not every:
        return paragraph("Not retrained yet:", "note") + command(
            f"python train_final.py candidate={quoted(run.folder)}"
        )
    names = ("test_accuracy", "test_loss", "test_macro_f1", "test_macro_recall", "parameters", "epochs", "seed")
    rows = [
        [name.replace("_", " "), *(_result(name, number(one.result.get(name))) for one in every.values())]
        for name in names
    ]
    taken = [str(one.result.get("hyperparameters_from", "")) for one in every.values()]
    rows.append(["hyperparameters", *taken])
    parts = []
    if any(one.result for one in every.values()):
        told = [row for row in rows if any(row[1:])]
        parts.append(table(["", *every], told, numbers=range(1, len(every) + 1)))
    for name, one in every.items():
        if len(every) > 1:
            parts.append(f"<h3>{escape(name)}</h3>")
        if not one.result:
            parts.append(paragraph("It has not come to its end.", "note"))
        parts.append(figures(charts.retraining(one)))
    return "".join(parts)


def _result(name: str, value: float | None) -> str:
    """One entry of ``result.json`` as text; empty where it is not there."""
    if value is None:
        return ""
    if name in ("parameters", "epochs", "seed"):
        return f"{value:,.0f}"
    return f"{value:.4f}" if name == "test_loss" else f"{100 * value:.2f} %"


def _configuration(run: RecordedRun) -> str:
    if not run.config:
        return paragraph("There is no configuration in this folder.", "note")
    parts = []
    if run.overrides:
        parts.append(paragraph("On the command line:") + command(" ".join(map(shlex.quote, run.overrides))))
    default = default_configuration("train_search")
    if default is None:
        parts.append(paragraph("The default configuration is not here to compare with.", "note"))
    else:
        changed = changed_settings(run.config, default)
        rows = [[one.key, one.default or "", one.value or ""] for one in changed]
        parts.append(
            paragraph(f"{len(rows)} settings differ from the defaults." if rows else "All settings are the defaults.")
        )
        parts.append(table(["setting", "default", "this run"], rows) if rows else "")
    from omegaconf import OmegaConf

    whole = escape(OmegaConf.to_yaml(OmegaConf.create(dict(run.config)), resolve=False))
    parts.append(f"<details><summary>The whole configuration</summary><pre>{whole}</pre></details>")
    return "".join(parts)


def _environment(run: RecordedRun) -> str:
    if not run.environment:
        return paragraph("This run did not record its environment.", "note")
    starts = run.environment
    latest = starts[-1]
    rows = [[name, shown(value)] for name, value in latest.items() if not isinstance(value, dict) and name != "command"]
    packages = latest.get("packages")
    if isinstance(packages, dict):
        rows += [[name, shown(value)] for name, value in packages.items()]
    parts = [table(["", ""], rows)]
    for number_, start in enumerate(starts, start=1):
        text = f"start {number_} of {len(starts)}, {start.get('started', '')}" if len(starts) > 1 else "started with"
        parts.append(paragraph(text) + command(str(start.get("command", ""))))
    return "".join(parts)


def _commands(run: RecordedRun) -> str:
    folder = quoted(run.folder)
    some = {
        "Continue the search where it stopped, if it did": f"python train_search.py resume={folder}",
        "Retrain from fresh weights and test": f"python train_final.py candidate={folder}",
        "Compare with other runs": f"python -m nas.report compare {folder} <another run folder>",
        "Drawings for a paper": f"python -m nas.report draw {folder}",
        **({} if run.evaluations else {"Measure what each choice is worth": f"python -m nas.report why {folder}"}),
        "Write this page anew": f"python -m nas.report {folder}",
        "The curves in TensorBoard": f"tensorboard --logdir {folder}",
    }
    return "".join(paragraph(text) + command(line) for text, line in some.items())


def command(line: str) -> str:
    return f'<pre class="wrap">{escape(line)}</pre>'


def quoted(path: Path) -> str:
    return shlex.quote(str(path))
