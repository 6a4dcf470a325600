"""Reading a run folder for its page. Nothing in it is trusted, and everything in it may be missing."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import torch
from omegaconf import OmegaConf

from nas.configuration import CONFIGURATION
from nas.errors import InvalidValue, NotTrusted, UnusableInput
from nas.evaluation.network_cost import AUXILIARY, count_parameters
from nas.report.predictions import PREDICTIONS, Predictions, read_predictions
from nas.report.shown_samples import SAMPLES, ShownSamples, read_shown_samples
from nas.run.candidate_file import CandidateFile, parse_candidate, read_candidate_file
from nas.tasks.recorded import OF_OLD, RecordedTask

LARGEST_JSON = 10_000_000  # bytes
LARGEST_TABLE = 500_000_000
T = TypeVar("T")


class EvaluatedCandidate(NamedTuple):
    """A line of ``evaluations.jsonl``: the chosen options, and the metrics that are finite numbers."""

    options: Mapping[str, str]
    metrics: Mapping[str, float]


class Curve(NamedTuple):
    """A tag of ``metrics.csv`` or ``timing.csv``: its values, not-a-number included, and their steps."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class RecordedRun:
    """The content of a run folder.

    Attributes:
        folder: The path of the run folder.
        curves: The curves in ``metrics.csv`` and ``timing.csv`` by tag.
        steps_per_epoch: The optimiser steps of an epoch, or None if the run does not count epochs.
        config: The configuration of the run; empty if it cannot be read.
        overrides: The overrides on the command line.
        found: The candidate, or None if the search has not finished.
        environment: An entry per start of the run, resumed starts included.
        evaluations: The candidates of a black-box search in the order of ``evaluations.jsonl``.
        discretisation, explanation, result: The contents of the JSON files of these names; empty without them.
        retrainings: The retrainings of this run's candidate in its folder by their folder's name; ``final`` first.
        predictions: By target what a retrained network said of test samples, where ``predictions.csv`` has it.
        shown: Test samples of places, where ``samples.npz`` has some.
        problems: A sentence for each file that cannot be read.
    """

    folder: Path
    curves: Mapping[str, Curve]
    steps_per_epoch: float | None
    config: Mapping[str, Any]
    overrides: list[str]
    found: CandidateFile | None
    environment: list[Mapping[str, Any]]
    evaluations: list["EvaluatedCandidate"]
    discretisation: Mapping[str, Any]
    explanation: Mapping[str, Any]
    result: Mapping[str, Any]
    retrainings: Mapping[str, "RecordedRun"]
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    shown: ShownSamples | None = None
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the run in ``folder``.

        Raises:
            InvalidValue: ``folder`` is no run folder.
        """
        if not is_run(folder):
            allowed = "it must be a run folder of train_search.py, with a metrics.csv or a candidate.json in it"
            raise InvalidValue("run folder", folder, allowed)
        problems: list[str] = []
        curves: dict[str, Curve] = {}
        epochs: dict[str, list[int]] = {}
        for name in ("metrics.csv", "timing.csv"):
            _read_curves(folder / name, curves, epochs, problems)
        found, result = _candidate_and_result(folder, problems)
        environment = _read_json(folder / "environment.json", problems)
        config, overrides = _read_yaml(folder, "config", problems), _read_yaml(folder, "overrides", problems)
        return cls(
            folder=folder,
            curves=curves,
            steps_per_epoch=_steps_per_epoch(curves, epochs),
            config=config if isinstance(config, dict) else {},
            overrides=[str(one) for one in overrides] if isinstance(overrides, list) else [],
            found=found,
            environment=[one for one in environment if isinstance(one, dict)] if isinstance(environment, list) else [],
            evaluations=_read_evaluations(folder / "evaluations.jsonl", problems),
            discretisation=_mapping(_read_json(folder / "discretisation.json", problems)),
            explanation=_mapping(_read_json(folder / "explanation.json", problems)),
            result=result,
            retrainings={} if result else {one.name: cls.read(one) for one in retrainings(folder)},
            predictions=_read_or_note(read_predictions, folder / PREDICTIONS, problems) or {},
            shown=_read_or_note(read_shown_samples, folder / SAMPLES, problems),
            problems=problems,
        )

    @property
    def retraining(self) -> "RecordedRun | None":
        """The retraining in ``final/`` or else the first one; this run if it is a retraining itself."""
        return self if self.result else next(iter(self.retrainings.values()), None)

    @property
    def has_unreadable_candidate(self) -> bool:
        """Whether there is a candidate of which :attr:`problems` say why it cannot be read."""
        return self.found is None and ((self.folder / "candidate.json").is_file() or "candidate" in self.result)

    @property
    def is_retraining(self) -> bool:
        """Whether it is a retraining and no search."""
        return bool(self.result) or "candidate" in self.config

    def recorded(self) -> list[Any]:
        """What names classes that a command has to trust."""
        return [self.config, *([] if self.found is None else [self.found.space.describe()])]

    @property
    def task(self) -> RecordedTask:
        """What its numbers are; those of a run from before there were tasks are of classification."""
        starts = (one.get("task") for one in reversed(self.environment))
        results = (one.result for one in (self, *self.retrainings.values()))
        return next(filter(None, map(RecordedTask.from_json, (*starts, *results))), OF_OLD)

    def setting(self, key: str) -> Any:
        """The value of a dotted key in the configuration, or None; a reference to another key is followed once."""
        value = self._value(key)
        other = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        return self._value(other[1]) if other else value

    def _value(self, key: str) -> Any:
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def tags(self, prefix: str) -> list[str]:
        """The recorded tags below ``prefix``, in the order of their first record."""
        return [tag for tag in self.curves if tag.startswith(prefix)]

    def last(self, tag: str) -> float | None:
        """The newest value of ``tag``, or None."""
        return self.curves[tag].values[-1] if tag in self.curves else None

    def place(self, step: int) -> float:
        """The place of ``step`` on the horizontal axis: in epochs if the run counts epochs."""
        return step / self.steps_per_epoch if self.steps_per_epoch else float(step)

    def probabilities(self) -> Mapping[str, Mapping[str, Curve]]:
        """The recorded probability of each option of each row of alpha."""
        rows: dict[str, dict[str, Curve]] = {}
        for tag in self.tags("probability/"):
            row, _, option = tag.removeprefix("probability/").partition("/")
            rows.setdefault(row, {})[option] = self.curves[tag]
        return rows

    def probability_history(self) -> Iterator[tuple[int, dict[str, dict[str, float]]]]:
        """Every recorded step with the probabilities of all rows; a step that lacks one is left out."""
        rows = self.probabilities()
        columns = [
            (row, option, dict(zip(curve.steps, curve.values, strict=True)))
            for row, options in rows.items()
            for option, curve in options.items()
        ]
        if not columns:
            return
        for step in columns[0][2]:
            if all(step in values for _, _, values in columns):
                table: dict[str, dict[str, float]] = {}
                for row, option, values in columns:
                    table.setdefault(row, {})[option] = values[step]
                yield step, table


def _candidate_and_result(folder: Path, problems: list[str]) -> tuple[CandidateFile | None, Mapping[str, Any]]:
    """The candidate that was found, or that was retrained, and the result of the retraining, empty for a search."""
    found = None
    if (folder / "candidate.json").is_file():
        try:
            found = read_candidate_file(folder / "candidate.json")
        except NotTrusted:  # without its space the page would lack what it is about
            raise
        except (InvalidValue, UnusableInput) as error:
            problems.append(f"candidate.json cannot be read: {error}")
    result = _mapping(_read_json(folder / "result.json", problems))
    if found is None and "candidate" in result:
        try:
            found = parse_candidate(result["candidate"])
        except InvalidValue as error:
            problems.append(f"The candidate in result.json cannot be read: {error}")
    return found, _as_used(result, found) if result and found is not None else result


def _as_used(result: Mapping[str, Any], found: CandidateFile) -> Mapping[str, Any]:
    """``result`` with the parameters of the network that is used: the first results counted an auxiliary head, too."""
    if AUXILIARY in result or "parameters" not in result or not getattr(found.space, "auxiliary", False):
        return result
    with torch.device("meta"):
        network = found.space.network(found.candidate.architecture)
    return {**result, "parameters": int(count_parameters(network, found.space.input_shape))}


def recorded_candidate(folder: Path) -> CandidateFile | None:
    """The candidate that the run in ``folder`` has found or retrained; None where none is recorded yet.

    Raises:
        InvalidValue, UnusableInput: It cannot be read.
    """
    if (folder / "candidate.json").is_file():
        return read_candidate_file(folder / "candidate.json")
    problems = list[str]()
    result = _mapping(_read_json(folder / "result.json", problems))
    if problems:
        raise UnusableInput(f"In {folder}, {problems[0]}")
    return parse_candidate(result["candidate"]) if "candidate" in result else None


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run, finished or not."""
    return (folder / "metrics.csv").is_file() or (folder / "candidate.json").is_file()


