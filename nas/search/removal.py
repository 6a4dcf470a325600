"""Discretisation by removal: an option is worth what the trained supernet loses without it (DARTS-PT).

Wang et al. (2021), "Rethinking architecture selection in differentiable NAS". What their published code does, beyond
what the paper says, is done here:

- The weights that stay are not renormalised when one is taken away.
- Edges are judged against the cell with all edges of the node still there, so that the two that are kept are the two
  whose single removal hurts most.
- Ties go to the option named first, and to the edges that come first.

The criterion there is the accuracy of all validation images. Of few images most accuracies tie; the loss does not.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from nas.candidate import Architecture
from nas.errors import require
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.search.discretisation import Discretisation, Trained, alpha_places, decided_rows, with_row
from nas.spaces.space import Rivals, SearchSpace
from nas.spaces.supernet import Supernet

Weights = dict[str, Tensor]
One = TypeVar("One")


class RemovalOrder(NamedTuple):
    """In which order decisions are made: rows of alpha by name, then the rows that compete for a place.

    They go round the ``cells``.
    """

    rows: Sequence[str]
    rivals: Sequence[Rivals]
    cells: int = 1


class Removal(Discretisation):
    """Of every row the option whose removal hurts most, then of competing rows those whose removal hurts most.

    Rows are visited in random order, the cells in turn. Decided rows are one-hot, the others stay relaxed.

    Args:
        images: Validation images at most for one removal.
        criterion: What is to suffer: the ``loss`` or the ``accuracy``.
        tuning: Epochs for which weights and alpha are trained on, together, each time that all cells have had their
            turn. All of it is taken back at the end.
    """

    def __init__(self, images: int, criterion: Literal["loss", "accuracy"] = "loss", tuning: int = 0) -> None:
        require(images >= 2, "images", images, "it must be at least 2: batch norm needs two")
        require(tuning >= 0, "tuning", tuning, "it must be at least 0")
        self.most, self.criterion, self.tuning = images, criterion, tuning

    def tuning_epochs(self, space: SearchSpace) -> int:
        return self.tuning * (len(decided_rows(space)) + len(contested(space)))

    def images(self, space: SearchSpace, available: int) -> int:
        any_architecture = space.sample(torch.Generator().manual_seed(0)).architecture
        options = sum(weights.numel() for weights in space.architecture_weights(any_architecture).values())
        return (options + sum(len(rivals.rows) for rivals in space.rivals())) * min(self.most, available)

    def choose(self, trained: Trained) -> Architecture:
        supernet, space = trained.supernet, trained.space
        supernet.finite_probabilities()  # an alpha that is not finite is named
        order = drawn_order(supernet, space, trained.generator)
        between = None if trained.tune is None or self.tuning == 0 else partial(trained.tune, self.tuning)
        return Decisions(supernet, space, self.harm(trained)).made_in(order, between)

    def harm(self, trained: Trained) -> Callable[[Mapping[str, Tensor]], float]:
        """How bad the supernet is with given operation weights."""

        def measured(weights: Mapping[str, Tensor]) -> float:
            images = trained.batches(self.most)
            value = supernet_metrics(trained.supernet, images, weights, trained.task)[self.criterion]
            value = -value if self.criterion == "accuracy" else value
            return math.inf if math.isnan(value) else value

        return measured


class Decisions:
    """The decisions made so far, and those to come.

    Attributes:
        operations: The option of every decided row, by the row's name.
        dropped: The rows that lost against their rivals.
    """

    def __init__(self, supernet: Supernet, space: SearchSpace, harm: Callable[[Mapping[str, Tensor]], float]) -> None:
        self.supernet, self.space, self.harm, self.places = supernet, space, harm, alpha_places(supernet)
        self.options = {row: options for name in supernet.alpha for row, options in supernet.alpha_rows(name)}
        self.weights = relaxed_weights(supernet)
        self.operations: dict[str, str] = {}
        self.dropped: set[str] = set()

    def made_in(self, order: RemovalOrder, between: Callable[[int, int], None] | None = None) -> Architecture:
        """The architecture, once all is decided in that order.

        Args:
            between: Called whenever all cells have had their turn, but for the last time: trains the supernet, as the
                which time (from 0) of how many.
        """
        decisions = [partial(self.choose_option, row) for row in order.rows]
        decisions += [partial(self.keep_strongest, rivals) for rivals in order.rivals]
        rounds = -(-len(decisions) // order.cells)
        gone = self.supernet.taken_away()
        for number in range(rounds):
            for decide in decisions[number * order.cells : (number + 1) * order.cells]:
                decide()
            if between is not None and number < rounds - 1:
                self._fix(gone)
                between(number, rounds - 1)
                self.weights = relaxed_weights(self.supernet)
        for name, kept in gone.items():
            self.supernet.keep(name, kept)
        decided = {
            row: {option: float(option == chosen and row not in self.dropped) for option in self.options[row]}
            for row, chosen in self.operations.items()
        }
        return self.space.preferred(decided)

    def choose_option(self, row: str) -> None:
        """Decide ``row`` for the option whose removal hurts most, the first of equals."""
        options, present = self.options[row], self._row(row)
        able = [index for index, option in enumerate(options) if option not in self.space.never_chosen]
        # What was taken away earlier (Supernet.keep) has no weight, and may not come back.
        open_ones = [index for index in able if present[index] > 0] or able
        one_hot = torch.eye(len(options)).to(present)
        best = open_ones[0]
        if len(open_ones) > 1:
            best = max(open_ones, key=lambda index: self.harm(self._with(row, present * (1 - one_hot[index]))))
        self.operations[row] = options[best]
        self.weights = self._with(row, one_hot[best])

    def keep_strongest(self, rivals: Rivals) -> None:
        """Drop the rows of ``rivals`` whose removal hurts least, the last of equals."""
        harm = [self.harm(self._with(row, torch.zeros_like(self._row(row)))) for row in rivals.rows]
        strongest = sorted(range(len(harm)), key=lambda place: -harm[place])
        for place in strongest[rivals.kept :]:
            row = rivals.rows[place]
            self.dropped.add(row)
            self.weights = self._with(row, torch.zeros_like(self._row(row)))

    def _fix(self, gone: Mapping[str, Tensor | None]) -> None:
        """Let the supernet compute what is decided; ``gone`` is what it kept before any decision."""
        for name, alpha in self.supernet.alpha.items():
            before = gone[name]
            kept = torch.ones_like(alpha) if before is None else before.clone()
            for place, (row, options) in enumerate(self.supernet.alpha_rows(name)):
                if row in self.operations:
                    chosen = [row not in self.dropped and option == self.operations[row] for option in options]
                    kept.view(-1, kept.shape[-1])[place] = torch.tensor(chosen).to(kept)
            self.supernet.keep(name, kept)

    def _row(self, row: str) -> Tensor:
        name, number = self.places[row]
        return self.weights[name].view(-1, self.weights[name].shape[-1])[number]

    def _with(self, row: str, values: Tensor) -> Weights:
        """The weights with other ``values`` (options,) in one row."""
        return with_row(self.weights, self.places[row], values)


def drawn_order(supernet: Supernet, space: SearchSpace, generator: torch.Generator | None) -> RemovalOrder:
    """A random order of all decisions: rows and competing rows permuted cell by cell, the cells in turn.

    Alphas of a single row each, as those of the macro space, are permuted as if they were one cell. The weights of
    edges (PC-DARTS) are no decisions of their own.
    """
    decisions = decided_rows(space)
    names = {name: [row for row, _ in supernet.alpha_rows(name)] for name in supernet.alpha}
    rows = {name: [row for row in of_alpha if row in decisions] for name, of_alpha in names.items()}
    cells = [of_cell for of_cell in rows.values() if len(of_cell) > 1]
    alone = [of_cell[0] for of_cell in rows.values() if len(of_cell) == 1]
    cells = [*cells, alone] if alone else cells
    of_cells = [[rivals for rivals in contested(space) if rivals.rows[0] in cell] for cell in cells]
    return RemovalOrder(
        list(_in_turn([_permuted(cell, generator) for cell in cells])),
        list(_in_turn([_permuted(cell, generator) for cell in of_cells])),
        len(cells),
    )


def contested(space: SearchSpace) -> list[Rivals]:
    """The rows that compete for fewer places than they are."""
    return [rivals for rivals in space.rivals() if len(rivals.rows) > rivals.kept]


def _permuted(items: Sequence[One], generator: torch.Generator | None) -> list[One]:
    return [items[place] for place in torch.randperm(len(items), generator=generator).tolist()]


def _in_turn(sequences: Sequence[Sequence[One]]) -> Iterator[One]:
    """The first of each, the second of each, ..."""
    return (one for one in chain.from_iterable(zip_longest(*sequences)) if one is not None)
