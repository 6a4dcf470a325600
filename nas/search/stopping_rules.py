"""When a gradient search ends before its last epoch, and with which epoch's alpha.

``Converged`` ends it as soon as nothing has moved for some epochs, ``Skips`` at the second skip connection of the
normal cell (DARTS+, Liang et al., 2019), ``Eigenvalue`` when the validation loss bends too sharply in alpha, with an
alpha of before (RobustDARTS, Zela et al., 2020).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.errors import InvalidValue, require
from nas.spaces.space import SKIPS, SearchSpace
from nas.spaces.supernet import Supernet


@dataclass(frozen=True)
class EndedEpoch:
    """What a rule may look at.

    Attributes:
        epoch: The epoch that has ended, from 0.
        preferred: The architecture that alpha prefers.
        supernet: The supernet; a rule may set its alphas back.
        space: Its space.
        settled: Per decision None, or why it has not settled.
        eigenvalue: The largest eigenvalue of the validation loss in alpha, by at most so many Hessian products on so
            many images; what it costs is counted.
    """

    epoch: int
    preferred: Architecture
    supernet: Supernet
    space: SearchSpace
    settled: Callable[[], Mapping[str, str | None]]
    eigenvalue: Callable[[int, int], float]


class StoppingRule(ABC):
    """Looks at every epoch's end.

    Attributes:
        goes_back: Whether it may end the search with the alpha of an earlier epoch.
        differentiates_twice: Whether it takes second derivatives of the network.
    """

    goes_back: ClassVar[bool] = False
    differentiates_twice: ClassVar[bool] = False

    @abstractmethod
    def after(self, ended: EndedEpoch) -> str | None:
        """Why the search ends here, in words, or None."""

    def check(self, space: SearchSpace) -> None:  # noqa: B027 - most rules suit every space
        """Raise ``InvalidValue`` where it has nothing to look at in ``space``."""

    def most_samples(self) -> int:
        """Images that go forward and backward at an epoch's end at most, each pass counted."""
        return 0

    def numbers(self) -> dict[str, float]:
        """What it has measured at the last epoch's end, by name, for the record."""
        return {}

    def forget(self) -> None:  # noqa: B027 - a rule without a memory has nothing to forget
        """The weights start again."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - as above
        pass


class Converged(StoppingRule):
    """Ends the search as soon as everything has settled, as ``search.settled_epochs`` and ``settled_ratio`` define."""

    def after(self, ended: EndedEpoch) -> str | None:
        return None if any(ended.settled().values()) else "everything has settled"


class Skips(StoppingRule):
    """Ends the search when the normal cell skips too often, or when the ranks of its operations stand still (DARTS+).

    Args:
        skips: So many skip connections end it. The paper has 2.
        standing: Epochs over which the order of the operations stays the same in every row of alpha; null looks at
            skips alone. The paper's other criterion has 10.
    """

    def __init__(self, skips: int = 2, standing: int | None = None) -> None:
        require(skips >= 1, "skips", skips, "it must be at least 1")
        require(standing is None or standing >= 1, "standing", standing, "it must be null or at least 1")
        self.skips, self.standing = skips, standing
        self._ranks: dict[str, list[str]] = {}
        self._stood = 0

    def check(self, space: SearchSpace) -> None:
        options = {option for choice in space.choices for option in choice.options}
        if options.isdisjoint(SKIPS):
            raise InvalidValue("", type(self).__name__, f"no option of this space {space.name} skips anything")

    def after(self, ended: EndedEpoch) -> str | None:
        skips = ended.space.skips(ended.preferred)
        if len(skips) >= self.skips:
            return f"{len(skips)} skip connections: {', '.join(row for row, _ in skips)}"
        ranks = {row: sorted(options, key=lambda one: -options[one]) for row, options in _learnable(ended.supernet)}
        self._stood = self._stood + 1 if ranks == self._ranks else 0
        self._ranks = ranks
        still = self.standing is not None and self._stood >= self.standing
        return f"the ranks of all operations have stood for {self._stood} epochs" if still else None

    def forget(self) -> None:
        self._ranks, self._stood = {}, 0

    def state_dict(self) -> dict[str, Any]:
        return {"ranks": self._ranks, "stood": self._stood}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ranks, self._stood = state["ranks"], state["stood"]


def _learnable(supernet: Supernet) -> list[tuple[str, dict[str, float]]]:
    """Every row of alpha without options that have no weights: skips and ``none``."""
    without_weights = {*SKIPS, "none"}
    rows = supernet.probabilities().items()
    return [
        (row, {name: share for name, share in options.items() if name not in without_weights}) for row, options in rows
    ]


class Eigenvalue(StoppingRule):
    """Ends the search when the largest eigenvalue of the validation loss in alpha rises (RobustDARTS-ES).

    Its average over ``window`` measurements counts for the epoch in the window's middle, over those there are as long
    as at least half of them are. The search ends where this is more than ``factor`` times what it was ``delta``
    measurements earlier, with the alpha of that earlier epoch, provided that it is ``first_epoch`` or later.

    The published code, which made the published numbers, has a factor of 1.3. The paper has the earlier average over
    the later one fall below 0.75, a factor of 1.33.

    Args:
        every: Epochs from one measurement to the next.
        images: Of the validation split: the first so many, the same ones each time.
        products: Hessian products of a measurement, at most.
        weight_decay: What is added to the eigenvalue. The code adds alpha's weight decay, 1e-3; the paper nothing.
    """

    goes_back: ClassVar[bool] = True
    differentiates_twice: ClassVar[bool] = True

    def __init__(
        self,
        every: int = 2,
        window: int = 5,
        delta: int = 4,
        factor: float = 1.3,
        first_epoch: int = 10,
        images: int = 64,
        products: int = 12,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in {"every": every, "window": window, "delta": delta, "products": products}.items():
            require(value >= 1, name, value, "it must be at least 1")
        require(1 < factor < math.inf, "factor", factor, "it must be a number above 1")
        require(first_epoch >= 0, "first_epoch", first_epoch, "it must be at least 0")
        require(images >= 2, "images", images, "it must be at least 2: batch norm needs two")
        require(0 <= weight_decay < math.inf, "weight_decay", weight_decay, "it must be at least 0")
        self.every, self.window, self.delta, self.factor = every, window, delta, factor
        self.first_epoch, self.images, self.products, self.weight_decay = first_epoch, images, products, weight_decay
        self.values: list[float] = []
        self.averages: list[float] = []
        self._alphas: dict[int, dict[str, Tensor]] = {}
        self._fresh = False

    def after(self, ended: EndedEpoch) -> str | None:
        self._fresh = ended.epoch % self.every == 0
        if not self._fresh:
            return None
        value = ended.eigenvalue(self.products, self.images) + self.weight_decay
        self._alphas[ended.epoch] = {name: alpha.detach().clone() for name, alpha in ended.supernet.alpha.items()}
        earlier = self.measured(ended.epoch, value)
        if earlier is None:
            return None
        with torch.no_grad():
            for name, alpha in self._alphas[earlier].items():
                ended.supernet.alpha[name].copy_(alpha)
        before, now = self.averages[-1 - self.delta], self.averages[-1]
        return f"the largest eigenvalue rose from {before:.3g} to {now:.3g}, alpha is that of epoch {earlier + 1}"

    def measured(self, epoch: int, value: float) -> int | None:
        """Take a measurement in. Returns the epoch to go back to where the search ends."""
        self.values.append(value)
        half = self.window // 2
        if len(self.values) < self.window - half:
            return None
        self.averages.append(fmean(self.values[-self.window :]))
        earlier = epoch - self.every * (half + self.delta)
        for old in [one for one in self._alphas if one < earlier]:
            del self._alphas[old]
        if earlier < self.first_epoch or len(self.averages) <= self.delta:
            return None
        rose = self.averages[-1] > self.factor * self.averages[-1 - self.delta]
        return earlier if rose and self.averages[-1 - self.delta] > 0 else None

    def most_samples(self) -> int:
        return (1 + self.products) * self.images

    def numbers(self) -> dict[str, float]:
        if not self._fresh:
            return {}
        average = {"average": self.averages[-1]} if self.averages else {}
        return {"eigenvalue": self.values[-1], **average}

    def forget(self) -> None:
        self.values, self.averages, self._alphas, self._fresh = [], [], {}, False

    def state_dict(self) -> dict[str, Any]:
        alphas = [[epoch, alphas] for epoch, alphas in self._alphas.items()]
        return {"values": self.values, "averages": self.averages, "alphas": alphas}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.averages = list(state["values"]), list(state["averages"])
        self._alphas = dict(state["alphas"])
