"""What a finished run says of its task, for those who read its files."""

from collections.abc import Mapping
from typing import Any

from nas.tasks.classification import Classification
from nas.tasks.task import Measure, Task


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


def measures_of(result: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The measures of a ``result.json``, the main one first; one from before there were tasks is of classification."""
    recorded = result.get("measures")
    if not isinstance(recorded, list):
        return Classification.measures
    return tuple(Measure(*(str(one[key]) for key in Measure._fields)) for one in recorded)  # type: ignore[arg-type]
