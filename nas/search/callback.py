"""The seam of what watches a gradient search from step to step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nas.bilevel.outcome import Outcome
from nas.candidate import Architecture
from nas.data.batches import Batch
from nas.device.transfer import as_numbers


@dataclass(frozen=True)
class SeenStep:
    """A step of the search, as its callbacks see it.

    Attributes:
        step: Steps done, this one included.
        epoch: The epoch that it belongs to, from 0.
        outcome: What both levels did.
        training: The batch of the weight step.
        validation: The batch of the upper level, where it had anything to do.
        hyperparameters: Their values after the step.
        numbers: ``the training loss``, ``the gradient of the weights`` (its norm) and, where taken, ``the validation
            loss`` and ``alpha`` (its norm).
    """

    step: int
    epoch: int
    outcome: Outcome
    training: Batch
    validation: Batch | None
    hyperparameters: Mapping[str, float]
    numbers: Mapping[str, float]


class Callback:
    """Override what is needed, and add it to ``callbacks`` in a subclass of ``GradientSearch``.

    What is remembered belongs into the state, which is part of a checkpoint.
    """

    def on_step(self, seen: SeenStep) -> None:
        pass

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        """An epoch has ended.

        Args:
            step: Steps done.
            epoch: The epoch, from 0.
            preferred: The architecture that alpha prefers at its end.
        """

    def forget(self) -> None:
        """The weights start again: what was seen of the failed ones belongs to no average."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def numbers_of(outcome: Outcome, alphas: list[nn.Parameter]) -> dict[str, float]:
    """The numbers of a step for :class:`SeenStep`, in the order in which one that is not finite spoils those behind it.

    Args:
        alphas: Those whose norm is taken; empty for none.
    """
    measured: dict[str, Tensor] = {"alpha": nn.utils.get_total_norm(alphas)} if alphas else {}
    if outcome.upper_step is not None:
        measured["the validation loss"] = outcome.upper_step.report.validation_loss
    assert outcome.weight_step.norm is not None
    measured |= {"the training loss": outcome.weight_step.loss, "the gradient of the weights": outcome.weight_step.norm}
    return dict(zip(measured, as_numbers(list(measured.values())), strict=True))