def retrainings(folder: Path) -> list[Path]:
    """The folders in ``folder`` with a retraining of its candidate, under any name; ``final`` comes first."""

    def values(candidate: Any) -> list[Any]:
        return [_mapping(candidate).get(part) for part in ("architecture", "hyperparameters")]

    own = values(_read_json(folder / "candidate.json", []))

    def belongs(one: Path) -> bool:
        retrained = values(_mapping(_read_json(one / "result.json", [])).get("candidate"))
        if None not in (*own, *retrained):
            return own == retrained
        if one.name == "final":
            return True
        config = _read_yaml(one, "config", [])
        named = config.get("candidate") if isinstance(config, dict) else None
        # An unfinished retraining is known by the name alone, since a run folder may have been moved with its content.
        return isinstance(named, str) and Path(named).name in (folder.resolve().name, "candidate.json")

    inside = sorted(one for one in folder.iterdir() if (one / "metrics.csv").is_file())
    return sorted(filter(belongs, inside), key=lambda one: one.name != "final")


def _read_curves(path: Path, curves: dict[str, Curve], epochs: dict[str, list[int]], problems: list[str]) -> None:
    """Append the content of ``path``; rows that cannot be read are counted and left out."""
    if not path.is_file():
        return
    if path.stat().st_size > LARGEST_TABLE:
        problems.append(f"{path.name} is larger than {LARGEST_TABLE} bytes and was left out.")
        return
    bad = 0
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):
                try:
                    tag, step, epoch, value = row["tag"], int(row["step"]), int(row["epoch"]), float(row["value"])
                except (KeyError, TypeError, ValueError):
                    bad += 1
                    continue
                curve = curves.setdefault(tag, Curve([], []))
                curve.steps.append(step)
                curve.values.append(value)
                epochs.setdefault(tag, []).append(epoch)
    except (OSError, csv.Error) as error:
        problems.append(f"{path.name} cannot be read to its end ({error}).")
    if bad:
        problems.append(f"{bad} rows of {path.name} cannot be read and were left out.")


