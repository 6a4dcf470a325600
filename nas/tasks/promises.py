"""A task of a user's own, tried on a few samples: what it forgets would otherwise end a run after its last step."""

import json
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from nas.configuration import asked
from nas.data.augmentation import UNKNOWN_CLASS
from nas.data.data_splits import DataSplits
from nas.errors import require
from nas.tasks.task import Task

TRIED = 4  # samples


def check_promises(task: Task, splits: DataSplits) -> None:
    """Compute with the trivial outputs whatever a run asks of ``task``.

    Raises:
        InvalidValue: A loss has another shape than was asked for, a measure is not computed, something raises, or the
            task cannot be recorded.
    """
    name = type(task).__name__
    known = splits.validation.targets
    targets = known[:: max(1, len(known) // TRIED)][:TRIED]  # the samples of a class may lie side by side
    outputs = asked("task", name, "trivial(targets)", lambda: task.trivial(targets))
    losses: tuple[tuple[str, Callable[[], Any], tuple[int, ...]], ...] = (
        ("loss(outputs, targets)", lambda: task.loss(outputs, targets), ()),
        ("loss(..., reduction='none')", lambda: task.loss(outputs, targets, reduction="none"), (len(targets),)),
        ("reported_loss(outputs, targets)", lambda: task.reported_loss(outputs, targets), ()),
        ("glance(outputs, targets)", lambda: task.glance(outputs, targets), ()),
    )
    for what, compute, shape in losses:
        loss = asked("task", name, what, compute)
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        require(found == shape, "task", name, f"its {what} gives {found}, it must be a tensor of shape {shape}")
    try:
        values = _measured(task, targets)
    except Exception:  # a measure may need more samples, or samples of both classes
        values = asked("task", name, "metrics(device)", lambda: _measured(task, known))
    lacking = ", ".join(one.name for one in task.measures if one.name not in values)
    require(not lacking, "task", name, f"its metrics compute {', '.join(values)}, and its measures have {lacking}, too")
    places = asked("task", name, "places(outputs, targets)", lambda: task.places(outputs, targets))
    _check_places(name, task, places, targets)
    ignorance = asked("task", name, "ignorance", lambda: task.ignorance)
    good = isinstance(ignorance, float | int) and math.isfinite(ignorance)
    require(good, "task", name, f"its ignorance is {ignorance}, it must be a number")
    record = asked("task", name, "to_json()", task.to_json)
    try:
        json.dumps(record)
    except TypeError as error:
        require(False, "task", name, f"its to_json() has what JSON has not ({error})")


def _check_places(name: str, task: Task, places: tuple[Tensor, Tensor] | None, targets: Tensor) -> None:
    if places is None:
        return
    shape, numbers = (len(targets), *task.signature.input_shape[1:]), places[0].is_floating_point()
    shapes = [tuple(one.shape[:1] + one.shape[2:]) if numbers else tuple(one.shape) for one in places]
    alike = shapes == [shape, shape] and places[0].shape == places[1].shape and places[1].is_floating_point() == numbers
    known = [one[one != UNKNOWN_CLASS] for one in places]
    good = numbers or all(bool(((one >= 0) & (one < task.signature.outputs)).all()) for one in known)
    allowed = "its places(outputs, targets) must be two tensors, (B, ...) of classes or (B, K, ...) of numbers"
    require(alike and good, "task", name, allowed)


def _measured(task: Task, targets: Tensor) -> dict[str, float]:
    metrics = task.metrics(targets.device)
    metrics.update(task.trivial(targets), targets)
    return metrics.compute()
