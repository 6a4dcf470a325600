"""Where a search begins that goes on from a finished one: its weights, alpha and hyperparameters, and nothing else.

Schedules, optimisers, random numbers and the budget begin anew: it is a new run, with a record of its own.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.data.class_names import require_same_classes
from nas.errors import InvalidValue, UnusableInput
from nas.hyperparameters.collection import HyperparameterSet
from nas.run.candidate_file import read_candidate_file
from nas.run.checkpoint import BrokenCheckpoint, read_checkpoint, write_checkpoint
from nas.run.folder import RunFolder
from nas.search.parts import SearchParts
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet

log = logging.getLogger(__name__)
KEY = "search.from"
FILE = "beginning.pt"  # in the new run's folder


@dataclass(frozen=True)
class Beginning:
    """What a finished search leaves to a new one.

    Attributes:
        source: The old run's folder, as it was given.
        step: The old run's last step.
        supernet: Its supernet's state, alpha included.
        hyperparameters: The values of those that it learned.
        initial_loss: The validation loss of its untrained supernet, by which a search tells whether it learns.
    """

    source: str
    step: int
    supernet: dict[str, Tensor]
    hyperparameters: dict[str, float]
    initial_loss: float

    @classmethod
    def of(
        cls, source: str, folder: RunFolder, space: SearchSpace, class_names: Sequence[str] | None = None
    ) -> "Beginning":
        """That of the search in ``source``, or what a run in ``folder``, which is resumed, has kept of it.

        Args:
            source: The old run's folder.
            folder: The new run's.
            space: The new run's, which must be the old one's.
            class_names: What the new run's classes are called; the old weights must be for the same.

        Raises:
            InvalidValue: ``source`` holds no finished gradient search, or one of another space or of other data.
            UnusableInput: None of its checkpoints can be read.
        """
        if folder.checkpoints.files():
            try:
                return cls(**read_checkpoint(folder.path / FILE))
            except (BrokenCheckpoint, TypeError) as error:
                raise UnusableInput(f"{folder.path / FILE}, with which this run began, cannot be read.") from error
        old = Path(source)
        if not (old / "candidate.json").is_file() or not RunFolder(old).checkpoints.files():
            raise InvalidValue(KEY, source, "it must be the folder of a search that has finished")
        found = read_candidate_file(old / "candidate.json")
        _refuse_other_space(source, found.space, space)
        require_same_classes(KEY, source, "that search", found.class_names, class_names)
        state, _ = RunFolder(old).checkpoints.newest()
        if state is None:
            raise UnusableInput(f"No checkpoint in {RunFolder(old).checkpoints.folder} can be read.")
        try:
            learned, rows = (
                state["upper_level"]["hyperparameters"]["raw"],
                state["callback trajectory"]["values"].tolist(),
            )
            values = dict(zip(learned, rows[-1], strict=True)) if rows else {}
            return cls(source, state["step"], state["supernet"], values, float(state["guard"]["initial_loss"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidValue(KEY, source, "it must be the folder of a gradient search") from error

    def in_words(self) -> str:
        return f"step {self.step} of {self.source}"

    def keep(self, parts: SearchParts) -> None:
        """Write it into the new run's folder, which needs the old one no longer, and log where it is from."""
        log.info(f"begins with {self.in_words()}")
        if parts.randomness.ranks.is_first:
            write_checkpoint(parts.folder.path / FILE, vars(self))

    @torch.no_grad()
    def load_into(self, supernet: Supernet, hyperparameters: HyperparameterSet) -> None:
        """Let ``supernet`` and ``hyperparameters`` have these values; hyperparameters of other names keep theirs.

        Raises:
            InvalidValue: The supernet is another one.
        """
        own = supernet.state_dict()
        for name in sorted(own.keys() | self.supernet.keys()):
            here, there = own.get(name), self.supernet.get(name)
            if here is None or there is None or here.shape != there.shape:
                shapes = " there and ".join(
                    "none" if one is None else "x".join(map(str, one.shape)) for one in (there, here)
                )
                raise InvalidValue(KEY, self.source, f"its supernet is another one: {name} is {shapes} here")
        supernet.load_state_dict(self.supernet)
        for name in hyperparameters.learned():
            if name in self.hyperparameters:
                hyperparameters.set_value(name, self.hyperparameters[name])


def loaded_beginning(parts: SearchParts, supernet: Supernet) -> Beginning | None:
    """Where a search of ``parts`` begins, loaded into ``supernet`` and the hyperparameters; None for a fresh search."""
    source = parts.search.from_
    beginning = None if source is None else Beginning.of(source, parts.folder, parts.space, parts.splits.class_names)
    if beginning is not None:
        beginning.load_into(supernet, parts.hyperparameters)
    return beginning


def _refuse_other_space(source: str, there: SearchSpace, here: SearchSpace) -> None:
    before, now = (
        one.describe() | {f"space.{name}": value for name, value in one.settings().items()} for one in (there, here)
    )
    for name in ("name", *sorted((before.keys() | now.keys()) - {"name", "settings"})):
        if before.get(name) != now.get(name):
            words = f"{_short(before.get(name))} there and {_short(now.get(name))} here"
            raise InvalidValue(KEY, source, f"it must be a search of the same space and data: {name} is {words}")


def _short(value: Any) -> str:
    text = (
        "x".join(map(str, value))
        if isinstance(value, list | tuple) and all(isinstance(one, int) for one in value)
        else str(value)
    )
    return text if len(text) <= 80 else f"{text[:77]}..."
