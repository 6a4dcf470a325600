"""``candidate.json``: a candidate with all that is needed to rebuild its network (no paths, no times).

Its last entry is a fingerprint of all others, so that a damaged file that still parses is not taken for a result. Who
edits a file by hand removes the fingerprint; a file without one is read as it stands.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.candidate import Architecture, Candidate, Hyperparameters, Schedule
from nas.configuration import matches
from nas.errors import InvalidValue, UnusableInput, require
from nas.run.checkpoint import write_atomically
from nas.spaces.recorded import space_from_description
from nas.spaces.space import SearchSpace

SCHEMA = 2  # the first had no task, preparation and digest: it is of images and one class each
LARGEST_FILE = 1_000_000  # bytes
MOST_NAMES = 500_000  # bytes of a file's class names, which leave room for all else
ENTRIES = ("schema", "data", "space", "architecture", "hyperparameters", "schedule", "schedule_end", "settled")
OPTIONAL = ("trajectory", "class_names", "task", "preparation", "digest")
PLAIN_TASK = {"name": "classification", "class_weights": None}
LONGEST_TRAJECTORY = 1000
NAME = re.compile(r"[\w./-]{1,200}")


@dataclass(frozen=True)
class CandidateFile:
    """What ``candidate.json`` holds.

    Attributes:
        candidate: The architecture and its hyperparameters.
        space: The space, bound to its input shape and classes.
        data: The data set's name.
        schedule: The learning-rate schedule that the hyperparameters were learned with.
        settled: Per decision (``architecture`` and each learned hyperparameter) whether it had come to rest.
        schedule_end: The share of the learning rate that the schedule had come down to at the end.
        trajectory: How the learned hyperparameters moved: per name equally many values, evenly spread over the search.
        class_names: What the space's classes are called, in the order of the logits; None where the data have no names.
        task: What the outputs mean, as :meth:`nas.tasks.Task.to_json` has it.
        preparation: What was measured to prepare the data, as their source has it.
        digest: The SHA-256 of the data, empty where their source has none.
    """

    candidate: Candidate
    space: SearchSpace
    data: str
    schedule: Schedule
    settled: dict[str, bool] = field(default_factory=dict)
    schedule_end: float = 0.0
    trajectory: Mapping[str, Sequence[float]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    task: Mapping[str, Any] = field(default_factory=lambda: dict(PLAIN_TASK))
    preparation: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        recorded = {name: list(values) for name, values in self.trajectory.items()}
        names = None if self.class_names is None else list(self.class_names)
        task = {} if self.task == PLAIN_TASK else {"task": dict(self.task)}
        prepared = {"preparation": dict(self.preparation)} if self.preparation else {}
        later = task | prepared | ({"digest": self.digest} if self.digest else {})
        return {
            "schema": SCHEMA if later else 1,
            "data": self.data,
            "space": self.space.describe(),
            "architecture": dict(self.candidate.architecture),
            "hyperparameters": dict(self.candidate.hyperparameters),
            "schedule": self.schedule,
            "schedule_end": self.schedule_end,
            "settled": self.settled,
            **({"trajectory": recorded} if recorded else {}),
            **({} if names is None or len(json.dumps(names, indent=2)) > MOST_NAMES else {"class_names": names}),
            **later,
        }

    def write(self, path: Path) -> None:
        content = self.to_json()
        text = json.dumps({**content, "fingerprint": fingerprint(content)}, indent=2, allow_nan=False)
        write_atomically(path, (text + "\n").encode())


def fingerprint(content: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that change with any entry of ``content``, though not with its order or layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("an entry is there twice")
    return entries


def read_candidate_file(path: Path) -> CandidateFile:
    """The candidate in ``path``; nothing in the file is executed.

    Raises:
        UnusableInput: The file cannot be read, is too large, or is not JSON.
        InvalidValue: Something in it is missing or impossible.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UnusableInput(f"{path} is larger than a candidate can be ({LARGEST_FILE} bytes).")
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise UnusableInput(f"The candidate {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"The candidate {path} is not readable JSON.") from error
    try:
        return parse_candidate(content)
    except InvalidValue as error:
        raise InvalidValue(f"{path}: {error.key}", error.value, error.allowed) from error
    except RecursionError as error:
        raise UnusableInput(f"The candidate {path} is nested too deeply.") from error


def parse_candidate(content: object) -> CandidateFile:
    """The inverse of :meth:`CandidateFile.to_json`.

    Raises:
        InvalidValue: Something in it is missing or impossible.
    """
    if not isinstance(content, dict):
        raise InvalidValue("candidate", content, "it must be a JSON object")
    schema = content.get("schema")
    is_candidate = schema is not None or "architecture" in content
    require(is_candidate, "candidate", "{...}", "it must be what a search writes as candidate.json")
    require(type(schema) is int and 1 <= schema <= SCHEMA, "schema", schema, f"it must be from 1 to {SCHEMA}")
    for name in content:
        known = (*ENTRIES, *OPTIONAL, "fingerprint")
        require(name in known, name, "...", f"a candidate has {', '.join((*ENTRIES, *OPTIONAL))}")
    space = space_from_description(content.get("space"))
    candidate = _parsed_candidate(content.get("architecture"), content.get("hyperparameters"), space)
    data, schedule, settled = content.get("data"), content.get("schedule"), content.get("settled")
    if not isinstance(data, str) or not NAME.fullmatch(data):
        raise InvalidValue("data", data, "it must be a data set's name")
    if schedule not in ("constant", "cosine", "exponential"):
        raise InvalidValue("schedule", schedule, "it must be constant, cosine or exponential")
    if not isinstance(settled, dict) or not all(isinstance(value, bool) for value in settled.values()):
        raise InvalidValue("settled", settled, "it must be an object of truth values")
    end = content.get("schedule_end", 0.0)  # the first files had none
    good = matches(end, float) and 0 <= end <= 1 and (end > 0 or schedule != "exponential")
    require(good, "schedule_end", end, "it must be a number from 0 to 1, above 0 for an exponential schedule")
    trajectory = _parsed_trajectory(content.get("trajectory", {}), candidate.hyperparameters)
    class_names = _parsed_class_names(content.get("class_names"), space.classes)
    task, preparation = content.get("task", dict(PLAIN_TASK)), content.get("preparation", {})
    good = isinstance(task, dict) and isinstance(task.get("name"), str)
    require(good, "task", task, "it must be an object with the task's name")
    require(isinstance(preparation, dict), "preparation", preparation, "it must be an object")
    digest = content.get("digest", "")
    good = isinstance(digest, str) and re.fullmatch(r"([0-9a-f]{64})?", digest) is not None
    require(good, "digest", digest, "it must be 64 hexadecimal digits")
    if "fingerprint" in content:
        found = content.pop("fingerprint")
        allowed = "the file has been changed since it was written; if that was on purpose, remove its fingerprint"
        require(found == fingerprint(content), "fingerprint", found, allowed)
    return CandidateFile(
        candidate, space, data, schedule, settled, float(end), trajectory, class_names, task, preparation, digest
    )


def _parsed_candidate(options: object, values: object, space: SearchSpace) -> Candidate:
    if not isinstance(options, dict) or not all(isinstance(option, str) for option in options.values()):
        raise InvalidValue("architecture", options, "it must be an object of texts")
    architecture = Architecture(space.name, options)
    architecture.check(space.choices)
    if not isinstance(values, dict):
        raise InvalidValue("hyperparameters", values, "it must be an object of numbers")
    for name, value in values.items():
        good = matches(value, float) and math.isfinite(value)
        require(good, f"hyperparameters.{name}", value, "it must be a finite number")
    return Candidate(architecture, Hyperparameters(values))


def _parsed_class_names(content: object, classes: int) -> tuple[str, ...] | None:
    if content is None:
        return None
    allowed = f"it must be a list of {classes} texts, a name per class"
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise InvalidValue("class_names", content, allowed)
    require(len(content) == classes, "class_names", content, allowed)
    return tuple(content)


def _parsed_trajectory(content: object, hyperparameters: Mapping[str, float]) -> dict[str, list[float]]:
    allowed = f"it must hold lists of equal length, 1 to {LONGEST_TRAJECTORY} finite numbers each"
    if not isinstance(content, dict) or not all(isinstance(values, list) for values in content.values()):
        raise InvalidValue("trajectory", content, allowed)
    lengths = {len(values) for values in content.values()}
    good = not content or (len(lengths) == 1 and 1 <= max(lengths) <= LONGEST_TRAJECTORY)
    require(good, "trajectory", sorted(lengths), allowed)
    for name, values in content.items():
        require(name in hyperparameters, f"trajectory.{name}", "...", "the candidate has no such hyperparameter")
        good = all(matches(value, float) and math.isfinite(value) for value in values)
        require(good, f"trajectory.{name}", "...", allowed)
    return content
