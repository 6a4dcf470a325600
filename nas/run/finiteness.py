"""Numbers that are not finite: noticed at their step, named, and answered by ``training.on_non_finite``.

``stop`` ends the run; ``rollback`` goes back to the last checkpoint, which is only ever written with finite weights,
and on from there at a lower learning rate.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from nas.device.transfer import as_numbers
from nas.distributed import Ranks
from nas.run.folder import RunFolder

OnNonFinite = Literal["restart", "stop", "rollback"]
DIVISOR = 4.0  # what a rollback divides the learning rate by: the same steps at the same rate would fail again
ROLLBACKS = 5  # that a run may have


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


def last_good(
    fault: NotFinite,
    policy: OnNonFinite,
    rollbacks: int,
    folder: RunFolder,
    advice: str,
    say: Callable[[str], None],
    ranks: Ranks,
) -> dict[str, Any]:
    """The state from which the run goes on at a lower rate.

    Args:
        rollbacks: How many there were before.
        advice: What the user might do, for the message.

    Raises:
        NotFinite: The policy is another one, there were too many, or there is no checkpoint; with all of this said.
    """
    state = ranks.share(folder.checkpoints.newest()[0] if ranks.is_first else None)
    good = "no checkpoint is good" if state is None else f"the last good checkpoint is of step {state['step']}"
    if state is None or policy != "rollback" or rollbacks >= ROLLBACKS:
        ways = f", after {rollbacks} rollbacks" if rollbacks else ""
        other = "" if policy == "rollback" else ", or set training.on_non_finite=rollback"
        raise NotFinite(fault.step, fault.quantity, fault.value, f"{ways}; {good}; {advice}{other}") from fault
    assert isinstance(state, dict)
    say(f"{fault}; {good}: going on from there, the learning rate divided by {DIVISOR:g}")
    return state
