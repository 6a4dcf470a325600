"""What spaces share in which each choice has an alpha of its own, of shape (options,)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Choice
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet


def alpha_name(choice: str) -> str:
    """The name of a choice's alpha: a parameter's name may hold no dot."""
    return choice.replace(".", "-")


def one_hot_weights(choices: Sequence[Choice], architecture: Architecture) -> dict[str, Tensor]:
    """Per alpha 1 at the option of ``architecture``, 0 elsewhere, (options,)."""
    architecture.check(choices)
    weights = {}
    for choice in choices:
        weights[alpha_name(choice.name)] = torch.zeros(len(choice.options))
        weights[alpha_name(choice.name)][choice.options.index(architecture[choice.name])] = 1
    return weights


class OwnRowsSupernet(Supernet):
    """A supernet with an alpha per choice of ``space``, which :meth:`add_alphas` makes once all layers are there."""

    space: SearchSpace

    def add_alphas(self) -> None:
        for choice in self.space.choices:
            self.alpha[alpha_name(choice.name)] = nn.Parameter(self.relaxation.initial((len(choice.options),)))

    def alpha_rows(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(choice.name, choice.options) for choice in self.space.choices if alpha_name(choice.name) == name]
