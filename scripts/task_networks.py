"""A part of ``benchmark_tasks.py``: the small networks that a search is compared with, each at one untuned setting.

Trained by Adam with a learning rate of 1e-3 that falls to 0 along a cosine, on batches of 32, as many steps as the
project's default retraining takes. Every network is one that somebody would write down without thinking twice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.data.data_splits import DataSplits
from nas.data.texts.text_stream import TextDataset, rows_of
from nas.tasks import Task

STEPS, BATCH, RATE = 1500, 32, 1e-3
WIDTH, PIECE, ROWS = 128, 35, 20  # of the LSTM


def small_network(task: Task) -> nn.Module:
    """An MLP of 2 x 64, or a CNN of three layers and a pool over all places; of places five layers without a pool."""
    signature = task.signature
    rank = signature.rank
    if rank == 0:
        features = signature.input_shape[0] - len(signature.categories) + sum(signature.categories)
        return nn.Sequential(
            *(OneHot(signature.categories), nn.Linear(features, 64), nn.ReLU()),
            *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, signature.outputs)),
        )
    convolution, norm = (nn.Conv1d, nn.Conv2d)[rank - 1], (nn.BatchNorm1d, nn.BatchNorm2d)[rank - 1]
    layers: list[nn.Module] = []
    channels = signature.input_shape[0]
    dense = signature.head == "dense"
    for filters, size in [(24, 3 if rank == 2 else 7)] * 5 if dense else [(32, 7), (64, 5), (64, 3)]:
        layers += [convolution(channels, filters, size, padding=size // 2), norm(filters), nn.ReLU()]
        channels = filters
        if rank == 2 and not dense:
            layers.append(nn.MaxPool2d(2))
    if dense:
        return nn.Sequential(*layers, convolution(channels, signature.outputs, 1))
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)[rank - 1](1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(channels, signature.outputs))


class OneHot(nn.Module):
    """A column for each category in the place of the last, categorical columns."""

    def __init__(self, categories: tuple[int, ...]) -> None:
        super().__init__()
        self.categories = categories

    def forward(self, inputs: Tensor) -> Tensor:
        return one_hot(inputs, self.categories)


def one_hot(inputs: Tensor, categories: Sequence[int]) -> Tensor:
    """``inputs`` (N, F) with a column for each category in the place of the last, categorical ones."""
    if not categories:
        return inputs
    numbers, codes = inputs[:, : -len(categories)], inputs[:, -len(categories) :].long()
    columns = [torch.nn.functional.one_hot(code, size) for code, size in zip(codes.T, categories, strict=True)]
    return torch.cat([numbers, *columns], dim=1)


def network_outputs(task: Task, splits: DataSplits, seed: int, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Outputs for the test part, and its targets."""
    torch.manual_seed(seed)
    model = small_network(task)
    known = splits.train_and_validation()
    stream = known.stream(min(BATCH, len(known)), splits.mean, splits.std, torch.Generator().manual_seed(seed))
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = stream.next()
        optimiser.zero_grad()
        task.loss(model(batch.inputs), batch.targets).backward()
        optimiser.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        batches = list(splits.test.evaluation_batches(256, splits.mean, splits.std))
        outputs = torch.cat([model(batch.inputs) for batch in batches])
    return outputs, torch.cat([batch.targets for batch in batches])


class LSTM(nn.Module):
    """Embedding, one LSTM, and a linear layer to the vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(WIDTH, vocabulary)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.lstm(self.drop(self.embedding(tokens)), state)
        return self.out(self.drop(outputs)), state


def lstm_measures(task: Task, splits: DataSplits, seed: int, tokens: int = 600_000) -> dict[str, float]:
    """The measures after ``tokens`` tokens of training, Adam at 2e-3, the state carried from piece to piece."""
    known, test = splits.train_and_validation(), splits.test
    assert isinstance(known, TextDataset)
    assert isinstance(test, TextDataset)
    torch.manual_seed(seed)
    model = LSTM(task.signature.outputs)
    rows = rows_of(known.tokens, ROWS, PIECE)
    pieces = [(rows[:, at : at + PIECE], rows[:, at + 1 : at + PIECE + 1]) for at in places(rows)]
    steps = max(1, tokens // (len(rows) * PIECE))
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    state = None
    for step in range(steps):
        inputs, targets = pieces[step % len(pieces)]
        if step % len(pieces) == 0:
            state = None
        logits, state = model(inputs, state)
        state = state[0].detach(), state[1].detach()
        optimiser.zero_grad()
        task.loss(logits, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    metrics, state = task.metrics(torch.device("cpu")), None
    with torch.no_grad():
        for batch in test.evaluation_batches(ROWS, splits.mean, splits.std):
            logits, state = model(batch.inputs, state)
            metrics.update(logits, batch.targets)
    return metrics.compute()


def places(rows: Tensor) -> list[int]:
    """Where the whole pieces of ``rows`` begin."""
    return list(range(0, rows.shape[1] - PIECE, PIECE))
