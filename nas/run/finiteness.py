"""Numbers that are not finite: noticed at their step, named, and answered by ``training.on_non_finite``.

``stop`` ends the run; ``rollback`` goes back to the last checkpoint, which is only ever written with finite weights,
and on from there at a lower learning rate.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nas.device.transfer import as_numbers

OnNonFinite = Literal["restart", "stop", "rollback"]
ROLLBACK_DIVISOR = 4.0  # what a rollback divides the learning rate by: the same steps at the same rate would fail again
MOST_ROLLBACKS = 5  # that a run may have


class NotFinite(FloatingPointError):  # noqa: N818
    """``quantity`` (such as "the training loss") was ``value`` at ``step``."""

    def __init__(self, step: int, quantity: str, value: float | str, more: str = "") -> None:
        super().__init__(step, quantity, value, more)
        self.step, self.quantity, self.value, self.more = step, quantity, value, more

    def __str__(self) -> str:
        return f"step {self.step}: {self.quantity} is {self.value}{self.more}"


class Watch:
    """Keeps what the steps measured where it is and reads it in one go, so that a GPU need not be waited for."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, str]] = []
        self._values: list[Tensor | float] = []

    def look(self, step: int, quantities: Mapping[str, Tensor | float]) -> None:
        """Keep the ``quantities`` of ``step`` (by name, 0-dim) for :meth:`check`."""
        for name, value in quantities.items():
            self._seen.append((step, name))
            self._values.append(value.detach() if isinstance(value, Tensor) else value)

    def check(self) -> None:
        """Go through everything seen since the last time, in order.

        Raises:
            NotFinite: The first that was not.
        """
        seen, values = self._seen, self._values
        self._seen, self._values = [], []
        for (step, name), number in zip(seen, as_numbers(values), strict=True):
            if not math.isfinite(number):
                raise NotFinite(step, name, number)


def require_finite(step: int, state: Mapping[str, Tensor]) -> None:
    """See to it that a checkpoint of ``step`` is a good one.

    Raises:
        NotFinite: An entry of ``state`` is not finite.
    """
    names = [name for name, entry in state.items() if entry.is_floating_point()]
    if names and not bool(torch.stack([state[name].isfinite().all() for name in names]).all()):
        name = next(name for name in names if not bool(state[name].isfinite().all()))
        raise NotFinite(step, f"an entry of {name}", math.nan)
