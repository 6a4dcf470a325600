"""The values every search passes around: choices, architectures, hyperparameters and their ranges, candidates."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nas.errors import require

Scale = Literal["log", "logit", "linear"]
Schedule = Literal["constant", "cosine", "exponential"]


@dataclass(frozen=True)
class Choice:
    """One named categorical decision and its ordered options."""

    name: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        texts = isinstance(self.options, tuple) and all(isinstance(one, str) for one in self.options)
        require(texts, str(self.name), self.options, "the options of a choice must be a tuple of texts")
        require(isinstance(self.name, str), "name", self.name, "the name of a choice must be a text")
        require(len(self.options) > 0, self.name, list(self.options), "a choice needs at least one option")
        distinct = len(set(self.options)) == len(self.options)
        require(distinct, self.name, list(self.options), "the options of a choice must differ from each other")


class Architecture(Mapping[str, str]):
    """An immutable assignment of an option to every choice of the space named ``space``."""

    def __init__(self, space: str, options: Mapping[str, str]) -> None:
        self.space = space
        self._options = dict(options)

    def __getitem__(self, choice: str) -> str:
        return self._options[choice]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.space == other.space and self._options == other._options

    def __hash__(self) -> int:
        return hash((self.space, frozenset(self._options.items())))

    def __repr__(self) -> str:
        return f"Architecture({self.space!r}, {dict(self._options)!r})"

    def check(self, choices: Sequence[Choice]) -> None:
        """Raise ``InvalidValue`` unless this assigns exactly ``choices``, each to one of its options."""
        names = [choice.name for choice in choices]
        for name in self:
            require(name in names, f"architecture.{name}", self[name], "the space has no such choice")
        for choice in choices:
            value = self.get(choice.name)
            allowed = f"it must be one of {', '.join(choice.options)}"
            require(value in choice.options, f"architecture.{choice.name}", value, allowed)


class Hyperparameters(Mapping[str, float]):
    """Immutable named values of hyperparameters."""

    def __init__(self, values: Mapping[str, float] | None = None) -> None:
        self._values = {name: float(value) for name, value in (values or {}).items()}

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hyperparameters) and self._values == other._values

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"Hyperparameters({dict(self._values)!r})"


@dataclass(frozen=True)
class Range:
    """Where a continuous hyperparameter may lie, and its place there as a number from 0 to 1.

    Places are even steps of the value, of its logarithm with ``log``. ``logit`` says how a gradient moves the value
    (``nas.hyperparameters.kinds``); its places are those of ``linear``, as its own measure has no ends.
    """

    low: float
    high: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        require(math.isfinite(self.low), "low", self.low, "it must be finite")
        require(
            math.isfinite(self.high) and self.high > self.low, "high", self.high, f"it must be above low={self.low}"
        )
        require(self.scale != "log" or self.low > 0, "low", self.low, "a log scale needs a bound above 0")

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_unit(self, value: float) -> float:
        """The place of ``value``; one outside of the range has the place of the nearer end."""
        value = min(max(value, self.low), self.high)
        if self.scale == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def from_unit(self, place: float) -> float:
        """The inverse of :meth:`to_unit`; ``place`` is clamped to 0..1."""
        place = min(max(place, 0.0), 1.0)
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + place * (self.high - self.low)
        return min(max(value, self.low), self.high)  # rounding may have carried it past an end


@dataclass(frozen=True)
class Categorical:
    """The values that a hyperparameter without a gradient may take, such as a batch size; a configuration's entry.

    Black-box methods search among them, the gradient search holds ``initial``. A value's place from 0 to 1 is the
    middle of its equal share, so that :meth:`from_unit` of a uniform number takes each value equally often.
    """

    neutral: ClassVar[float | None] = None  # a candidate always mentions it

    initial: float
    options: tuple[float, ...]

    def __post_init__(self) -> None:
        options = tuple(self.options)
        good = len(options) > 0 and len(set(options)) == len(options) and all(map(math.isfinite, options))
        require(good, "options", list(options), "it must be a list of one or more different numbers")
        object.__setattr__(self, "options", tuple(map(float, options)))  # a configuration gives a list
        allowed = f"it must be one of {', '.join(f'{option:g}' for option in options)}"
        require(self.contains(self.initial), "initial", self.initial, allowed)

    def contains(self, value: float) -> bool:
        return value in self.options

    def to_unit(self, value: float) -> float:
        """The place of ``value``; that of the nearest option where it is none."""
        nearest = min(range(len(self.options)), key=lambda index: abs(self.options[index] - value))
        return (nearest + 0.5) / len(self.options)

    def from_unit(self, place: float) -> float:
        """The inverse of :meth:`to_unit`; ``place`` is clamped to 0..1."""
        index = math.floor(place * len(self.options))
        return self.options[min(max(index, 0), len(self.options) - 1)]


Domain = Range | Categorical


@dataclass(frozen=True)
class Candidate:
    """An architecture with its hyperparameters: what every search returns and ``train_final.py`` takes."""

    architecture: Architecture
    hyperparameters: Hyperparameters

    def to_json(self) -> dict[str, Any]:
        """JSON values; the space is named, not described."""
        return {
            "space": self.architecture.space,
            "architecture": dict(self.architecture),
            "hyperparameters": dict(self.hyperparameters),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Candidate":
        """The inverse of :meth:`to_json`."""
        architecture = Architecture(content["space"], content["architecture"])
        return Candidate(architecture, Hyperparameters(content["hyperparameters"]))

    def fingerprint(self) -> str:
        """A short text, equal for equal candidates whatever the order of their entries."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]
