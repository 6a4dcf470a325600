"""The data of a run and its task, which is fitted to them."""

import logging

from omegaconf import DictConfig

from nas.configuration import build, is_own
from nas.data.data_splits import DataSource, DataSplits, loaded
from nas.data.dataset import TargetDataset
from nas.errors import keys_below
from nas.tasks.classification import Classification
from nas.tasks.promises import check_promises
from nas.tasks.task import Task, task_in_words

log = logging.getLogger(__name__)


def data_and_task(config: DictConfig) -> tuple[DataSource, DataSplits, Task]:
    """What ``config.data`` names, read and split, with targets as the task of ``config.task`` takes them.

    A run that was recorded before there were tasks is one of classification.

    Raises:
        InvalidValue: A setting of the data or the task is not allowed.
        UnusableInput: The data cannot be read, or their targets are not those of such a task.
    """
    source = build(config.data, "data")
    chosen = Classification() if config.get("task") is None else build(config.task, "task")
    with keys_below("data"):
        splits = loaded(source)
    with keys_below("task"):
        task, splits = chosen.fitted(splits)
    if is_own(type(task)):  # ours are tested, and their measures take seconds to import
        check_promises(task, splits)
    if isinstance(splits.train, TargetDataset) and task.name == getattr(chosen, "name", None):
        log.info(task_in_words(task, splits))  # a rule that chooses has logged it
    return source, splits, task
