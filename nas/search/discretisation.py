"""From the supernet that a search leaves behind to one architecture."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from nas.candidate import Architecture
from nas.data.batches import Batch
from nas.errors import InvalidValue, require
from nas.evaluation.objective import Objective
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.search.stopping_rules import StoppingRule
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.tasks import PLAIN_CLASSIFICATION, Task

Tune = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Trained:
    """A trained supernet, and what a discretisation may ask of it.

    Attributes:
        supernet: As the search left it.
        space: The space of the supernet.
        batches: Gives the same first validation images at every call: at most as many as it is asked for. A second
            argument says how many multiply-adds one image takes, where the whole supernet is not computed.
        generator: Of what is random in the choice; in the same state at every call.
        tune: Trains the supernet for so many epochs, as the which time (from 0) of how many.
        task: What the outputs mean.
    """

    supernet: Supernet
    space: SearchSpace
    batches: Callable[..., Iterable[Batch]]
    generator: Generator | None = None
    tune: Tune | None = None
    task: Task = PLAIN_CLASSIFICATION


class Discretisation(ABC):
    """How the architecture is read off a finished supernet.

    Attributes:
        asks_for_losses: Whether it chooses by the validation losses of options, which are then in ``losses``.
        losses: By choice and option the validation losses of its samples (N,), as the last choice was made by; without
            the choices not looked at.
    """

    asks_for_losses: bool = False
    losses: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({})

    def check(self, supernet: Supernet, space: SearchSpace) -> None:  # noqa: B027 - most rules suit every space
        """Raise ``InvalidValue`` where it cannot choose in ``space``, whose supernet ``supernet`` is."""

    def suited_to(self, objective: Objective, stopping: StoppingRule | None) -> "Discretisation":
        """The rule to take with these: this one, unless a subclass says another."""
        return self

    def images(self, space: SearchSpace, available: int) -> int:
        """How many images of ``available`` go forward through the supernet at most, each pass counted."""
        return 0

    def tuning_epochs(self, space: SearchSpace) -> int:
        """For how many epochs the supernet is trained on meanwhile, at most."""
        return 0

    @abstractmethod
    def choose(self, trained: Trained) -> Architecture:
        """The architecture; the supernet is left as it was, but for its weights and alphas where it is tuned."""


class Strongest(Discretisation):
    """The options that alpha prefers (Liu et al., 2019)."""

    def choose(self, trained: Trained) -> Architecture:
        return trained.supernet.discretise()


class Alone(Discretisation):
    """One choice after the other takes the option with which alone the supernet's validation loss is lowest.

    The size of alpha need not tell what an option is worth: the first part of a width's weight brings most of what the
    width is worth, so that alpha, which feels the slope at the mixture, hardly feels how wide a layer should be.
    Choices made are one-hot from then on, those to come stay relaxed; what alpha is surest of is decided first.

    This is not the rule of DARTS-PT (Wang et al., 2021, "Rethinking architecture selection in differentiable NAS"),
    which takes an option away and looks at what that costs, trains the supernet on between two choices, and visits them
    in random order.

    Args:
        images: Validation images at most for one option.
        types_first: Whether choices on which others depend, as the type of a layer, are made first. What a chosen type
            switches off is then not scored: alpha's option stays.
        sliced: Whether only that is computed, and counted, which an option and the choices made leave in.
    """

    asks_for_losses = True

    def __init__(self, images: int, types_first: bool = False, sliced: bool = False) -> None:
        require(images >= 2, "images", images, "it must be at least 2: batch norm needs two")
        self.most, self.types_first, self.sliced = images, types_first, sliced

    def check(self, supernet: Supernet, space: SearchSpace) -> None:
        """Raise ``InvalidValue`` where choices and rows of alpha differ, as in DARTS cells, whose edges compete."""
        if not has_own_rows(supernet, space):
            raise InvalidValue("", "alone", f"{space.name} has choices without an alpha of their own, take strongest")
        if self.sliced:
            try:
                space.sliced(supernet, relaxed_weights(supernet))
            except InvalidValue as error:
                raise InvalidValue("sliced", True, error.allowed) from error

    def images(self, space: SearchSpace, available: int) -> int:
        options = {choice.name: len(choice.options) for choice in space.choices}
        conditions = space.conditions() if self.types_first else {}
        scored = sum(count for name, count in options.items() if name not in conditions)
        for kind in {kind for kind, _ in conditions.values()}:
            by_type: Counter[str] = Counter()
            for name, (other, option) in conditions.items():
                by_type[option] += options[name] if other == kind else 0
            scored += max(by_type.values())
        return scored * min(self.most, available)

    def choose(self, trained: Trained) -> Architecture:
        supernet, space = trained.supernet, trained.space
        preferred, probabilities = supernet.discretise(), supernet.probabilities()
        weights, rows = relaxed_weights(supernet), alpha_places(supernet)
        chosen, conditions = dict(preferred), space.conditions() if self.types_first else {}
        types, losses = {kind for kind, _ in conditions.values()}, dict[str, dict[str, Tensor]]()
        certain = sorted(space.choices, key=lambda choice: -max(probabilities[choice.name].values()))
        for choice in sorted(certain, key=lambda choice: choice.name not in types):
            if self.types_first and not space.acts(choice.name, chosen):
                continue
            one_hot = torch.eye(len(choice.options))
            alone = {
                option: with_row(weights, rows[choice.name], one_hot[index])
                for index, option in enumerate(choice.options)
            }
            ranks = {}  # alpha decides where the options make no difference, as those of a type that is not taken
            for option, one in alone.items():
                loss, losses_of_samples = self._loss(trained, one)
                ranks[option] = (loss, option != preferred[choice.name])
                losses.setdefault(choice.name, {})[option] = losses_of_samples
            chosen[choice.name] = min(ranks, key=ranks.__getitem__)
            weights = alone[chosen[choice.name]]
        self.losses = losses
        return Architecture(preferred.space, chosen)

    def _loss(self, trained: Trained, weights: dict[str, Tensor]) -> tuple[float, Tensor]:
        """The mean loss with operation ``weights``, and that of each sample, (N,)."""
        supernet, per_image = trained.supernet, tuple[float, ...]()
        if self.sliced:
            supernet, weights, multiply_adds = trained.space.sliced(supernet, weights)
            per_image = (multiply_adds,)
        each: list[Tensor] = []
        images = trained.batches(self.most, *per_image)
        loss = supernet_metrics(supernet, images, weights, trained.task, each)["loss"]
        return loss, torch.cat(each) if each else torch.empty(0)


class AloneOrStrongest(Alone):
    """:class:`Alone` where each choice has an alpha of its own, and the options that alpha prefers elsewhere.

    Types come first, and where the space can leave options out, only what is left is computed. It gives way where the
    objective has costs, of which alpha alone knows, and where the search may go back to an old alpha, with which the
    weights have nothing to do.

    Args:
        images: Validation images at most for one option.
    """

    def __init__(self, images: int) -> None:
        super().__init__(images, types_first=True)

    def suited_to(self, objective: Objective, stopping: StoppingRule | None) -> Discretisation:
        gives_way = bool(objective.penalty.shares) or (stopping is not None and stopping.goes_back)
        return Strongest() if gives_way else self

    def check(self, supernet: Supernet, space: SearchSpace) -> None:
        self.asks_for_losses = has_own_rows(supernet, space)
        try:
            self.sliced = self.asks_for_losses and bool(space.sliced(supernet, relaxed_weights(supernet)))
        except InvalidValue:
            self.sliced = False

    def images(self, space: SearchSpace, available: int) -> int:
        return 0 if space.rivals() else super().images(space, available)

    def choose(self, trained: Trained) -> Architecture:
        return super().choose(trained) if self.asks_for_losses else trained.supernet.discretise()


def alpha_places(supernet: Supernet) -> dict[str, tuple[str, int]]:
    """Where each decision's row is: the name of its alpha and its number in it."""
    return {row: (name, number) for name in supernet.alpha for number, (row, _) in enumerate(supernet.alpha_rows(name))}


def decided_rows(space: SearchSpace) -> set[str]:
    """The rows of alpha that choose an option; the weights of edges, where there are any, are not among them."""
    return {row for rivals in space.rivals() for row in rivals.rows} or {choice.name for choice in space.choices}


def has_own_rows(supernet: Supernet, space: SearchSpace) -> bool:
    """Whether each choice has a row of alpha of its own, as in the macro space; DARTS edges compete instead."""
    return set(alpha_places(supernet)) == {choice.name for choice in space.choices}


def with_row(weights: Mapping[str, Tensor], place: tuple[str, int], values: Tensor) -> dict[str, Tensor]:
    """``weights`` with other ``values`` (options,) in one row, whose place is that of :func:`alpha_places`."""
    name, number = place
    changed = weights[name].clone()
    changed.view(-1, changed.shape[-1])[number] = values.to(changed)
    return {**weights, name: changed}
