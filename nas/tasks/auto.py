"""The task that the data suggest: one fixed rule, which is told."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import LabelledDataset
from nas.data.labelled import is_one_hot
from nas.data.texts.text_stream import TextDataset
from nas.errors import UnusableInput, require
from nas.tasks.classification import Classification
from nas.tasks.dense import DenseClassification, DenseRegression
from nas.tasks.language import Language
from nas.tasks.regression import Regression
from nas.tasks.task import Task, task_in_words

log = logging.getLogger(__name__)
MOST_CLASSES = 20


@dataclass(frozen=True)
class Auto:
    """Takes the task that the targets are of.

    Running text is a language. Named classes, truth values and whole numbers of at most 20 values are classes; numbers
    with a fractional part are to be predicted. Several labels per sample are never guessed.

    Args:
        class_weights: Those of :class:`nas.tasks.Classification`, for targets that are classes.
        ignore: That of :class:`nas.tasks.DenseClassification`, for classes of places.
    """

    class_weights: Literal["balanced"] | Sequence[float] | None = None
    ignore: int | None = None

    def fitted(self, splits: DataSplits) -> tuple[Task, DataSplits]:
        """The task and its data.

        Raises:
            UnusableInput: The rule does not tell, or the targets are not those of the task.
        """
        targets = splits.train.targets
        of_text = isinstance(splits.train, TextDataset)
        of_places = splits.head == "dense"
        allowed = "it is for tasks with one class per sample"
        require(self.class_weights is None or not (of_text or of_places), "class_weights", self.class_weights, allowed)
        of_classes = splits.class_names is not None or not _has_fractions(targets)
        allowed = "it is a class of places: of masks, or of whole numbers as large as the inputs"
        require(self.ignore is None or (of_places and of_classes), "ignore", self.ignore, allowed)
        if of_text:
            return _logged(*Language().fitted(splits), "")
        if splits.doubt:
            raise UnusableInput(splits.doubt)
        if of_places:
            dense: Task = DenseClassification(self.ignore) if of_classes else DenseRegression()
            other = "dense_regression for numbers" if of_classes and splits.class_names is None else ""
            return _logged(*dense.fitted(splits), other)
        if isinstance(splits.train, LabelledDataset):
            return Classification(self.class_weights).fitted(splits)
        if splits.class_names is not None:
            return _logged(*Classification(self.class_weights).fitted(splits), "")
        if of_classes:
            _refuse_doubtful_classes(splits)
            return _logged(*Classification(self.class_weights).fitted(splits), "regression for numbers")
        allowed = "the targets are numbers to be predicted; task=classification takes them for classes"
        require(self.class_weights is None, "class_weights", self.class_weights, allowed)
        return _logged(*Regression().fitted(splits), "classification for classes" if targets.dim() == 1 else "")


def _refuse_doubtful_classes(splits: DataSplits) -> None:
    """Refuse whole numbers that may be no classes: several per sample, or of many values."""
    targets = splits.train.targets
    if targets.dim() != 1:
        found = is_one_hot(targets.flatten(1))
        classes = "; each row has one 1, and y.argmax(1) would make them classes" if found else ""
        raise UnusableInput(
            f"The targets of {splits.name} are {tuple(targets.shape)} whole numbers: task=multi_label takes 0 "
            f"and 1 as labels that are there or not, task=regression takes numbers{classes}."
        )
    values = len(torch.cat([dataset.targets for dataset in splits.parts.values()]).unique())
    if values > MOST_CLASSES:
        raise UnusableInput(
            f"The targets of {splits.name} are whole numbers of {values:,} values, which may be classes or "
            "amounts: say task=classification or task=regression."
        )


def _logged(task: Task, splits: DataSplits, other: str) -> tuple[Task, DataSplits]:
    """Log both in words, and return them as they are; ``other`` is the setting of another task."""
    log.info(task_in_words(task, splits) + (f"; task={other}" if other else ""))
    return task, splits


def _has_fractions(targets: Tensor) -> bool:
    if not targets.is_floating_point():
        return False
    known = targets[targets.isfinite()]
    return bool((known != known.round()).any())
