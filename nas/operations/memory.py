"""What a network with a memory gives and takes: the state that goes from one batch of a text to the next."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


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


class Remembers(ABC):
    """A network with a memory. Called as any other, it begins with an empty one and gives logits alone."""

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """An empty memory for so many texts, (batch, width)."""
