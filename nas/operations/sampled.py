"""One operation per edge: what a cell computes where its weights are one-hot and its relaxation is sampled (GDAS)."""

from torch import Tensor


def chosen_columns(weights: Tensor) -> list[int] | None:
    """The place of the only entry in each row of ``weights`` (rows, options); None where a row has not just one."""
    rows = [[column for column, weight in enumerate(row) if weight != 0] for row in weights.tolist()]
    return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else None


def unchosen_sum(weights: Tensor, columns: list[int]) -> Tensor:
    """The sum of all other weights of the rows, which is 0.

    It is a part of the sum of a node in the code of GDAS. So an operation that is not chosen gets the gradient that an
    output of 1 everywhere would give it; a relaxation that does not want it keeps it from alpha.
    """
    others = weights.new_ones(weights.shape)
    others[range(len(columns)), columns] = 0.0
    return (weights * others).sum()
