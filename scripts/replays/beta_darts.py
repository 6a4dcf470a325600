"""Sunshine-Ye/Beta-DARTS: the regulariser by itself, its weight over the search, and the whole gradient of alpha."""

from collections.abc import Iterator

import torch

from nas.bilevel.regulariser import BetaDecay
from nas.errors import UnusableInput
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from replays.reference import FORWARD, ArrayFile, Comparison, compared, compared_absolutely


def replay_beta_darts(file: ArrayFile) -> Iterator[Comparison]:
    """Every alpha of the file, with a linear stand-in for the validation loss."""
    schedule, epochs = file.tensor("weight_schedule", 1), file.tensor("epochs", 1).tolist()
    relaxation, count = Softmax(Temperature()), len(schedule)
    weights = [BetaDecay().weight(epoch / count) for epoch in range(count)]
    yield compared("weight_schedule", torch.tensor(weights, dtype=torch.float64), schedule, FORWARD)
    names = [name.removesuffix("/alpha") for name in file.arrays if name.endswith("/alpha")]
    if not names:
        raise UnusableInput("it holds no alpha.")
    for name in names:
        alpha = file.tensor(f"{name}/alpha", 2).requires_grad_()
        value = BetaDecay(1.0, 1.0)({name: alpha}, relaxation, 0.0)
        yield compared(f"{name}/value", value, file.tensor(f"{name}/value"), FORWARD)
        (gradient,) = torch.autograd.grad(value, alpha)
        yield compared(f"{name}/grad_alpha", gradient, file.tensor(f"{name}/grad_alpha"), FORWARD)
        for epoch in epochs:
            loss = (file.tensor(f"{name}/stand_in_coefficients", 2) * relaxation(alpha)).sum()
            added = BetaDecay()({name: alpha}, relaxation, epoch / count)
            (gradient,) = torch.autograd.grad(loss + added, alpha)
            entry = f"{name}/epoch{epoch}_grad_alpha"
            yield compared_absolutely(entry, gradient, file.tensor(entry), FORWARD)
