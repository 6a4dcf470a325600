"""What is learned from the data: the loss, the size of the output, the metrics."""

from nas.tasks.classification import PLAIN_CLASSIFICATION, Classification, smoothed_cross_entropy
from nas.tasks.language import Language
from nas.tasks.loading import data_and_task
from nas.tasks.task import Measure, Metrics, Task

__all__ = [
    "PLAIN_CLASSIFICATION",
    "Classification",
    "Language",
    "Measure",
    "Metrics",
    "Task",
    "data_and_task",
    "smoothed_cross_entropy",
]
