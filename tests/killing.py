"""Runs that are killed in the middle, and whether they go on as if nothing had happened."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.candidate import Candidate
from nas.evaluation.evaluation import Evaluation
from nas.search.gradient_search import GradientSearch
from nas.search.result import SearchResult
from nas.search.trainings import Trainer


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


@contextmanager
def killed(owner: Any, method: str, when: Callable[..., bool]) -> Iterator[None]:
    """The block ends as ``method`` of ``owner``, a class or an object, is called while ``when`` is true.

    ``when`` gets the arguments of the call, of a class's method ``self`` first.
    """
    original = getattr(owner, method)

    def called(*arguments: Any) -> Any:
        if when(*arguments):
            raise Killed
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, called)
        with pytest.raises(Killed):
            yield


def killed_in_search(number: int, step: int) -> AbstractContextManager[None]:
    """The block ends in this search (from 0) of those that it begins, after so many steps."""
    begun: list[GradientSearch] = []

    def when(search: GradientSearch) -> bool:
        begun.extend([search] if search not in begun else [])
        return begun.index(search) == number and search.step == step

    return killed(GradientSearch, "advance", when)


def assert_same_bytes(one: Path, other: Path, *names: str) -> None:
    """Of the files ``names`` in both folders; of ``metrics.csv`` where no names are given."""
    for name in names or ("metrics.csv",):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def assert_same_results(one: SearchResult, other: SearchResult) -> None:
    """But for the time they took."""
    assert one.candidate == other.candidate
    assert one.remarks == other.remarks
    assert one.settled == other.settled
    assert replace(one.cost, seconds=0.0) == replace(other.cost, seconds=0.0)


def killed_before_a_training(
    search: Callable[[Path], SearchResult], number: int, folder: Path, trainer: type[Trainer] = Trainer
) -> SearchResult:
    """Search into ``folder/whole``, and into ``folder/parts``, killed before training ``number`` (from 1) and resumed.

    Both must end alike, and so must what has ended and is resumed again. No training that was done is done again.

    Returns:
        The result of the undisturbed search.
    """
    made: list[tuple[str, Candidate]] = []
    train = trainer.train

    def noting(self: Trainer, candidate: Candidate) -> Evaluation:
        made.append((self.name, candidate))
        return train(self, candidate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train", noting)
        whole, expected = search(folder / "whole"), list(made)
        made.clear()
        with killed(trainer, "train", lambda *_: len(made) == number - 1):
            search(folder / "parts")
        for _ in range(2):
            resumed = search(folder / "parts")
            assert made == expected
            assert_same_results(resumed, whole)
            assert_same_bytes(folder / "parts", folder / "whole", "candidate.json", "metrics.csv")
    return whole