def _steps_per_epoch(curves: Mapping[str, Curve], epochs: Mapping[str, list[int]]) -> float | None:
    """The steps of an epoch, from the first recorded end of an epoch."""
    for tag in ("train/loss", "validation/loss"):
        if tag in curves and curves[tag].steps[0] > 0 and epochs[tag][0] >= 0:
            return curves[tag].steps[0] / (epochs[tag][0] + 1)
    return None


def _read_json(path: Path, problems: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("too large")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        problems.append(f"{path.name} is not readable JSON.")
        return None


def _read_evaluations(path: Path, problems: list[str]) -> list[EvaluatedCandidate]:
    if not path.is_file():
        return []
    found: list[EvaluatedCandidate] = []
    if path.stat().st_size > LARGEST_TABLE:
        problems.append(f"{path.name} is larger than {LARGEST_TABLE} bytes and was left out.")
        return found
    bad = 0
    for line in path.read_bytes().splitlines():
        try:
            content = json.loads(line)
            options, metrics = content["candidate"]["architecture"], content["metrics"]
            named = {str(choice): str(option) for choice, option in options.items()}
            numbers = {str(name): value for name, one in metrics.items() if (value := number(one)) is not None}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            bad += 1
            continue
        found.append(EvaluatedCandidate(named, numbers))
    if bad:
        problems.append(f"{bad} lines of {path.name} cannot be read and were left out.")
    return found


def _read_or_note(read: Callable[[Path], T], path: Path, problems: list[str]) -> T | None:
    """What ``read`` makes of ``path``, or None with a sentence more in ``problems``."""
    try:
        return read(path)
    except ValueError as error:
        problems.append(f"{error}.")
        return None


def _read_yaml(folder: Path, name: str, problems: list[str]) -> Any:
    path = folder / ".hydra" / f"{name}.yaml"
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("too large")
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception:  # the YAML parser's own errors have no common base that omegaconf exports
        problems.append(f".hydra/{name}.yaml is not readable YAML.")
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """``value`` of a JSON file if it is a finite number, else None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


class ChangedSetting(NamedTuple):
    """A key with its value by default and in the run, as text; None where it is missing."""

    key: str
    default: str | None
    value: str | None


@cache
def default_configuration(entry: str) -> Mapping[str, Any] | None:
    """What ``train_search`` or ``train_final`` composes without overrides; None without the folder ``conf``."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if not (CONFIGURATION / f"{entry}.yaml").is_file():
        return None
    running = GlobalHydra.instance()
    application, running.hydra = running.hydra, None  # at the end of a run, Hydra is running
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            config = OmegaConf.to_container(compose(entry), resolve=False)
    finally:
        GlobalHydra.instance().hydra = application  # leaving the block above has replaced it
    return config if isinstance(config, dict) else None  # type: ignore[return-value]


def changed_settings(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[ChangedSetting]:
    """The settings that differ, in the order of ``config``; those in ``default`` alone come last."""
    ours, theirs = dict(_leaves(config)), dict(_leaves(default))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [ChangedSetting(key, theirs.get(key), ours.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{key}.")
        else:
            found.append((key, setting_text(value)))
    return found


def setting_text(value: object) -> str:
    """``value`` as YAML writes it on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {setting_text(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(setting_text, value)) + "]"
    return str(value)
