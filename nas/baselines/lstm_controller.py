"""The LSTM controller of Zoph and Le (2017, "Neural Architecture Search with Reinforcement Learning").

It takes one decision after the other, each fed back as the next input. After the choices come the hyperparameters.
"""

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
from nas.configuration import require


class LSTMPolicy(Policy):
    """One recurrent cell; an embedding per option, a linear head per decision."""

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
        """Follow ``actions`` or, where there are none, draw them: actions, log-probability and entropy."""
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
        """As :meth:`Policy.evaluate`; the entropy is that of each decision given those before it."""
        _, log_probability, entropy = self._decisions(actions, len(actions), None)
        return log_probability, entropy


@dataclass(frozen=True)
class LSTMController:
    """Settings of :class:`LSTMPolicy`.

    Args:
        hidden: Units of the recurrent cell and of the embeddings.
        initial: All weights start uniform between minus and plus this.
    """

    hidden: int = 35
    initial: float = 0.08

    def __post_init__(self) -> None:
        require(1 <= self.hidden <= 4096, "hidden", self.hidden, "it must be a whole number from 1 to 4096")
        require(0 < self.initial <= 1, "initial", self.initial, "it must be above 0 and at most 1")

    def policy(self, sizes: Sequence[int], places: int, generator: torch.Generator) -> LSTMPolicy:
        return LSTMPolicy(sizes, places, self.hidden, self.initial, generator)
