"""A policy whose decisions are independent of each other: a row of logits per choice, a Gaussian per place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.baselines.policy import (
    Policy,
    bounded_log_deviation,
    categorical_entropy,
    drawn_gaussian,
    gaussian_log_density,
    place_entropy,
)

IMPOSSIBLE = -1e9  # as a logit: finite, since 0 * inf in the entropy would be nan


class FactorisedPolicy(Policy):
    """``logits`` (choices, most options), ``mean`` and ``raw_log_deviation`` (places,), all 0 when made."""

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
        """(choices, most options)."""
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
