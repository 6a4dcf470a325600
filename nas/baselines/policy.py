"""The policies of REINFORCE: distributions over candidates.

An action holds one index per choice and then one number ``z`` per continuous hyperparameter, whose place from 0 to 1 is
the standard normal's distribution function at ``z``. A policy draws ``z`` from a Gaussian; the standard Gaussian makes
places uniform.

:class:`FactorisedPolicy` takes all decisions independently. :class:`LSTMPolicy` is the controller of Zoph and Le (2017,
"Neural Architecture Search with Reinforcement Learning"): it takes one decision after the other and feeds each back as
the next input; the hyperparameters come after the choices.
"""

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nas.errors import require

LARGEST_LOG_DEVIATION = 3.0
LARGEST_Z = 3.0  # of an action that was not drawn; one drawn in 370 lies beyond


class Policy(nn.Module, ABC):
    """A distribution over actions. A new policy is about uniform over the space. All numbers are float64.

    Args:
        sizes: The number of options of each choice.
        places: The number of continuous hyperparameters.
    """

    def __init__(self, sizes: Sequence[int], places: int) -> None:
        super().__init__()
        self.sizes, self.places = tuple(sizes), places

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions: (count, choices + places)."""

    @abstractmethod
    def evaluate(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """For each action the log-probability and the entropy in nats of its decisions: (count,) each, differentiable.

        A hyperparameter adds the differential entropy of its place: 0 if the place is uniform, otherwise below 0.
        """

    def marginals(self) -> list[list[float]]:
        """The probabilities of each choice's options; empty if a choice depends on the ones before it."""
        return []


class PolicySettings(Protocol):
    """What a configuration builds before the space is known."""

    def policy(self, sizes: Sequence[int], places: int, generator: torch.Generator) -> Policy:
        """The policy; random initial weights come from ``generator``."""
        ...


def drawn_gaussian(mean: Tensor, log_deviation: Tensor, generator: torch.Generator) -> Tensor:
    """One Gaussian number for each entry of ``mean``."""
    return mean + log_deviation.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


def bounded_log_deviation(raw: Tensor) -> Tensor:
    """``raw`` near 0, and smoothly bounded, so that its exponential cannot overflow."""
    return LARGEST_LOG_DEVIATION * (raw / LARGEST_LOG_DEVIATION).tanh()


