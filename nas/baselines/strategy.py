"""The seam: what every black-box search strategy offers to the loop around it (``nas.baselines.search``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nas.candidate import Candidate


@dataclass(frozen=True)
class Scored:
    """A candidate with the objective's number, which is to be maximised (``-inf`` where its training failed)."""

    candidate: Candidate
    score: float


class Strategy(Protocol):
    """Proposes candidates and learns from their scores: pure, without evaluation, files or logging.

    Built by ``_target_`` with its settings and the keywords ``space`` (a SearchSpace) and ``generator`` (a CPU
    ``torch.Generator``, which the loop saves). A strategy that is a :class:`~nas.evaluation.evaluator.Pruner` as well
    decides which of its candidates go on where the evaluator trains them in rungs.
    """

    def ask(self) -> list[Candidate]:
        """The candidates to evaluate next, at least one; the same ones until they have been told."""
        ...

    def tell(self, scored: Sequence[Scored]) -> None:
        """The scores of what :meth:`ask` gave, in its order."""
        ...

    def statistics(self) -> dict[str, float]:
        """What is worth a curve. ``diversity`` becomes the tag ``population/diversity``; a name with a slash, such as
        ``policy/entropy``, is a tag as it is."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only; the generator's state is not in it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A strategy that keeps something beside its state, such as a study in a database."""

    def open(self, folder: Path) -> None:
        """Called once, with the run folder, before the first :meth:`Strategy.ask` and before a state is loaded."""
        ...
