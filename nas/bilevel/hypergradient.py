"""The seam: what every hypergradient strategy offers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from nas.bilevel.problem import BilevelProblem, OpenStep, RecordedStep
from nas.data.batches import Batch
from nas.hyperparameters.kinds import Kind


@dataclass(frozen=True)
class UpperLevelReport:
    """What an upper-level step saw on its way.

    Attributes:
        validation_loss: Mean cross-entropy of the validation batch, noise off, 0-dim.
        validation_logits: (batch, classes), detached.
        training_loss: Of the training batch at the present weights, where the strategy computed it.
        validation_gradient_norm: ``|grad_w' L_val(w')|``, where computed.
        step_length: ``lr * |u|`` of the unrolled weight step, where there is one.
        sensitivity: ``|dw / draw|`` of a target, where it is not the step's length.
        passes: Forward-backward passes spent on the training and on the validation batch.
    """

    validation_loss: Tensor
    validation_logits: Tensor
    training_loss: Tensor | None = None
    validation_gradient_norm: float = 0.0
    step_length: float = 0.0
    sensitivity: Mapping[nn.Parameter, float] = field(default_factory=dict)
    passes: tuple[int, int] = (0, 1)


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
