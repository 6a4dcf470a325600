"""Averaged weights: SGD until the validation loss no longer falls, then averaged SGD (Merity et al., 2018, section 4).

Averaged SGD moves as SGD does, and what is evaluated is the mean of the weights that it has passed. It is
``torch.optim.ASGD`` with ``t0=0, lambd=0``, with two habits of it: a learning rate that was changed acts one step late
(the first step has its own), and the average starts anew at the second step. After ``k`` steps it is
``average += (w - average) / max(1, k - 1)``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

AveragingKind = Literal["none", "non_monotone"]
PATIENCE = 5  # epochs
KEPT = ("params", "name", "lr", "weight_decay", "momentum")  # of a parameter group


class NonMonotone:
    """Says when the validation loss has stopped falling: an epoch's is above the best of all but the last ones.

    Attributes:
        losses: Those of the epochs so far.
    """

    def __init__(self, patience: int = PATIENCE) -> None:
        self.patience = patience
        self.losses: list[float] = []

    def has_stopped_falling(self, loss: float) -> bool:
        """Whether the epoch whose validation loss is ``loss`` is the first to say so; the loss is remembered."""
        before = self.losses[: -self.patience]
        self.losses.append(loss)
        return bool(before) and loss > min(before)


class AveragedWeights:
    """The optimiser of a training: SGD, from some epoch on averaged SGD.

    Attributes:
        optimiser: The present one; :func:`nas.training.sgd.set_step` gives both their values.
        averages: Whether it is averaged SGD.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, patience: int = PATIENCE) -> None:
        self.optimiser = optimiser
        self.watch = NonMonotone(patience)

    @property
    def averages(self) -> bool:
        return isinstance(self.optimiser, torch.optim.ASGD)

    def measured(self, loss: float) -> bool:
        """See the validation loss of an epoch. Returns whether averaging begins with the next step."""
        if self.averages:
            self.watch.losses.append(loss)
            return False
        begins = self.watch.has_stopped_falling(loss)
        if begins:
            self.begin()
        return begins

    def begin(self) -> None:
        """Go on with averaged SGD from the present weights."""
        groups = [{key: group[key] for key in KEPT if key in group} for group in self.optimiser.param_groups]
        self.optimiser = torch.optim.ASGD(groups, lr=groups[0]["lr"], t0=0, lambd=0.0, foreach=True)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the network computes with the average, where there is one."""
        states = self.optimiser.state.items() if self.averages else ()
        own = {weight: weight.detach().clone() for weight, _ in states}
        try:
            self.keep()
            yield
        finally:
            with torch.no_grad():
                for weight, value in own.items():
                    weight.copy_(value)

    @torch.no_grad()
    def keep(self) -> None:
        """Put the average in the place of the weights, for good."""
        if self.averages:
            for weight, state in self.optimiser.state.items():
                assert isinstance(weight, nn.Parameter)
                weight.copy_(state["ax"])

    def state_dict(self) -> dict[str, Any]:
        return {
            "averages": self.averages,
            "losses": list(self.watch.losses),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.watch.losses = list(state["losses"])
        if state["averages"] and not self.averages:
            self.begin()
        self.optimiser.load_state_dict(state["optimiser"])
