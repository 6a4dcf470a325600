"""What a run says of its task in its files, and what those who read them make of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from nas.errors import UnusableInput
from nas.signature import Signature
from nas.tasks.classification import Classification
from nas.tasks.dense import DenseClassification, DenseRegression
from nas.tasks.multi_label import MultiLabel
from nas.tasks.regression import Regression, StandardisedNumbers
from nas.tasks.task import Measure, Task


class RecordedTask(NamedTuple):
    """What the numbers in a run folder are.

    Attributes:
        name: As in ``conf/task/<name>.yaml``.
        glanced: The tag of the number that is recorded of every step.
        measures: The main one first.
    """

    name: str
    glanced: str
    measures: tuple[Measure, ...]

    @property
    def main(self) -> Measure:
        return self.measures[0]

    @classmethod
    def of(cls, task: Task) -> "RecordedTask":
        return cls(task.name, task.glanced, task.measures)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "glanced": self.glanced, "measures": [one._asdict() for one in self.measures]}

    @classmethod
    def from_json(cls, content: object) -> "RecordedTask | None":
        """The inverse of :meth:`to_json`, and what a ``result.json`` says; None where ``content`` says nothing."""
        if not isinstance(content, Mapping):
            return None
        name, measures = content.get("name", content.get("task")), parsed_measures(content.get("measures"))
        if not isinstance(name, str) or measures is None:
            return None
        glanced = content.get("glanced")
        return cls(name, glanced if isinstance(glanced, str) else measures[0].name, measures)


OF_OLD = RecordedTask.of(Classification())
"""That of a run from before there were tasks."""


def restored_task(content: Mapping[str, Any], signature: Signature) -> Task:
    """The task that :meth:`Task.to_json` described, as far as a trained network needs it: without weights of classes.

    Args:
        content: What was described.
        signature: What goes into the network and what comes out.

    Raises:
        UnusableInput: It is one of a user's own, or says nothing of single samples.
    """
    kinds: dict[str, type[Task]] = {
        one.name: one for one in (Classification, MultiLabel, Regression, DenseClassification, DenseRegression)
    }
    name = content["name"]
    if name not in kinds:
        raise UnusableInput(
            f"Nothing is predicted of single samples with task={name}: that is for {', '.join(kinds)}; network.py "
            "beside the weights takes any inputs."
        )
    task = kinds[name]()
    task.signature = signature
    if isinstance(task, StandardisedNumbers):
        task.error = content["loss"]
        task.mean, task.deviation = (torch.tensor(content[key], dtype=torch.float64) for key in ("mean", "std"))
    return task


def recorded_task(task: Task, values: Mapping[str, float], trivial: Mapping[str, float]) -> dict[str, Any]:
    """The entries of ``result.json`` that say what its numbers are.

    Args:
        task: What the outputs mean.
        values: The measures of the network.
        trivial: The measures of what looks at no input.
    """
    main = task.measures[0]
    return {
        "task": task.name,
        "told": task.told(values),
        "main": {"name": main.name, "better": main.better, "value": values[main.name]},
        "measures": [one._asdict() for one in task.measures],
        "trivial": {one.name: trivial[one.name] for one in task.measures},
    }


def recorded_outputs(task: Task, each: Mapping[Measure, Sequence[float]], names: Sequence[str]) -> dict[str, Any]:
    """The entry of ``result.json`` about single outputs, such as labels; empty where nothing is measured of them.

    Args:
        task: What the outputs mean.
        each: By measure its value for each output; one that is not finite cannot be told.
        names: What the outputs are called.
    """
    if not each:
        return {}
    values = {one.name: [value if math.isfinite(value) else None for value in found] for one, found in each.items()}
    return {
        "outputs": {
            "each": task.output,
            "names": [*names],
            "measures": [one._asdict() for one in each],
            "values": values,
        }
    }


def measures_of(result: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The measures of a ``result.json``, the main one first; one from before there were tasks is of classification."""
    return parsed_measures(result.get("measures")) or OF_OLD.measures


def parsed_measures(content: object) -> tuple[Measure, ...] | None:
    """None where ``content`` is no list of measures."""
    if not isinstance(content, list) or not content:
        return None
    found = []
    for one in content:
        good = isinstance(one, Mapping) and all(isinstance(one.get(key), str) for key in Measure._fields)
        if not good or one["better"] not in ("higher", "lower"):
            return None
        found.append(Measure(*(one[key] for key in Measure._fields)))
    return tuple(found)
