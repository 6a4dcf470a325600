"""What is learned from the data: the loss, the size of the output, the measures, the score."""

from nas.tasks.auto import Auto
from nas.tasks.classification import PLAIN_CLASSIFICATION, Classification, smoothed_cross_entropy
from nas.tasks.dense import DenseClassification, DenseRegression
from nas.tasks.language import Language
from nas.tasks.loading import data_and_task
from nas.tasks.multi_label import MultiLabel
from nas.tasks.recorded import (
    RecordedTask,
    measures_of,
    parsed_measures,
    recorded_outputs,
    recorded_task,
    restored_task,
)
from nas.tasks.regression import Regression
from nas.tasks.task import Measure, Metrics, MetricsOfEach, Prediction, Task, TaskChoice

__all__ = [
    "PLAIN_CLASSIFICATION",
    "Auto",
    "Classification",
    "DenseClassification",
    "DenseRegression",
    "Language",
    "Measure",
    "Metrics",
    "MetricsOfEach",
    "MultiLabel",
    "Prediction",
    "RecordedTask",
    "Regression",
    "Task",
    "TaskChoice",
    "data_and_task",
    "measures_of",
    "parsed_measures",
    "recorded_outputs",
    "recorded_task",
    "restored_task",
    "smoothed_cross_entropy",
]
