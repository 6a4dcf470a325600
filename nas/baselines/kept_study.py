"""An Optuna study in a file or a database, written trial by trial while a search runs, for others to read."""

from pathlib import Path
from typing import Any

from nas.configuration import UnusableInput, optional_module

LOCK_SECONDS = 5  # after which the lock that a killed run has left on its journal is taken away


class KeptStudy:
    """Takes trials in the order of their numbers; one that is there already must be the same.

    So a search that is resumed, or repeated from its start, finds its own trials again and adds what is missing.

    Args:
        storage: A file, below ``folder`` where it is relative, or a URL that Optuna takes.
        name: Of the study.
        folder: The run folder.

    Raises:
        UnusableInput: The storage cannot be opened.
    """

    def __init__(self, storage: str, name: str, folder: Path) -> None:
        optuna = optional_module("optuna", "hpo")
        self.storage, self.name = storage, name
        try:
            kept = storage if "://" in storage else _journal(folder / storage)
            self.study = optuna.create_study(storage=kept, study_name=name, direction="maximize", load_if_exists=True)
            self.there: list[Any] = self.study.get_trials(deepcopy=False)
        except Exception as error:  # databases raise what they like
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnusableInput(f"method.strategy.storage={storage} cannot be used: {first_line}") from error

    def check(self, trial: Any) -> None:
        """Raise ``UnusableInput`` where the study holds another trial of this number."""
        if trial.number < len(self.there) and self.there[trial.number].params != trial.params:
            sentence = f"The study {self.name} in {self.storage} holds the trials of another search"
            raise UnusableInput(f"{sentence}: give method.strategy.study another name.")

    def add(self, trial: Any) -> None:
        """Append a finished trial, unless it is there."""
        self.check(trial)
        if trial.number >= len(self.there):
            self.study.add_trial(trial)
            self.there.append(trial)


def _journal(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = optional_module("optuna.storages.journal", "hpo")
    lock = journal.JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
    storage: Any = journal.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
    return storage