def categorical_entropy(log_probabilities: Tensor) -> Tensor:
    """The entropy of each row in nats: (..., options) to (...)."""
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def gaussian_log_density(z: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """The log-density of each entry of ``z``."""
    return -0.5 * ((z - mean) / log_deviation.exp()) ** 2 - log_deviation - 0.5 * math.log(2 * math.pi)


def place_entropy(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """The differential entropy of a place: minus the divergence of ``z`` from the standard normal."""
    return log_deviation - 0.5 * ((2 * log_deviation).exp() + mean**2 - 1)


def place_of(z: float) -> float:
    """The standard normal's distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def z_of(place: float) -> float:
    """The inverse of :func:`place_of`, bounded: at the very ends, 0 and 1, it would be infinite."""
    least = place_of(-LARGEST_Z)
    return statistics.NormalDist().inv_cdf(min(max(place, least), 1 - least))


IMPOSSIBLE = -1e9  # as a logit: finite, since 0 * inf in the entropy would be nan


class FactorisedPolicy(Policy):
    """Independent decisions: a row of logits per choice, a Gaussian per place.

    ``logits`` are (choices, most options), ``mean`` and ``raw_log_deviation`` (places,). All start at 0.
    """

    impossible: Tensor

    def __init__(self, sizes: Sequence[int], places: int) -> None:
        super().__init__(sizes, places)
        widest = max(sizes, default=0)
        self.logits = nn.Parameter(torch.zeros(len(sizes), widest, dtype=torch.float64))
        self.mean = nn.Parameter(torch.zeros(places, dtype=torch.float64))
        self.raw_log_deviation = nn.Parameter(torch.zeros(places, dtype=torch.float64))
        missing = torch.tensor([option >= size for size in sizes for option in range(widest)], dtype=torch.bool)
        self.register_buffer("impossible", missing.view(len(sizes), widest), persistent=False)

    def log_probabilities(self) -> Tensor:
        """The log-probability of every option: (choices, most options)."""
        return self.logits.masked_fill(self.impossible, IMPOSSIBLE).log_softmax(-1)

    @torch.no_grad()
    def marginals(self) -> list[list[float]]:
        rows = self.log_probabilities().exp().tolist()
        return [row[:size] for row, size in zip(rows, self.sizes, strict=True)]

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        columns = torch.empty(count, 0, dtype=torch.float64)
        if self.sizes:
            rows = self.log_probabilities().exp()
            drawn = torch.multinomial(rows, count, replacement=True, generator=generator)
            columns = drawn.T.to(torch.float64)
        shape = (count, self.places)
        log_deviation = bounded_log_deviation(self.raw_log_deviation).expand(shape)
        return torch.cat([columns, drawn_gaussian(self.mean.expand(shape), log_deviation, generator)], dim=1)

    def evaluate(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        choices = len(self.sizes)
        rows, log_deviation = self.log_probabilities(), bounded_log_deviation(self.raw_log_deviation)
        chosen = rows[torch.arange(choices), actions[:, :choices].long()].sum(1)
        density = gaussian_log_density(actions[:, choices:], self.mean, log_deviation).sum(1)
        entropy = categorical_entropy(rows).sum() + place_entropy(self.mean, log_deviation).sum()
        return chosen + density, entropy.expand(len(actions))


@dataclass(frozen=True)
class Factorised:
    """Settings of :class:`FactorisedPolicy`: there are none."""

    def policy(self, sizes: Sequence[int], places: int, generator: torch.Generator) -> FactorisedPolicy:
        return FactorisedPolicy(sizes, places)


class LSTMPolicy(Policy):
    """One recurrent cell, an embedding per option, and a linear head per decision."""

    def __init__(
        self, sizes: Sequence[int], places: int, hidden: int, initial: float, generator: torch.Generator
    ) -> None:
        super().__init__(sizes, places)
        with torch.random.fork_rng(devices=[]):  # the modules' own initialisation is replaced below
            self.cell = nn.LSTMCell(hidden, hidden, dtype=torch.float64)
            self.start = nn.Parameter(torch.empty(hidden, dtype=torch.float64))
            self.embeddings = nn.ModuleList(nn.Embedding(size, hidden, dtype=torch.float64) for size in sizes)
            self.place_embedding = nn.Linear(1, hidden, dtype=torch.float64)
            self.option_heads = nn.ModuleList(nn.Linear(hidden, size, dtype=torch.float64) for size in sizes)
            self.place_heads = nn.ModuleList(nn.Linear(hidden, 2, dtype=torch.float64) for _ in range(places))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -initial, initial, generator=generator)

    def _decisions(
        self, actions: Tensor | None, count: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Follow ``actions``, or draw ``count`` if None: the actions, their log-probability and their entropy."""
        fed = self.start.expand(count, -1)
        state = (torch.zeros_like(fed), torch.zeros_like(fed))
        taken: list[Tensor] = []
        log_probability, entropy = fed.new_zeros(count), fed.new_zeros(count)
        for step in range(len(self.sizes) + self.places):
            state = self.cell(fed, state)
            place = step - len(self.sizes)
            if place < 0:
                rows = self.option_heads[step](state[0]).log_softmax(-1)
                if actions is None:
                    column = torch.multinomial(rows.exp(), 1, generator=generator)
                else:
                    column = actions[:, step : step + 1].long()
                log_probability = log_probability + rows.gather(1, column).squeeze(1)
                entropy = entropy + categorical_entropy(rows)
                fed = self.embeddings[step](column.squeeze(1))
            else:
                mean, raw = self.place_heads[place](state[0]).split(1, dim=1)
                log_deviation = bounded_log_deviation(raw)
                if actions is None:
                    assert generator is not None
                    column = drawn_gaussian(mean, log_deviation, generator)
                else:
                    column = actions[:, step : step + 1]
                log_probability = log_probability + gaussian_log_density(column, mean, log_deviation).squeeze(1)
                entropy = entropy + place_entropy(mean, log_deviation).squeeze(1)
                fed = self.place_embedding(column)
            taken.append(column.to(torch.float64))
        return torch.cat(taken, dim=1), log_probability, entropy

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return self._decisions(None, count, generator)[0]

    def evaluate(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`Policy.evaluate`; each decision's entropy is conditional on the decisions before it."""
        _, log_probability, entropy = self._decisions(actions, len(actions), None)
        return log_probability, entropy


@dataclass(frozen=True)
class LSTMController:
    """Settings of :class:`LSTMPolicy`.

    Args:
        hidden: The number of units of the recurrent cell and of the embeddings.
        initial: All weights start uniform from ``-initial`` to ``initial``.
    """

    hidden: int = 35
    initial: float = 0.08

    def __post_init__(self) -> None:
        require(1 <= self.hidden <= 4096, "hidden", self.hidden, "it must be a whole number from 1 to 4096")
        require(0 < self.initial <= 1, "initial", self.initial, "it must be above 0 and at most 1")

    def policy(self, sizes: Sequence[int], places: int, generator: torch.Generator) -> LSTMPolicy:
        return LSTMPolicy(sizes, places, self.hidden, self.initial, generator)
