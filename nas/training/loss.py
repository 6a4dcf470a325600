"""The training loss: the task's, of inputs that mixup may have faded into each other."""

from torch import Tensor

from nas.operations.memory import Outputs, Remembered
from nas.tasks.task import NOTHING, Task, Values
from nas.training.augment import AugmentedBatch


def training_loss(task: Task, outputs: Outputs, shown: AugmentedBatch, values: Values = NOTHING) -> Tensor:
    """The mean loss of ``outputs`` (B, ...), 0-dim; a faded sample's is the same mixture of both targets' losses."""
    if isinstance(outputs, Remembered):
        return training_loss(task, outputs.logits, shown, values) + outputs.penalty(values)
    if shown.partners is None or shown.share is None:
        return task.loss(outputs, shown.targets, values)
    own = task.loss(outputs, shown.targets, values, "none")
    other = task.loss(outputs, shown.partners, values, "none")
    return ((1 - shown.share) * own + shown.share * other).mean()
