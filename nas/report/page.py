"""``report.html``: one self-contained page of a run. Its template writes the sentences about the values found here."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from nas.report import charts
from nas.report.composition import composition_in_words
from nas.report.continuation import continuation_of
from nas.report.explanation import Decision, ObservedOption, change_in_words, decisions, observed_options
from nas.report.outcome import samples_in_words, without_inputs
from nas.report.predictions import PREDICTIONS
from nas.report.recorded_run import RecordedRun, changed_settings, default_configuration, number, setting_text
from nas.report.rendering import duration, quoted, render, whole
from nas.report.sample_files import SCORES
from nas.run.checkpoint import write_atomically
from nas.run.implied_arguments import IMPLIED_GROUPS
from nas.run.overrides import typed, typed_script
from nas.run.recorded import trust_prefix
from nas.surroundings import typed_python
from nas.tasks import Measure, parsed_measures

Row = list[str]
MOST_OUTPUTS = 200  # rows of the table of single outputs
AMOUNTS = ("share", "samples")  # measures of how often an output, such as a class, is there


class Effect(NamedTuple):
    """A change in words, and whether it is ``good`` or ``bad``; empty where it is neither."""

    words: str
    mood: str


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
    gap_columns, gap = _networks_compared(run, retrainings)
    return render(
        "page.html.jinja",
        title=outcome_line(run),
        run=run,
        folder=quoted(run.folder),
        trust=trust_prefix(*run.recorded()),
        python=typed_python(),
        train_search=typed_script("train_search.py"),
        train_final=typed_script("train_final.py"),
        candidate=typed("candidate", run.folder),
        resume=typed("resume", run.folder),
        charts=charts,
        facts={name: value for name, value in _facts(run).items() if value is not None},
        why=_decision_table(run),
        observed=_observed_table(run),
        searched=_searched_hyperparameters(run),
        carried=_carried_hyperparameters(run),
        tried=_has_trainings(run),
        main=run.task.main,
        samples=samples_in_words(run.found.space.signature) if run.found else "samples",
        gap_columns=gap_columns,
        gap=gap,
        retrainings=retrainings,
        retrained=_retrained(retrainings, run.task.measures),
        outputs={name: _outputs(one) for name, one in retrainings.items()},
        with_predictions=[name for name, one in retrainings.items() if (one.folder / PREDICTIONS).is_file()],
        with_scores=[name for name, one in retrainings.items() if (one.folder / SCORES).is_file()],
        continued={name: continuation_of(one.result) for name, one in retrainings.items()},
        changed=_changed_settings(run),
        given=_typed_and_implied(run),
        configuration=OmegaConf.to_yaml(OmegaConf.create(dict(run.config)), resolve=False),
        environment=_environment(run),
    )


def outcome_line(run: RecordedRun) -> str:
    """The outcome of the run in one sentence without the architecture."""
    if run.has_unreadable_candidate:
        return "What was found cannot be read."
    if run.found is None:
        steps = max((curve.steps[-1] for curve in run.curves.values()), default=0)
        return f"Not finished: {steps:,} steps so far."
    seconds = run.last("time/total_seconds")
    took = f" in {duration(seconds)}" if seconds is not None else ""
    found = "" if run.is_retraining else f", found{took}"
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    main, parameters = run.task.main, number(result.get("parameters"))
    value = number(result.get(f"test_{main.name}"))
    if value is not None:
        recorded = result.get("told")
        words = recorded if isinstance(recorded, str) else f"{main.words} {main.told(value)}"
        measured = f"{main.told(value)} test {main.words}" if main.unit == "%" else f"Test {words}"
        size = f" with {parameters:,.0f} parameters" if parameters is not None else ""
        return f"{measured}{size} on {run.found.data}{found}."
    return f"An architecture for {run.found.data}{found}; not retrained yet."


def _facts(run: RecordedRun) -> dict[str, str | None]:
    result: Mapping[str, Any] = run.retraining.result if run.retraining else {}
    best = charts.anytime_measure([run])
    curve = charts.anytime_curve(run)
    seed = run.setting("seed")
    return {
        **dict(_fact(one, result) for one in run.task.measures[:2]),
        "parameters": whole(number(result.get("parameters"))),
        f"best validation {best.words} while searching": _number_in_words(best, curve[1][-1] if curve else None),
        "training time" if run.is_retraining else "search time": duration(run.last("time/total_seconds")),
        "samples spent by the search": whole(run.last("budget/samples")),
        "data": run.found.data if run.found else None,
        "space": run.found.space.name if run.found else None,
        "composition": None if run.is_retraining else composition_in_words(run.config),
        "seed": None if seed is None else str(seed),
    }


def _fact(measure: Measure, result: Mapping[str, Any]) -> tuple[str, str | None]:
    """A measure on the test part, named together with what it is without inputs where that is told."""
    beside = without_inputs(result).get(f"{measure.words} without inputs")
    name = f"test {measure.words}" + (f" ({beside} without inputs)" if beside else "")
    return name, _number_in_words(measure, result.get(f"test_{measure.name}"))


def _decision_table(run: RecordedRun) -> dict[str, Any]:
    """The table of decisions, and which kinds of values are known for any of them."""
    rows = decisions(run)
    columns = ["choice", "chosen", "runner-up", "margin", f"decided since {charts.x_label(run)}"]
    main = run.task.main
    change = "points" if main.unit == "%" else f"change of {main.words}"
    effects = [f"{change} if swapped in the supernet", f"{change} if swapped and retrained"]
    # A black-box search has no supernet in which to swap options.
    kept = len(columns) + (0 if run.evaluations else len(effects))
    return {
        "columns": [*columns, *effects][:kept],
        "rows": [_decision_row(run, row)[:kept] for row in rows],
        "known": any(row.margin is not None for row in rows),
        "against_alpha": any(row.margin is not None and row.margin < 0 for row in rows),
        "measured": any(row.effect is not None for row in rows),
        "retrained": any(row.retrained_effect is not None for row in rows),
    }


def _decision_row(run: RecordedRun, row: Decision) -> list[str | Effect | None]:
    decided = "" if row.decided is None else f"{run.place(row.decided):.4g}"
    margin = "" if row.margin is None else f"{row.margin:.3f}"
    effects = [_effect(run.task.main, change) for change in (row.effect, row.retrained_effect)]
    return [row.choice, row.option, row.runner_up or "-", margin, decided, *effects]


def _effect(measure: Measure, change: float | None) -> Effect | None:
    """A choice is good where its runner-up makes the measure worse."""
    if change is None:
        return None
    rise = change if measure.better == "higher" else -change
    return Effect(change_in_words(measure, change), "good" if rise < 0 else "bad" if rise > 0 else "")


def _observed_table(run: RecordedRun) -> list[Row]:
    """A row per choice of a black-box search: records of the chosen option and of the best other option."""
    rows, main = [], run.task.main
    for choice, options in observed_options(run).items():
        chosen = run.found.candidate.architecture[choice] if run.found else ""
        own = next((one for one in options if one.option == chosen), None)
        other = next((one for one in options if one.option != chosen), None)
        name = other.option if other else ""
        rows.append([choice, chosen, *_count_and_mean(main, own), name, *_count_and_mean(main, other)])
    return rows


def _count_and_mean(measure: Measure, option: ObservedOption | None) -> Row:
    return ["", ""] if option is None else [str(option.count), measure.told(option.mean)]


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


def _has_trainings(run: RecordedRun) -> bool:
    """Whether trainings after the search have tried other hyperparameters (``nas.search.trainings``)."""
    owners = {tag.partition("/")[0] for tag in run.curves if tag.endswith("/validation_loss")}
    return bool(owners - {"supernet", "step"})


def _networks_compared(run: RecordedRun, retrainings: Mapping[str, RecordedRun]) -> tuple[Row, list[list[str | float]]]:
    """Columns and rows of the networks on the way: measures, loss, and the main measure again where it is a share."""
    networks, main = _networks_of_the_search(run), run.task.main
    # A measure that only the retrained network has, as macro F1, tells nothing of a gap.
    shown = [one for one in run.task.measures if one is main or any(one.name in values for _, _, values in networks)]
    for name, one in retrainings.items():
        place = "" if name == "final" else f" ({name})"
        tested = {key.removeprefix("test_"): value for key, value in one.result.items() if key.startswith("test_")}
        networks.append((f"discretised and retrained from scratch{place}", "test", tested))
    rows: list[list[str | float]] = []
    for name, split, values in networks:
        value, loss = number(values.get(main.name)), number(values.get("loss"))
        if value is not None:
            told = [_number_in_words(one, values.get(one.name)) or "" for one in shown]
            share = [value] if main.unit == "%" else []
            rows.append([name, split, *told, "" if loss is None else f"{loss:.4f}", *share])
    columns = ["network", "split", *(one.words for one in shown), "loss"]
    return [*columns, ""] if main.unit == "%" else columns, rows


def _networks_of_the_search(run: RecordedRun) -> list[tuple[str, str, Mapping[str, Any]]]:
    """By name and part, what was measured of the supernet and of the network that was read off it."""
    names = {"supernet": "the relaxed supernet", "discretised": "discretised, with the supernet's weights"}
    found = {name: run.discretisation.get(key) for key, name in names.items()}
    networks: list[tuple[str, str, Mapping[str, Any]]] = [
        (name, "validation", values) for name, values in found.items() if isinstance(values, dict)
    ]
    main = run.task.main
    if not any(number(values.get(main.name)) is not None for _, _, values in networks):
        last = {name: run.last(f"supernet/validation_{name}") for name in (main.name, "loss")}
        networks.append((names["supernet"], "validation", last))
    return networks


def _retrained(retrainings: Mapping[str, RecordedRun], measures: Sequence[Measure]) -> list[Row]:
    """A row per entry of ``result.json`` that any of the retrainings has, a column per retraining."""
    results = [one.result for one in retrainings.values()]
    main, *others = [
        [f"test {one.words}", *(_number_in_words(one, result.get(f"test_{one.name}")) or "" for result in results)]
        for one in measures
    ]
    losses = [number(result.get("test_loss")) for result in results]
    rows = [main, ["test loss", *("" if loss is None else f"{loss:.4f}" for loss in losses)], *others]
    trivial = [without_inputs(result) for result in results]
    for name in dict.fromkeys(name for one in trivial for name in one):
        rows.append([name, *(one.get(name, "") for one in trivial)])
    for name in ("parameters", "epochs", "seed"):
        rows.append([name, *(whole(number(result.get(name))) or "" for result in results)])
    rows.append(["hyperparameters", *(str(result.get("hyperparameters_from", "")) for result in results)])
    return [row for row in rows if any(row[1:])]


def _outputs(retraining: RecordedRun) -> dict[str, Any]:
    """The table of single outputs, such as labels, of which at most :data:`MOST_OUTPUTS` are shown; empty without."""
    recorded = retraining.result.get("outputs")
    if not isinstance(recorded, Mapping):
        return {}
    names, values, measures = recorded.get("names"), recorded.get("values"), parsed_measures(recorded.get("measures"))
    if not isinstance(names, list) or not isinstance(values, Mapping) or measures is None:
        return {}
    told = []
    for one in measures:
        column = values.get(one.name)
        if not isinstance(column, list) or len(column) != len(names):
            return {}
        told.append([_number_in_words(one, value) or "-" for value in column])
    rows = [list(row) for row in zip(map(str, names), *told, strict=True)]
    header = [str(recorded.get("each", "")), *(one.words for one in measures)]
    amounts = next((values[one.name] for one in measures if one.name in AMOUNTS), ())
    absent = [str(name) for name, amount in zip(names, amounts, strict=False) if amount == 0]
    left = max(len(rows) - MOST_OUTPUTS, 0)
    return {"columns": header, "rows": rows[:MOST_OUTPUTS], "left": left, "absent": absent}


def _number_in_words(measure: Measure, value: object) -> str | None:
    known = number(value)
    return None if known is None else measure.told(known)


def _typed_and_implied(run: RecordedRun) -> tuple[list[str], list[str]]:
    """The overrides that were typed, and those that went along with them, such as a space's own training."""
    command = run.environment[0].get("command") if run.environment else None
    try:
        typed_keys = {_key(word) for word in shlex.split(command)} if isinstance(command, str) else set()
    except ValueError:
        typed_keys = set()
    along = [one for one in run.overrides if typed_keys and _key(one) in IMPLIED_GROUPS and _key(one) not in typed_keys]
    return [one for one in run.overrides if one not in along], along


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _changed_settings(run: RecordedRun) -> list[Row] | None:
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
