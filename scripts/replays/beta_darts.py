"""Sunshine-Ye/Beta-DARTS: the regulariser by itself, its weight over the search, and the whole gradient of alpha."""

from collections.abc import Iterator

import torch

from nas.bilevel.regulariser import BetaDecay
from nas.errors import UnusableInput
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from replays.reference import FORWARD, ArrayFile, Comparison, compared_absolutely

EPOCHS = 100  # written into the original: its weight grows by 1/2 per epoch, however many there are


def replay_beta_darts(file: ArrayFile) -> Iterator[Comparison]:
    """Every alpha of the file, with a linear stand-in for the validation loss."""
    schedule, epochs = file.tensor("weight_schedule", 1), file.tensor("epochs", 1).tolist()
    relaxation = Softmax(Temperature())
    weights = [BetaDecay().weight(epoch / EPOCHS) for epoch in range(len(schedule))]
    yield compared_absolutely("weight_schedule", torch.tensor(weights, dtype=torch.float64), schedule, FORWARD)
    names = [name.removesuffix("/alpha") for name in file.arrays if name.endswith("/alpha")]
    if not names:
        raise UnusableInput("it holds no alpha.")
    for name in names:
        alpha = file.tensor(f"{name}/alpha", 2).requires_grad_()
        value = BetaDecay(1.0, 1.0)({name: alpha}, relaxation, 0.0)
        yield compared_absolutely(f"{name}/value", value, file.tensor(f"{name}/value"), FORWARD)
        (gradient,) = torch.autograd.grad(value, alpha)
        yield compared_absolutely(f"{name}/grad_alpha", gradient, file.tensor(f"{name}/grad_alpha"), FORWARD)
        for epoch in epochs:
            loss = (file.tensor(f"{name}/stand_in_coefficients", 2) * relaxation(alpha)).sum()
            added = BetaDecay()({name: alpha}, relaxation, epoch / EPOCHS)
            (gradient,) = torch.autograd.grad(loss + added, alpha)
            entry = f"{name}/epoch{epoch}_grad_alpha"
            yield compared_absolutely(entry, gradient, file.tensor(entry), FORWARD)
