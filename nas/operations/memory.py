"""What a network with a memory gives and takes: the state that goes from one batch of a text to the next."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

# Hyperparameters that weigh what a memory adds to the training loss (Merity et al., 2018, section 4.6).
ACTIVATION_PENALTY = "activation_penalty"
TEMPORAL_PENALTY = "temporal_penalty"


@dataclass(frozen=True)
class Remembered:
    """What a network with a memory makes of a batch.

    Attributes:
        logits: (batch, length, outputs).
        state: (batch, width), what the next batch of the same texts begins from; in the graph.
        hidden: (batch, length, width), what the memory gave at every token.
        dropped: The same as the output layer saw it, behind its dropout.
    """

    logits: Tensor
    state: Tensor
    hidden: Tensor
    dropped: Tensor

    def penalty(self, values: Mapping[str, Tensor | float]) -> Tensor | float:
        """What is added to the training loss: large activations, and states that change from token to token."""
        total: Tensor | float = 0.0
        if _acts(weight := values.get(ACTIVATION_PENALTY, 0.0)):
            total = total + weight * self.dropped.square().mean()
        if _acts(weight := values.get(TEMPORAL_PENALTY, 0.0)) and self.hidden.shape[1] > 1:
            total = total + weight * (self.hidden[:, 1:] - self.hidden[:, :-1]).square().mean()
        return total

    def detach(self) -> "Remembered":
        return self._each(Tensor.detach)

    def clone(self) -> "Remembered":
        return self._each(Tensor.clone)

    def float_at_least(self) -> "Remembered":
        return self._each(float_at_least)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Remembered":
        return Remembered(*(change(getattr(self, one.name)) for one in fields(self)))


Outputs = Tensor | Remembered


class Remembers(ABC):
    """A network with a memory. Called as any other, it begins with an empty one and gives logits alone."""

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """An empty memory for so many texts, (batch, width)."""

    @abstractmethod
    def recall(self, x: Tensor, state: Tensor | None, weights: Any = None) -> Remembered:
        """The pass over ``x`` (batch, length) from ``state``, or from an empty memory.

        Args:
            weights: What a supernet mixes with.
        """


def logits_of(outputs: Outputs) -> Tensor:
    return outputs.logits if isinstance(outputs, Remembered) else outputs


def float_at_least(tensor: Tensor) -> Tensor:
    """``tensor``, as float32 where it is less exact."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _acts(weight: Tensor | float) -> bool:
    return isinstance(weight, Tensor) or weight > 0
