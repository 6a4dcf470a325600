"""The seam: what every hypergradient strategy offers."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from nas.bilevel.hyperparameters import Kind
from nas.bilevel.problem import BilevelProblem, OpenStep, RecordedStep
from nas.bilevel.upper_level_report import UpperLevelReport
from nas.data.dataset import Batch


class Described(Protocol):
    """What every strategy says of itself.

    A strategy fills ``.grad`` of ``targets`` (alphas, raw hyperparameters) with the gradient of the validation loss.
    Weights, buffers (batch-norm statistics included) and optimiser state stay bit for bit as they were. Strategies
    without a state are frozen dataclasses: two equal ones share their passes.
    """

    @property
    def reaches(self) -> frozenset[Kind]:
        """What it can give a gradient to."""
        ...

    def most_passes(self, targets: int) -> int:
        """Forward-backward passes over a batch that it takes at most for a step with so many targets."""
        ...

    def differentiates_twice(self, kinds: Collection[Kind]) -> bool:
        """Whether it needs second derivatives of the network for targets of these kinds."""
        ...


class Hypergradient(Described, Protocol):
    """One that looks ahead, from the weights as they are: it is asked before the weight step."""

    def __call__(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport: ...


@runtime_checkable
class ObservingHypergradient(Hypergradient, Protocol):
    """One that follows the weights from step to step; what it remembers is part of a checkpoint."""

    def observe(self, problem: BilevelProblem, step: OpenStep, targets: Sequence[nn.Parameter]) -> int:
        """Look at the weight step that comes next, with its hyperparameters as they now are; nothing changes.

        Args:
            targets: What :meth:`__call__` will be asked for.

        Returns:
            Forward-backward passes over the training batch that were spent beside the step's own.
        """
        ...

    def forget(self) -> None:
        """The weights have started again."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class RetrospectiveHypergradient(Described, Protocol):
    """One that looks back upon the weight step that has just been taken: the weights move first."""

    def serves(self, other: Described) -> bool:
        """Whether alpha gets from it what ``other`` would give at the same weights."""
        ...

    def look_back(
        self, problem: BilevelProblem, step: RecordedStep | None, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> UpperLevelReport:
        """As :meth:`Hypergradient.__call__`, after the weight step.

        Args:
            step: It, recorded for those ``targets`` that are hyperparameters; None where there are none.
        """
        ...


Strategy = Hypergradient | RetrospectiveHypergradient
