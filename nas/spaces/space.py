"""What every search space offers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate, Choice, Domain, Hyperparameters
from nas.configuration import is_own
from nas.errors import InvalidValue, require
from nas.relaxations.relaxation import Relaxation
from nas.signature import INPUTS, PREDICTIONS, Head, Signature
from nas.spaces.fitting import fitting_space
from nas.spaces.supernet import Supernet

Probabilities = Mapping[str, Mapping[str, float]]  # row of alpha to option to probability
BlockCost = Callable[[str, Callable[[], nn.Module], Signature | tuple[int, ...]], float]
"""The cost of a part of a network, from a text that identifies the part and its shapes, a function that makes it, and
the shape of one input without its batch, or the signature that says it."""

SKIPS = ("skip", "skip_connect")  # options that pass their input on


class LayerDescription(NamedTuple):
    """A layer in words: its ``kind`` (conv, pool, dense, attention, ... or skip), a ``label`` and ``detail``."""

    kind: str
    label: str
    detail: str


class Rivals(NamedTuple):
    """Rows of alpha of which only so many are ``kept`` in an architecture, as the edges that enter a node."""

    rows: tuple[str, ...]
    kept: int


class RunnerUp(NamedTuple):
    """The second choice of a decision: its ``option``, by how much it is less probable, the architecture with it."""

    option: str
    margin: float
    architecture: Architecture


class Slice(NamedTuple):
    """A supernet without what certain operation weights leave out, its own ``weights``, and the price of one image."""

    supernet: Supernet
    weights: dict[str, Tensor]
    multiply_adds: float


class SearchSpace(ABC):
    """The choices of an architecture and the ranges of its hyperparameters, for data of one signature.

    A subclass lies in a package of ``nas.spaces`` that is called as its ``name``, or in a module of a user's own.

    Attributes:
        name: What the space is called.
        signature: What goes into its networks and what comes out.
        ranges: The hyperparameters that are part of the joint space.
        ranks: How many dimensions the places of an input may have: 2 of images, 1 of series, 0 of rows of numbers.
        reads_tokens: Whether inputs may be the tokens of a text.
        heads: Which predictions its networks can make.
        never_chosen: Options of alpha's rows that no architecture has.
    """

    name: ClassVar[str]
    ranks: ClassVar[tuple[int, ...]] = (2,)
    reads_tokens: ClassVar[bool] = False
    heads: ClassVar[tuple[Head, ...]] = ("point",)
    never_chosen: ClassVar[frozenset[str]] = frozenset()
    _choices: tuple[Choice, ...]

    def __init__(self, signature: Signature, ranges: Mapping[str, Domain] | None = None) -> None:
        self.signature = signature
        self.ranges = dict(ranges or {})
        self._refuse_what_does_not_fit()

    def _refuse_what_does_not_fit(self) -> None:
        """Raise :class:`InvalidValue` where its networks cannot be made for the signature."""
        one = self.signature
        inputs = " or ".join([*(["texts"] if self.reads_tokens else []), *(INPUTS[rank] for rank in self.ranks)])
        made = " or ".join(PREDICTIONS[head] for head in self.heads)
        words = f"it is for {inputs} with {made}, and the data are {one.in_words()}: take space={fitting_space(one)}"
        readable = self.reads_tokens if one.is_tokens else one.rank in self.ranks
        require(readable and one.head in self.heads, "space", self.name, words)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (channels, height, width) of an image."""
        return self.signature.input_shape

    @property
    def outputs(self) -> int:
        """The numbers of one prediction."""
        return self.signature.outputs

    @property
    def classes(self) -> int:
        """:attr:`outputs` where classes are told apart."""
        return self.signature.outputs

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The decisions that make up an architecture."""
        return self._choices

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments with which the class makes this space again, as JSON values; see :meth:`from_settings`."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], signature: Signature) -> "SearchSpace":
        """The inverse of :meth:`settings`.

        Raises:
            InvalidValue: ``settings``, which come from a file, are not those of such a space.
        """
        return cls(**settings, signature=signature)

    @abstractmethod
    def supernet(self, relaxation: Relaxation) -> Supernet:
        """A freshly initialised supernet (the global generator draws its weights)."""

    @abstractmethod
    def network(self, architecture: Architecture) -> nn.Module:
        """The freshly initialised stand-alone network of ``architecture``: plain modules, logits (batch, classes)."""

    @abstractmethod
    def architecture_weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The weights with which the supernet computes ``architecture``: one-hot, named and shaped as its alphas."""

    def expected_cost(self, weights: Mapping[str, Tensor], cost: BlockCost) -> Tensor:
        """The cost of the stand-alone network, parts added up, 0-dim, differentiable with respect to ``weights``.

        Args:
            weights: The options' relaxed weights, named and shaped as the supernet's alphas. Where those of each choice
                are probabilities, this is the mean cost of the networks that they draw; at
                :meth:`architecture_weights` it is the cost of that network.
            cost: The cost of one part.

        Raises:
            InvalidValue: The space does not tell it.
        """
        raise InvalidValue("space", self.name, "it has no expected_cost(weights, cost)")

    def network_arguments(self, architecture: Architecture) -> dict[str, Any]:
        """The arguments of the class of :meth:`network`, as literals and namespaces of them, for a file of its own.

        A space whose networks are chains of PyTorch's own layers needs none.

        Raises:
            InvalidValue: The space does not tell them.
        """
        raise InvalidValue("space", self.name, "its networks cannot be written into a file of their own")

    def reduction(self, architecture: Architecture) -> int:
        """How many places along a side of an input become one in the smallest layers of ``architecture``'s network."""
        return 1

    def doubts(self, architecture: Architecture) -> list[str]:
        """Why the network of ``architecture`` cannot work as it should, in words; nothing speaks against a sound one.

        Such a network can be trained all the same, so nobody would notice.
        """
        sides, reduction = self.input_shape[1:], self.reduction(architecture)
        if not sides or reduction <= min(sides):
            return []
        images = f"{'x'.join(map(str, sides))} images", "pixel"
        inputs, place = images if len(sides) == 2 else (f"series of {sides[0]} steps", "step")
        return [f"it reduces {inputs} {reduction} times, to less than a {place}"]

    def layer_descriptions(self, architecture: Architecture) -> list[LayerDescription]:
        """The architecture in words; here one entry per choice."""
        return [LayerDescription("conv", name, option) for name, option in architecture.items()]

    def preferred(self, probabilities: Probabilities) -> Architecture:
        """The architecture that ``probabilities`` prefer, those of ``Supernet.probabilities`` for example.

        Every choice takes its most probable option, among equals the one named earlier.
        """
        strongest = {name: max(options, key=options.__getitem__) for name, options in probabilities.items()}
        return Architecture(self.name, {choice.name: strongest[choice.name] for choice in self.choices})

    def rivals(self) -> list[Rivals]:
        """The rows of alpha that compete for their place; in most spaces each row has a place of its own."""
        return []

    def skips(self, architecture: Architecture) -> list[tuple[str, str]]:
        """Where ``architecture`` skips, as (row of alpha, option); too many of them are how a search collapses."""
        return [(choice, option) for choice, option in architecture.items() if option in SKIPS]

    def conditions(self) -> dict[str, tuple[str, str]]:
        """The choices that make a difference only where another one takes a certain option, with both of these."""
        return {}

    def acts(self, choice: str, options: Mapping[str, str]) -> bool:
        """Whether it makes a difference which option ``choice`` takes, where the others take ``options``."""
        other, needed = self.conditions().get(choice, (None, None))
        return other is None or options[other] == needed

    def attributes(self) -> frozenset[str]:
        """The choices that say how a layer is, and not which one stands at its place."""
        return frozenset()

    def sliced(self, supernet: Supernet, weights: Mapping[str, Tensor]) -> Slice:
        """What of ``supernet`` is left when nothing is computed that ``weights`` leave out: the same logits.

        Raises:
            InvalidValue: The supernets of this space compute all of their options.
        """
        raise InvalidValue("space", self.name, "its supernet cannot leave options out: take macro")

    def narrowed(self, options: Mapping[str, Sequence[str]], further_cells: int) -> "SearchSpace":
        """This space with less to choose, whose supernet is deeper; its architectures are architectures of this one.

        Args:
            options: What each row of alpha chooses from, equally many in all.
            further_cells: By how many cells the supernet is deeper.

        Raises:
            InvalidValue: Its supernets are not made of cells that are shared.
        """
        raise InvalidValue("space", self.name, "its search network has no number of cells that could grow: take darts")

    def runner_up(self, choice: str, architecture: Architecture, probabilities: Probabilities) -> RunnerUp | None:
        """The strongest option of ``choice`` that ``architecture`` does not have, None where there is no other."""
        options = probabilities[choice]
        others = [option for option in options if option != architecture[choice]]
        if not others:
            return None
        option = max(others, key=options.__getitem__)
        swapped = Architecture(self.name, {**architecture, choice: option})
        return RunnerUp(option, options[architecture[choice]] - options[option], swapped)

    def agree(self, choice: str, one: Architecture, other: Architecture) -> bool:
        """Whether both architectures decide ``choice`` in the same way."""
        return one[choice] == other[choice]

    def describe(self) -> dict[str, Any]:
        """JSON values from which :func:`~nas.spaces.recorded.space_from_description` rebuilds this space."""
        own = {"_target_": f"{type(self).__module__}.{type(self).__qualname__}"} if is_own(type(self)) else {}
        return {"name": self.name, **own, **_described(self.signature), "settings": self.settings()}

    def fitted(self, signature: Signature) -> "SearchSpace":
        """The same space, with the same settings and ranges, for other data."""
        space = type(self).from_settings(self.settings(), signature)
        space.ranges = self.ranges
        return space

    def size(self) -> int:
        """The number of assignments of the choices; those that differ only in unused choices count too."""
        return math.prod(len(choice.options) for choice in self.choices)

    def sample(self, generator: torch.Generator) -> Candidate:
        """A candidate with every option equally likely and every hyperparameter uniform on its scale."""
        options = {
            choice.name: choice.options[int(torch.randint(len(choice.options), (), generator=generator))]
            for choice in self.choices
        }
        values = {
            name: range_.from_unit(float(torch.rand((), generator=generator, dtype=torch.float64)))
            for name, range_ in self.ranges.items()
        }
        return Candidate(Architecture(self.name, options), Hyperparameters(values))

    def encode(self, candidate: Candidate) -> list[float]:
        """One number per choice (its option's index), then one per hyperparameter (its place from 0 to 1)."""
        candidate.architecture.check(self.choices)
        for name in self.ranges:
            require(name in candidate.hyperparameters, f"hyperparameters.{name}", None, "the space has it")
        indices = [float(choice.options.index(candidate.architecture[choice.name])) for choice in self.choices]
        places = [range_.to_unit(candidate.hyperparameters[name]) for name, range_ in self.ranges.items()]
        return indices + places

    def decode(self, vector: Sequence[float]) -> Candidate:
        """The inverse of :meth:`encode`; indices are rounded and clamped to the options there are."""
        length = len(self.choices) + len(self.ranges)
        good = len(vector) == length and all(map(math.isfinite, vector))
        require(good, "vector", list(vector), f"it must have {length} finite entries")
        options = {}
        for choice, entry in zip(self.choices, vector, strict=False):  # the places come after them
            options[choice.name] = choice.options[min(max(round(entry), 0), len(choice.options) - 1)]
        places = vector[len(self.choices) :]
        values = {
            name: range_.from_unit(place) for (name, range_), place in zip(self.ranges.items(), places, strict=True)
        }
        return Candidate(Architecture(self.name, options), Hyperparameters(values))

    def repair(self, indices: list[float], generator: torch.Generator) -> list[float]:
        """An encoded architecture after crossover or mutation, changed where :meth:`sample` would never give it.

        Here it stays as it is: every combination of options is as good as any other.
        """
        return indices


def require_settings(given: Collection[str], names: Collection[str]) -> None:
    """Raise :class:`InvalidValue` unless ``given`` are exactly the ``names`` of a space's settings."""
    require(set(given) == set(names), "", sorted(given), f"it must hold {', '.join(sorted(names))}")


def namespace_of(signature: Signature) -> SimpleNamespace:
    """What a network reads of its signature, for a file of its own."""
    return SimpleNamespace(**vars(signature), rank=signature.rank, is_tokens=signature.is_tokens)


def _of_images(signature: Signature) -> bool:
    """Whether ``signature`` is one of images and classes, as every one was in the first files."""
    return signature == Signature(signature.input_shape, signature.outputs) and signature.rank == 2


def _described(signature: Signature) -> dict[str, Any]:
    """The entries of a description; ``signature`` is left out where the others say all."""
    entries = {"input_shape": list(signature.input_shape), "classes": signature.outputs}
    said = _of_images(signature) and signature.outputs > 1
    return entries if said else entries | {"signature": signature.to_json()}
