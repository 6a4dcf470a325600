"""The seam: what ``train_search.py`` asks of every search method, the gradient search and its competitors alike."""

from typing import Protocol

from nas.candidate import Candidate
from nas.evaluation.evaluation import Cost
from nas.run.tracking import Tracker
from nas.spaces.supernet import Supernet


class Searcher(Protocol):
    """Searches into its run folder and goes on from the newest checkpoint there."""

    step: int
    seconds: float

    @property
    def supernet(self) -> Supernet | None:
        """What held all architectures, where the method has such a thing."""

    @property
    def spent(self) -> Cost:
        """What the search has cost so far."""

    def search(self) -> Candidate:
        """Run to the end.

        Raises:
            Stopped: A signal asked to stop; the checkpoint is written.
        """
        ...

    def settled(self) -> dict[str, bool]:
        """Per decision whether it had come to rest, where the method can tell."""
        ...

    def recorded(self) -> dict[str, list[float]]:
        """How learned hyperparameters moved, in a few points each, where the method moves them."""
        ...

    def remarks(self) -> dict[str, str]:
        """Rows for the table at the end."""
        ...

    def in_words(self) -> str:
        """How it ended, for the last line."""
        ...

    def final_metrics(self) -> dict[str, float]:
        """What the search has come to, for the record."""
        ...

    def open_tracker(self) -> Tracker:
        """The run's record, opened again after :meth:`search`."""
        ...
