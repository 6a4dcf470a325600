"""What learned hyperparameters have to do with each other: one quantity that several of them raise moves once.

Learning rate, momentum and rate factors all lengthen the weight step. Each of them, left alone, follows the same slope,
and together they overshoot: searches that learned all three ended with ``lr / (1 - momentum) * factor`` at three times
what was best.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from nas.errors import InvalidValue, require
from nas.hyperparameters.kinds import RATE_FACTORS, Hyperparameter

Raw = Mapping[str, Tensor]  # the raw parameters of what is learned, by name
EXACT = 1e-12  # of a sum of logarithms


class Relation(ABC):
    """Changes the gradients before all hyperparameters move by their own rules, and the raw parameters afterwards.

    It has no state: all that :meth:`after` knows is what :meth:`before` has returned.

    Attributes:
        entries: Of what it relates, by name, once it is applied.
    """

    entries: Mapping[str, Hyperparameter]

    @property
    def related(self) -> list[str]:
        return list(self.entries)

    def apply(self, entries: Mapping[str, Hyperparameter]) -> bool:
        """Whether there is anything to relate among ``entries``.

        Raises:
            InvalidValue: A scale is not a logarithm where one is needed.
        """
        self.entries = {name: entries[name] for name in self.wanted(entries) if entries[name].moves}
        if len(self.entries) < 2:
            return False
        for name in self.logarithmic():
            scale, basis, own = entries[name].scale, entries[name].basis, type(self).__name__
            require(scale == "log", f"{name}.scale", scale, f"{own} moves its logarithm: it must be log")
            require(basis is None, f"{name}.basis", basis, f"{own} moves its logarithm: it must be null")
        return True

    @abstractmethod
    def wanted(self, entries: Mapping[str, Hyperparameter]) -> list[str]:
        """What it relates where it is learned, of ``entries``."""

    @abstractmethod
    def logarithmic(self) -> list[str]:
        """What must move on a log scale."""

    @abstractmethod
    def before(self, raw: Raw) -> float:
        """Change the gradients of ``raw`` in place: every related one has a gradient."""

    @abstractmethod
    def after(self, raw: Raw, noted: float) -> None:
        """Change ``raw`` in place, after the moves; ``noted`` is what :meth:`before` has returned."""


class EffectiveRate(Relation):
    """Learning rate and momentum move as ``lr / (1 - momentum)``, how far a constant gradient takes a weight in a step,
    and as the split between the two.

    In ``e = log(lr / (1 - m))`` and momentum's own raw parameter ``s`` the slopes are ``dL/de = dL/dlog lr`` and
    ``dL/ds = dL/ds|lr - dL/dlog lr * (dm/ds) / (1 - m)``. So the learning rate's rule moves ``e``, momentum's rule the
    split at constant ``e``, and the learning rate takes back what momentum has done to ``e``.
    """

    def wanted(self, entries: Mapping[str, Hyperparameter]) -> list[str]:
        return [name for name in ("learning_rate", "momentum") if name in entries]

    def logarithmic(self) -> list[str]:
        return ["learning_rate"]

    def before(self, raw: Raw) -> float:
        rate, split = raw["learning_rate"], raw["momentum"]
        assert rate.grad is not None
        assert split.grad is not None
        with torch.enable_grad():
            own = split.detach().requires_grad_()
            (slope,) = torch.autograd.grad(torch.log1p(-self.entries["momentum"].value(own)), own)
        split.grad = split.grad + rate.grad * slope
        return self._log_rest(raw)

    def after(self, raw: Raw, noted: float) -> None:
        low, high = self.entries["learning_rate"].raw_bounds()
        with torch.no_grad():
            raw["learning_rate"].add_(self._log_rest(raw) - noted).clamp_(low, high)

    def _log_rest(self, raw: Raw) -> float:
        """``log(1 - momentum)``."""
        return math.log1p(-float(self.entries["momentum"].value(raw["momentum"].detach())))


class MeanFactor(Relation):
    """The learned rate factors keep the geometric mean that they begin with; what they have in common is the learning
    rate's.

    Their gradients lose their mean. After the moves their logarithms are shifted by one amount, within their ranges:
    the projection onto a constant sum.
    """

    def wanted(self, entries: Mapping[str, Hyperparameter]) -> list[str]:
        return [name for name in RATE_FACTORS.values() if name in entries]

    def logarithmic(self) -> list[str]:
        return self.related

    def before(self, raw: Raw) -> float:
        gradients = [gradient for gradient in (raw[name].grad for name in self.entries) if gradient is not None]
        mean = sum(map(float, gradients)) / len(gradients)
        for gradient in gradients:
            gradient.sub_(mean)
        return 0.0

    def after(self, raw: Raw, noted: float) -> None:
        present = [float(raw[name].detach()) for name in self.entries]
        bounds = [entry.raw_bounds() for entry in self.entries.values()]
        wanted = sum(math.log(entry.initial) for entry in self.entries.values())

        def shifted(shift: float) -> list[float]:
            return [min(max(one + shift, low), high) for one, (low, high) in zip(present, bounds, strict=True)]

        below, above = (sign * max(high - low for low, high in bounds) for sign in (-1, 1))
        shift = (wanted - sum(present)) / len(present)  # where none of them meets a bound
        while abs(sum(shifted(shift)) - wanted) > EXACT and above - below > EXACT:
            below, above = (shift, above) if sum(shifted(shift)) < wanted else (below, shift)
            shift = (below + above) / 2
        with torch.no_grad():
            for name, value in zip(self.entries, shifted(shift), strict=True):
                raw[name].fill_(value)


def applied(relations: Mapping[str, Relation | None], entries: Mapping[str, Hyperparameter]) -> list[Relation]:
    """Those that have something to relate, in their order.

    Raises:
        InvalidValue: One is no relation, or does not fit the scales of what it relates.
    """
    given = {name: relation for name, relation in relations.items() if relation is not None}
    for name, relation in given.items():
        if not isinstance(relation, Relation):
            raise InvalidValue(f"relations.{name}", relation, "it must be null or a relation with a _target_")
    return [relation for relation in given.values() if relation.apply(entries)]
