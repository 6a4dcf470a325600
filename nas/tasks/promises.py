"""A task of a user's own, tried on a few samples: what it forgets would otherwise end a run after its last step."""

import json
import math

from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.errors import require
from nas.tasks.task import Task

TRIED = 4  # samples


def check_promises(task: Task, splits: DataSplits) -> None:
    """Compute with the trivial outputs whatever a run asks of ``task``.

    Raises:
        InvalidValue: A loss has another shape than was asked for, a measure is not computed, or the task cannot be
            recorded.
    """
    name = type(task).__name__
    targets = splits.validation.targets[:TRIED]
    outputs = task.trivial(targets)
    for what, loss, shape in (
        ("loss(outputs, targets)", task.loss(outputs, targets), ()),
        ("loss(..., reduction='none')", task.loss(outputs, targets, reduction="none"), (len(targets),)),
        ("reported_loss(outputs, targets)", task.reported_loss(outputs, targets), ()),
        ("glance(outputs, targets)", task.glance(outputs, targets), ()),
    ):
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        require(found == shape, "task", name, f"its {what} gives {found}, it must be a tensor of shape {shape}")
    metrics = task.metrics(targets.device)
    metrics.update(outputs, targets)
    values = metrics.compute()
    lacking = ", ".join(one.name for one in task.measures if one.name not in values)
    require(not lacking, "task", name, f"its metrics compute {', '.join(values)}, and its measures have {lacking}, too")
    known = isinstance(task.ignorance, float | int) and math.isfinite(task.ignorance)
    require(known, "task", name, f"its ignorance is {task.ignorance}, it must be a number")
    try:
        json.dumps(task.to_json())
    except TypeError as error:
        require(False, "task", name, f"its to_json() has what JSON has not ({error})")
